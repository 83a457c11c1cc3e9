"""Weights & Biases fails in mid-run: the run ends well in bounded time, and what the service did not get can be sent later.

A local server stands for the service. It works until W&B's run has begun, or not at all, and breaks down then.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.runs.test_training import ENVIRONMENT, SMALL, run_folder

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(600)]

PATIENCE_S = 3
"""logger.timeout_s: for the beginning; five times as long for the end."""
W_AND_B_PATIENCE_S = 20
"""What W&B itself waits for the answer that a table needs; there is no setting."""


class Service(ThreadingHTTPServer):
    """Answers what W&B's client asks in a run, and breaks down after `works_for` requests until it is mended.

    history  the numbers that arrived, by step
    """

    daemon_threads = True

    def __init__(self, breakdown: str, works_for: int) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.breakdown = breakdown
        self.left: float = works_for
        self.history: dict[int, dict[str, Any]] = {}
        self.mended = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.mend()
        self.shutdown()
        self.server_close()

    def mend(self) -> None:
        """Work from here on, and let those go that hang."""
        self.left = float("inf")
        self.mended.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""

    def receive(self, files: dict[str, Any]) -> None:
        """Keep the lines of a run's history."""
        for line in files.get("wandb-history.jsonl", {}).get("content", []):
            row = json.loads(line)
            self.history.setdefault(row["_step"], {}).update(row)

    def graphql(self, operation: str | None, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the data of an answer, as far as W&B's client looks at them."""
        someone = {"id": "someone", "name": "someone"}
        project = {"id": "project", "name": "rsdiff", "entity": someone}
        match operation:
            case "Viewer":
                return {
                    "viewer": {"id": "1", "entity": "someone", "username": "someone", "email": "", "flags": "{}", "teams": {"edges": []}}
                }
            case "RunResumeStatus":
                return {"model": {**project, "bucket": None}}
            case "UpsertBucket":
                run = {"id": "run", "name": variables["name"], "displayName": "run", "description": "", "config": "{}", "sweepName": None}
                return {"upsertBucket": {"bucket": {**run, "historyLineCount": 0, "project": project}, "inserted": True}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in variables["files"]]
                return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
            case "CreateArtifact":
                sequence = {"id": "sequence", "latestArtifact": None}
                return {"createArtifact": {"artifact": {"id": "artifact", "state": "COMMITTED", "artifactSequence": sequence}}}
        return {}


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        service = self.server
        service.left -= 1
        if service.left < 0:
            match service.breakdown:
                case "answers 500":
                    return self.reply(500, {"error": "broken"})
                case "hangs":
                    service.mended.wait()
                    self.close_connection = True
                    return None
                case "closes connections":
                    self.close_connection = True
                    return None
                case "answers nonsense":
                    return self.reply(200, {"data": {}})
        question: dict[str, Any] = {}
        with suppress(ValueError):
            question = json.loads(body)
        if self.path == "/graphql":
            return self.reply(200, {"data": service.graphql(question.get("operationName"), question.get("variables") or {})})
        if self.path.endswith("/file_stream"):
            service.receive(question.get("files") or {})
        return self.reply(200, {})

    do_GET = do_PUT = do_POST  # noqa: N815 - the names are those of the base class

    def reply(self, code: int, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with closing(Service(*request.param)) as running:
        yield running


def send(run: Path, environment: dict[str, str]) -> None:
    """Do what the run's last words advise."""
    folders = [str(path) for path in (run / "wandb").glob("*run-*") if list(path.glob("*.wandb"))]
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *folders]
    sent = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert sent.returncode == 0, sent.stderr


BEGUN = 4
"""Requests after which W&B's run has begun."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "service",
    [
        ("answers 500", BEGUN),
        ("hangs", BEGUN),
        ("closes connections", BEGUN),
        ("answers nonsense", BEGUN),
        ("hangs", 0),
        ("answers 500", 0),
    ],
    ids=lambda fault: f"{fault[0]} after {fault[1]} requests",
    indirect=True,
)
def test_a_service_that_breaks_down_costs_neither_the_run_nor_its_record(service: Service, tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "WANDB_BASE_URL": service.address, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
    wandb = ["logger=wandb", "logger.mode=online", f"logger.timeout_s={PATIENCE_S}"]
    command = [sys.executable, str(REPOSITORY / "run.py"), *SMALL, "trainer.workers=0", f"outputs={tmp_path}", *wandb]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    run = run_folder(tmp_path)
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "finished"
    (attempt,) = (run / "provenance.jsonl").read_text().splitlines()
    begun, ended_at = datetime.fromisoformat(json.loads(attempt)["time"]), datetime.fromisoformat(status["updated"])
    taken = (ended_at - begun.replace(tzinfo=None)).total_seconds()
    print(f"the service {service.breakdown}: {taken:.0f} s; {[line for line in ended.stderr.splitlines() if 'W&B' in line]}")
    waited = PATIENCE_S + W_AND_B_PATIENCE_S + 5 * PATIENCE_S
    assert taken < waited + 120, "the run itself takes seconds"
    assert "W&B" in ended.stderr

    recorded = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert len(recorded) > 12
    if service.breakdown == "answers nonsense":  # W&B's own process dies of it
        assert "W&B failed and gets no " in ended.stderr or "W&B did not take the whole record" in ended.stderr
        return
    service.mend()
    send(run, environment)
    for row in recorded:
        arrived = service.history[row.pop("step")]
        assert {name: arrived.get(name) for name in row} == row
