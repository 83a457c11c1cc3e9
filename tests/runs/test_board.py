"""task=board: the page of all runs says what their folders say, stays current, and answers clicks in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rsdiff.runs import board
from tests.browser import browser, chromium
from tests.conftest import Command

EVALUATION = ["task=evaluate", "model=bicubic", "dataset.size=32", "dataset.test_images=1", "metrics.metrics=[psnr]", "metrics.panels=1"]
HOSTILE = "</script><script>document.title = 'taken'</script>"


def shown(page: Path) -> dict[str, Any]:
    """Return what a page knows."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    content: dict[str, Any] = json.loads(found, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return content


def by_id(page: Path) -> dict[str, Any]:
    return {run["id"]: run for run in shown(page)["runs"]}


def make_run(outputs: Path, name: str, psnr: float, steps: int, state: str = "finished", error: str | None = None) -> Path:
    """Write the folder of a run as a training leaves it: status, settings, history of 500 records, two pictures."""
    folder = outputs / "train" / "rrdb_quick-folder" / name
    (folder / "evaluation/panels").mkdir(parents=True)
    summary = {
        "psnr": psnr,
        "bicubic_psnr": 26.0,
        "ssim": float("nan"),
        "lr_psnr": 41.2,
        "lpips_alex": 0.31,
        "dists": 0.2,
        "niqe": 5.1,
        "fid": 60.0,
    }
    status = {"state": state, "error": error, "summary": summary, "report": "report.html", "updated": f"2026-01-01 00:00:{steps:02d}"}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "config.yaml").write_text(f"scale: 4\nseed: 0\nmodel: {{kind: rrdb}}\ntrainer: {{steps: {steps}, weight: null}}\n")
    (folder / "provenance.jsonl").write_text(json.dumps({"command": ["run.py", f"trainer.steps={steps}"], "host": "here"}) + "\n")
    (folder / "history.jsonl").write_text("".join(f'{{"step": {step}, "loss/total": {1 / (step + steps)}}}\n' for step in range(1, 501)))
    (folder / "report.html").write_text("the report")
    for number, kind in enumerate(("lr", "bicubic", "sr", "hr")):
        picture = np.full((300, 300, 3), 40 * number + (steps if kind == "sr" else 0), np.uint8)
        Image.fromarray(picture).save(folder / f"evaluation/panels/town.{kind}.png")
    return folder


def test_the_page_shows_every_run_and_every_run_renews_it(run_command: Command, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    ended = run_command("task=board")
    assert ended.code != 0
    assert "outputs holds no run; start one" in ended.err
    assert run_command("-m", *EVALUATION, "dataset.bands=1,3").code == 0
    assert not (outputs / "index.html").exists(), "nobody wanted it yet"
    assert run_command("task=board").code == 0
    page = outputs / "index.html"
    runs = shown(page)["runs"]
    assert [run["state"] for run in runs] == ["finished", "finished"]
    assert run_command(*EVALUATION, "seed=7").code == 0
    content = shown(page)
    assert len(content["runs"]) == 3
    run = content["runs"][0]
    told = json.loads((outputs / run["id"] / "status.json").read_text())
    assert run["summary"]["psnr"] == pytest.approx(told["summary"]["psnr"], rel=1e-5)
    assert "seed=7" in [content["settings"][number] for number in run["settings"]]
    assert "metrics.protocol.name=litsr" in content["settings"]
    assert not any(text.startswith("trainer.") for text in content["settings"]), "an evaluation has none"
    assert (outputs / run["report"]).read_bytes() == (outputs / run["id"] / "report.html").read_bytes()
    assert {kind for picture in run["pictures"].values() for kind in picture} == {"lr", "bicubic", "sr", "hr"}
    (sweep,) = content["sweeps"]
    assert sweep["counts"] == {"finished": 2}
    assert set(sweep["runs"]) == {run["id"] for run in content["runs"][1:]}


def test_a_run_that_was_killed_moved_or_is_not_a_number_is_shown_as_it_is(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    make_run(outputs, "a", float("inf"), 10)
    make_run(outputs, "b", 27.0, 20, "running")
    make_run(outputs, "c", 28.0, 30, "failed", HOSTILE)
    (outputs / "train/rrdb_quick-folder/d").mkdir()
    (outputs / "train/rrdb_quick-folder/d/status.json").write_text("{")
    runs = by_id(board.write_board(outputs))
    a, b, c = (runs[f"train/rrdb_quick-folder/{name}"] for name in "abc")
    assert len(runs) == 3
    assert (a["summary"]["psnr"], a["summary"]["ssim"]) == ("inf", None)
    assert (b["state"], c["state"], c["error"]) == ("killed", "failed", HOSTILE)
    steps, values = a["series"]["loss/total"]
    assert len(steps) == len(values) <= board.POINTS
    assert steps[-1] == 500
    shared = shown(outputs / "index.html")
    assert len(shared["pictures"]) == 3 + 3, "input, bicubic and reference once for all runs, and a result of each"
    shutil.move(outputs, tmp_path / "moved")
    moved = by_id(board.write_board(tmp_path / "moved"))
    assert {name: run["report"] for name, run in moved.items()} == {name: run["report"] for name, run in runs.items()}


def test_what_is_kept_of_a_run_is_read_again_only_when_the_run_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path, "a", 27.0, 10)
    first = board.write_board(tmp_path)
    monkeypatch.setattr(board, "made_entry", lambda *_: pytest.fail("the run did not change"))
    assert by_id(board.write_board(tmp_path)) == by_id(first)
    monkeypatch.undo()
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "summary": {"psnr": 31.25}}))
    assert by_id(board.write_board(tmp_path))["train/rrdb_quick-folder/a"]["summary"]["psnr"] == 31.25


def test_a_page_that_cannot_be_renewed_is_said_and_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, "a", 27.0, 10)
    assert board.renew_board(tmp_path) == ""
    assert not (tmp_path / "index.html").exists()
    board.write_board(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "the disk is full")

    monkeypatch.setattr("rsdiff.reporting.board_page.write_page", full)
    assert "was not renewed" in board.renew_board(tmp_path)


@pytest.mark.skipif(chromium() is None, reason="needs chromium (apt-get install chromium), to look at the page")
def test_a_board_of_many_settings_and_metrics_fits_a_screen_1280_pixels_wide(tmp_path: Path) -> None:
    for number, kind in enumerate(("bicubic", "gaussian_noise")):
        folder = make_run(tmp_path, "ab"[number], 27.0, 20 * (number + 1), ("finished", "failed")[number], "a long message " * 9)
        more = f"degradation: {{kind: {kind}}}\nsampler: {{kind: {('ddim', 'edm_heun')[number]}}}\n"
        settings = (folder / "config.yaml").read_text().replace("scale: 4\nseed: 0", f"scale: {number + 2}\nseed: {number}")
        (folder / "config.yaml").write_text(settings + more)
    with browser() as tab:
        tab.open(board.write_board(tmp_path))
        assert tab.evaluate("innerWidth") == 1280
        assert len(tab.texts("#table th")) == 15
        assert tab.evaluate("(() => { const all = document.querySelector('#runs .scroll'); return all.scrollWidth <= all.clientWidth; })()")


@pytest.mark.skipif(chromium() is None, reason="needs chromium (apt-get install chromium), to click in the page")
def test_runs_are_sorted_filtered_and_compared_by_clicks(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        make_run(tmp_path, name, (27.0, 29.0, 28.0)[number], 10 * (number + 1), "failed" if name == "c" else "finished", HOSTILE)
    page = board.write_board(tmp_path)
    rows, psnr = "#table tbody tr", "#table th[data-name=psnr]"
    with browser() as tab:
        tab.open(page)
        assert len(tab.texts(rows)) == 3
        assert tab.texts("#compare h2") == []
        values = "#table tbody td:nth-child(5)"
        assert "29.00" in tab.texts(values)[1]
        tab.click(psnr)
        assert [text[:5] for text in tab.texts(values)] == ["27.00", "28.00", "29.00"]
        tab.click(psnr)
        assert [text[:5] for text in tab.texts(values)] == ["29.00", "28.00", "27.00"]
        tab.click("#filter")
        tab.type("steps=20")
        assert len(tab.texts(rows)) == 1
        assert tab.texts("#shown") == ["1 of 3 shown"]
        tab.click("#clear")
        assert [text[:5] for text in tab.texts(values)] == ["29.00", "28.00", "27.00"], "the order stays"
        tab.click(f"{rows}[data-run$='/a'] input")
        tab.click(f"{rows}[data-run$='/b'] input")
        assert tab.texts("#compare h2") == ["Comparison of 2 runs"]
        assert tab.evaluate("document.querySelectorAll('#plot polyline').length") == 2
        assert sorted(tab.texts("#legend span")) == ["trainer.steps=10", "trainer.steps=20"]
        assert len(tab.texts("#tiles figcaption")) == 3 + 2
        assert tab.texts("#settings tbody td:first-child") == ["trainer.steps"]
        assert [text for text in tab.texts("#results .best") if "29" in text] == ["29.00"]
        tab.click("#all-settings")
        assert "scale" in tab.texts("#settings tbody td:first-child")
        linear = tab.evaluate("document.querySelector('#plot polyline').getAttribute('points')")
        tab.click("#logarithmic")
        assert tab.evaluate("document.querySelector('#plot polyline').getAttribute('points')") != linear
        tab.click("#tiles .frame")
        assert tab.evaluate("document.querySelector('#tiles').classList.contains('near')")
        hash = tab.evaluate("location.hash")
        if "RSDIFF_PICTURES" in os.environ:
            tab.picture(Path(os.environ["RSDIFF_PICTURES"]) / "board.png")
        tab.open(tmp_path / "index.html", "?again" + hash)
        assert tab.texts("#compare h2") == ["Comparison of 2 runs"], "the address holds what was chosen"
        assert tab.evaluate("document.title").startswith("Runs in"), "no text of a run is executed"
        assert {address.partition(":")[0] for address in tab.said} <= {"file", "data"}, "the page asks nobody, and its scripts run"
