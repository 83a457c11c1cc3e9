"""The site's search works from a disk: what runs in a worker on a server runs in a frame there."""

from pathlib import Path

import pytest

from tests.browser import browser, chromium
from tests.conftest import REPOSITORY


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_a_worker_of_a_page_on_a_disk_answers(tmp_path: Path) -> None:
    (tmp_path / "shim.js").write_text((REPOSITORY / "docs/iframe-worker.js").read_text())
    (tmp_path / "worker.js").write_text("addEventListener('message', (event) => postMessage(event.data.map((value) => 2 * value)))")
    (tmp_path / "page.html").write_text("<!doctype html><html><head><script src='shim.js'></script></head><body></body></html>")
    ask = """new Promise((answer) => {
        const worker = new Worker(new URL('worker.js', location));
        worker.addEventListener('message', (event) => answer(event.data));
        worker.postMessage([1, 2]);
    })"""
    with browser() as page:
        page.open(tmp_path / "page.html")
        assert page.evaluate(ask) == [2, 4]
