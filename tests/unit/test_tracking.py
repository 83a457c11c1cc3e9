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

from rsdiff.config.pace import Pace, duration, roughly
from rsdiff.tracking import JsonLinesConfig, RunIdentity, WandbConfig, read_history
from rsdiff.tracking import wandb as wandb_tracker
from rsdiff.tracking.csv_file import CsvConfig
from rsdiff.tracking.json_lines import JsonLines
from rsdiff.tracking.progress import Progress
from rsdiff.tracking.replay import replay
from rsdiff.tracking.several import SeveralConfig


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


def test_a_log_file_says_soon_how_long_it_takes_and_then_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("rsdiff.tracking.progress.time.monotonic", lambda: now)
    with (tmp_path / "log").open("w") as stream:
        progress = Progress(Console(file=stream))
        for step in range(1, 3601):
            now += 1.0
            progress.advance(step, 3600, {"total": 0.5}, 12.0)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[1].startswith("step 6/3600")
    assert "59 min 54 s left" in lines[1]
    assert len(lines) <= 20
    assert lines[-1].startswith("step 3600/3600")


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (303, "5 min 03 s"), (3900, "1 h 05 min")])
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_length_of_work_is_told_once_from_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("rsdiff.config.pace.time.monotonic", lambda: now)
    pace, short = Pace(600), Pace(8)
    told = {}
    for step, seconds in enumerate([60.0, 2.0, 2.0, 2.0, 2.0, 2.0], start=1):  # the first loads and compiles
        now += seconds
        if (estimate := pace.after(step)) is not None:
            told[step] = estimate
        assert short.after(step) is None  # over in a few seconds
    assert list(told) == [3]
    assert (told[3].left, told[3].each) == (2.0 * 597, 2.0)
    assert [roughly(seconds) for seconds in (44, 2.0 * 597, 6 * 3600, 200_000)] == ["40 s", "20 min", "6 h", "2 days"]


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


def test_the_variables_of_wandb_are_honoured_and_options_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wished = {"PROJECT": "mine", "NAME": "first try", "RUN_GROUP": "group", "NOTES": "a remark", "JOB_TYPE": "ablation", "TAGS": "a,b"}
    for name, value in wished.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    started = fake_wandb(monkeypatch, FakeRun(fails=False))
    WandbConfig(progress="off").build(identity(tmp_path))
    WandbConfig(progress="off", project="other", name="second", tags=("c",)).build(identity(tmp_path))
    names = ("project", "name", "group", "notes", "job_type")
    assert [started[0][name] for name in names] == ["mine", "first try", "group", "a remark", "ablation"]
    assert started[0]["tags"] == ["model=sr3_quick", "a", "b"]
    assert (started[1]["project"], started[1]["name"], started[1]["tags"][-1]) == ("other", "second", "c")
    for name in wished:
        monkeypatch.delenv(f"WANDB_{name}")
    WandbConfig(progress="off").build(identity(tmp_path))
    assert started[2]["project"] == "rsdiff"
    assert started[2]["name"] == "sr3_quick-synthetic-0123"  # cells of a sweep differ in it


def test_a_resumed_run_has_every_number_once_with_every_logger(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="logger=tensorboard needs the extra 'tensorboard'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for attempt in (range(1, 5), range(3, 7)):
        tracker = SeveralConfig(names=("csv", "tensorboard"), progress="off").build(identity(tmp_path))
        tracker.rewind(attempt[0] - 1)
        for step in attempt:
            tracker.log(step, {"loss": 1.0 / step})
        tracker.image("panel", torch.zeros(3, 4, 4), step=attempt[-1])
        tracker.table("results", [{"psnr": 30.0}])
        tracker.finish("interrupted")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,name,value"
    assert [int(line.split(",")[0]) for line in lines[1:]] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_given_to_a_logger_that_was_chosen_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = JsonLinesConfig(progress="off").build(identity(tmp_path))
    for step in range(3):
        own.log(step, {"loss": float(step)})
    own.image("validation", torch.ones(3, 4, 4), step=1)
    own.table("results", [{"psnr": 30.0}])
    own.finish("finished")
    run = FakeRun(fails=False)
    fake_wandb(monkeypatch, run)
    late = SeveralConfig(names=("csv", "wandb"), progress="off").absent(identity(tmp_path))
    assert late is not None
    replay(tmp_path, late, None)
    assert (tmp_path / "metrics.csv").read_text().count("loss") == 3
    assert run.calls == ["log"] * 5 + ["finish 0"]
    assert run.summary == {"psnr": 30.0}
    assert CsvConfig().absent(identity(tmp_path)) is None


def test_the_checkpoint_of_the_results_is_an_artifact_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    class FakeArtifact(SimpleNamespace):
        def add_file(self, path: str) -> None:
            self.files.append(Path(path).name)

    run = FakeRun(fails=False)
    run.log_artifact = sent.append  # type: ignore[attr-defined]
    fake_wandb(monkeypatch, run)
    wandb_tracker._wandb().Artifact = lambda **options: FakeArtifact(files=[], **options)
    for name in ("weights.safetensors", "card.json", "training_state.pt"):
        (tmp_path / name).write_bytes(b"")
    for asked in (False, True):
        WandbConfig(progress="off", artifacts=asked).build(identity(tmp_path)).model(tmp_path)
    (artifact,) = sent
    assert artifact.type == "model"
    assert sorted(artifact.files) == ["card.json", "weights.safetensors"]


def test_a_table_of_one_row_becomes_the_summary_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(fails=False)
    fake_wandb(monkeypatch, run)
    tracker = WandbConfig(progress="off").build(identity(tmp_path))
    tracker.image("panel", torch.zeros(3, 4, 4))
    tracker.table("results", [{"psnr": 30.0}])
    tracker.finish("failed")
    assert run.summary == {"psnr": 30.0}
    assert run.calls[-1] == "finish 1"
