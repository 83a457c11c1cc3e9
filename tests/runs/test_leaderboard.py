"""task=leaderboard: equal processor time for every method, one page, and nothing done twice."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose

from rsdiff.app.command_line import CONFIG_NAME, check_run, composing
from rsdiff.app.composition import group_config
from rsdiff.app.leaderboard import ON_EQUAL_TERMS, jobs_of, trained
from rsdiff.app.options import LeaderboardTask
from rsdiff.app.schemas import register_schemas
from rsdiff.config import ConfigError
from rsdiff.runs.result import TaskResult
from rsdiff.runs.status import read_status
from rsdiff.tasks import evaluate
from tests.conftest import REPOSITORY, Command

DATA = (
    "dataset=synthetic dataset.second_date=false dataset.size=128 dataset.train_images=5 dataset.test_images=3 degradation=bicubic scale=4 "
    "metrics=standard"
)
SMALL = "task.data=[" + ",".join(f'"{word}"' for word in DATA.split()) + "]"


def board(name: str = "leaderboard") -> LeaderboardTask:
    task = group_config(compose(CONFIG_NAME, [f"sweeps={name}"]), "task")
    assert isinstance(task, LeaderboardTask)
    return task


def test_every_method_of_the_board_composes_and_its_trainings_share_its_minutes() -> None:
    register_schemas()
    with composing(REPOSITORY / "conf"):
        for name in ("leaderboard", "leaderboard_aid"):
            options = board(name)
            jobs = jobs_of(options)
            assert len(jobs) == len(options.methods) >= 20
            for label, job in jobs.items():
                minutes = []
                for link in filter(trained, job.chain):
                    assert "trainer.workers=0" in link.settings
                    minutes += [
                        float(setting.partition("=")[2]) for setting in link.settings if setting.startswith("trainer.processor_minutes")
                    ]
                assert sum(minutes) == pytest.approx(options.minutes if trained(job) else 0.0), label
                if name == "leaderboard":
                    try:
                        check_run(job.chain[0].settings)
                    except ConfigError as refusal:
                        pytest.fail(f"{label}: {refusal}")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task=leaderboard",), "choose sweeps=leaderboard"),
        (("sweeps=leaderboard", "task.only=[Nosuch]"), "only names Nosuch"),
        (("sweeps=leaderboard", "task.minutes=0"), "choose more than 0"),
    ],
)
def test_a_board_that_cannot_be_made_is_a_sentence(words: tuple[str, ...], sentence: str, run_command: Command) -> None:
    ended = run_command(*words)
    assert ended.code == 2
    assert sentence in ended.err


def test_the_cost_of_a_training_leaves_out_the_evaluation_after_it(run_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    real, late = time.process_time, 0.0
    report = evaluate.report

    def long_report(*arguments: Any, **named: Any) -> TaskResult:
        nonlocal late
        late = 1e6
        return report(*arguments, **named)

    monkeypatch.setattr("rsdiff.training.budget.time.process_time", lambda: real() + late)
    monkeypatch.setattr(evaluate, "report", long_report)
    ended = run_command(
        "model=rrdb_tiny", *DATA.split(), "trainer=quick", "trainer.processor_minutes=0.001", *ON_EQUAL_TERMS, "trainer.batch=1"
    )
    assert ended.code == 0, ended.err
    (folder,) = Path("outputs/train").glob("*/*")
    assert 0 < read_status(folder).summary["processor_seconds"] < 1e5


@pytest.mark.slow
def test_methods_train_for_the_same_seconds_and_the_same_command_does_nothing_again(run_command: Command) -> None:
    words = ("sweeps=leaderboard", "task.minutes=0.1", "task.only=[Bicubic,RRDB,LIIF,SPSR]", "task.shown=[psnr,ssim]", SMALL)
    ended = run_command(*words)
    assert ended.code == 0, ended.err
    (page,) = Path("outputs/leaderboard").glob("*.md")
    text = page.read_text()
    rows = {
        cells[0]: cells
        for line in text.partition("\n###")[0].splitlines()  # the first table
        if line.startswith("|") and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 8
    }
    assert {"Bicubic", "RRDB", "LIIF", "SPSR"} <= rows.keys()
    for name in ("RRDB", "LIIF", "SPSR"):
        assert 6 <= float(rows[name][3]) <= 12, f"{name} trained for {rows[name][3]} s of 6"
        assert int(rows[name][4]) >= 2
    assert rows["Bicubic"][3] == "-"
    assert "difference from the best" in text
    assert re.search(r"energy kJ", text)
    halves = [read_status(folder).summary for folder in Path("outputs/train").glob("spsr_quick-*/*")]
    assert all(3 <= half["processor_seconds"] <= 6 for half in halves), halves  # the last step and its checkpoint count, too
    assert halves
    again = run_command(*words)
    assert again.code == 0, again.err
    assert "runs to do" not in again.out
