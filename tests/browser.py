"""A headless Chromium that tests click in, by its DevTools protocol over two pipes; no driver and no network."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Return the browser's program, or None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One page; `said` collects what its scripts complain of and every address it asks for."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._rest = to, back, b""
        self._numbers = itertools.count(1)
        self._session = ""
        self.said: list[str] = []
        target = self._do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self._do(f"{domain}.enable")

    def open(self, page: Path, hash: str = "") -> None:
        self._do("Page.navigate", url=page.resolve().as_uri() + hash)
        for _ in range(200):
            if self.evaluate("document.readyState === 'complete' && location.protocol === 'file:'"):
                return
        raise AssertionError(f"{page} is not loaded")

    def evaluate(self, script: str) -> Any:
        answer = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of the first element that `selector` names."""
        script = f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
        x, y = self.evaluate(script + " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="none" if kind == "mouseMoved" else "left", clickCount=1)

    def type(self, text: str) -> None:
        self._do("Input.insertText", text=text)

    def texts(self, selector: str) -> list[str]:
        """Return the text of every element that `selector` names and that is shown."""
        shown = "[...document.querySelectorAll(%s)].filter((e) => e.offsetParent !== null).map((e) => e.textContent.trim())"
        found: list[str] = self.evaluate(shown % json.dumps(selector))
        return found

    def picture(self, path: Path) -> None:
        """Write what the page looks like, whole, as a PNG."""
        path.write_bytes(base64.b64decode(self._do("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _do(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": self._session} if self._session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer.get("result", {})
            if answer.get("method") == "Runtime.exceptionThrown":
                self.said.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("method") == "Network.requestWillBeSent":
                self.said.append(answer["params"]["request"]["url"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._back, 1 << 20)
            assert part, "the browser ended"
            self._rest += part
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


@contextmanager
def browser() -> Iterator[Page]:
    """Context with an empty page of a browser that ends with it."""
    program = chromium()
    assert program is not None
    commands, answers = os.pipe(), os.pipe()
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-pipe",
        "--no-first-run",
        "--window-size=1280,1000",
    )

    def pipes() -> None:  # the browser reads its commands from descriptor 3 and answers on 4
        held = os.dup(commands[0]), os.dup(answers[1])
        os.dup2(held[0], 3)
        os.dup2(held[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *flags, f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Page(commands[1], answers[0])
        finally:
            process.kill()
            process.wait()
            for descriptor in (*commands, *answers):
                os.close(descriptor)
