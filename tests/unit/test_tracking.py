"""What a run records of itself: its history survives interruptions, and no service can take the run down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from rsdiff.tracking import JsonLinesConfig, RunIdentity, WandbConfig, read_history
from rsdiff.tracking import wandb as wandb_tracker
from rsdiff.tracking.json_lines import JsonLines
from rsdiff.tracking.progress import Progress, duration


def identity(folder: Path) -> RunIdentity:
    return RunIdentity(folder, "sr3_quick-synthetic", "train", "0123456789", ("model=sr3_quick",), {"seed": 0})


def log_steps(tracker: JsonLines, steps: range) -> None:
    for step in steps:
        tracker.log(step, {"loss": 1.0 / (step + 1)})


def test_the_history_of_a_resumed_run_equals_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    log_steps(JsonLines(whole), range(1, 9))
    log_steps(JsonLines(resumed), range(1, 7))
    with (resumed / "history.jsonl").open("a") as stream:
        stream.write('{"step": 7, "lo')  # killed while writing
    again = JsonLines(resumed)
    again.rewind(4)
    log_steps(again, range(5, 9))
    assert (resumed / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()


def test_an_incomplete_last_line_is_not_read(tmp_path: Path) -> None:
    log_steps(JsonLines(tmp_path), range(3))
    with (tmp_path / "history.jsonl").open("a") as stream:
        stream.write('{"step": 3, "loss": 0.1}')
    assert [record["step"] for record in read_history(tmp_path)] == [0, 1, 2]


def test_values_that_are_not_finite_are_valid_json_and_read_back(tmp_path: Path) -> None:
    JsonLines(tmp_path).log(1, {"loss": math.nan, "psnr": math.inf})
    json.loads((tmp_path / "history.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    (record,) = read_history(tmp_path)
    assert math.isnan(record["loss"])
    assert record["psnr"] == math.inf


def test_pictures_and_tables_are_files_of_the_run(tmp_path: Path) -> None:
    tracker = JsonLinesConfig(progress="off").build(identity(tmp_path))
    tracker.image("panel", torch.linspace(0, 1, 12).reshape(1, 3, 4), step=7)
    tracker.table("results", [{"psnr": 30.0}, {"psnr": 31.0, "ssim": 0.9}])
    tracker.finish("finished")
    assert Image.open(tmp_path / "images" / "panel_00000007.png").size == (4, 3)
    assert (tmp_path / "tables" / "results.csv").read_text() == "psnr,ssim\n30.0,\n31.0,0.9\n"


def test_a_log_file_gets_the_last_step_and_few_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        progress = Progress(Console(file=stream))
        for step in range(1, 101):
            progress.advance(step, 100, {"restorer/total": 0.5}, 12.0)
        progress.progress("evaluating", 8, 8)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[-2].startswith("step 100/100, loss 0.5, 12 images/s, ")
    assert lines[-1].startswith("evaluating 8/8, ")
    assert len(lines) <= 4


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (303, "5 min 03 s"), (3900, "1 h 05 min")])
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class FakeRun:
    """Stands for a W&B run, whose calls are remembered; `log` may fail."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.calls: list[str] = []
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any], step: int) -> None:
        self.calls.append("log")
        if self.fails:
            raise ConnectionError("the service is gone")

    def finish(self, exit_code: int) -> None:
        self.calls.append(f"finish {exit_code}")


def fake_wandb(monkeypatch: pytest.MonkeyPatch, run: FakeRun, online_fails: bool = False) -> list[dict[str, Any]]:
    started: list[dict[str, Any]] = []

    def init(**options: Any) -> FakeRun:
        started.append(options)
        if online_fails and options["mode"] == "online":
            raise TimeoutError("no answer")
        return run

    fake = SimpleNamespace(init=init, Settings=dict, Table=dict, Image=lambda pixels: pixels.shape, teardown=lambda: None)
    monkeypatch.setattr(wandb_tracker, "_wandb", lambda: fake)
    return started


@pytest.fixture(autouse=True)
def no_wandb_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def test_without_a_key_wandb_records_offline_under_the_runs_own_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = fake_wandb(monkeypatch, FakeRun(fails=False))
    WandbConfig(progress="off", mode="online").build(identity(tmp_path)).finish("finished")
    assert [(options["mode"], options["id"], options["dir"]) for options in started] == [("offline", "0123456789", str(tmp_path))]


def test_a_service_that_does_not_answer_leaves_an_offline_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "any")
    started = fake_wandb(monkeypatch, FakeRun(fails=False), online_fails=True)
    WandbConfig(progress="off").build(identity(tmp_path))
    assert [options["mode"] for options in started] == ["online", "offline"]
    assert "W&B is not reached (TimeoutError: no answer); the run is recorded offline." in capsys.readouterr().err


def test_what_a_service_fails_at_is_reported_once_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = FakeRun(fails=True)
    fake_wandb(monkeypatch, run)
    tracker = WandbConfig(progress="off").build(identity(tmp_path))
    for step in range(3):
        tracker.log(step, {"loss": 1.0})
    tracker.finish("finished")
    assert run.calls == ["log", "finish 0"]
    assert capsys.readouterr().err.count("\n") == 1
    assert len(read_history(tmp_path)) == 3


def test_a_table_of_one_row_becomes_the_summary_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(fails=False)
    fake_wandb(monkeypatch, run)
    tracker = WandbConfig(progress="off").build(identity(tmp_path))
    tracker.image("panel", torch.zeros(3, 4, 4))
    tracker.table("results", [{"psnr": 30.0}])
    tracker.finish("failed")
    assert run.summary == {"psnr": 30.0}
    assert run.calls[-1] == "finish 1"
