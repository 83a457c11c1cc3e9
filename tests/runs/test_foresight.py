"""What cannot be evaluated is known before anything is trained for it, in tables, leaderboards and sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import rsdiff
from rsdiff.app import tables
from rsdiff.app.command_line import check_command, composing
from rsdiff.app.leaderboard import jobs_of
from rsdiff.app.options import LeaderboardMethod, LeaderboardTask
from rsdiff.app.schemas import register_schemas
from rsdiff.app.table_options import TableConfig, TablePoint, TableRow
from rsdiff.app.table_plan import cells_of
from rsdiff.app.tables import Workshop
from rsdiff.config import ConfigError
from tests.conftest import REPOSITORY

SMALL = "dataset=synthetic dataset.size=32 dataset.train_images=2 dataset.test_images=1"
TRAIN = f"model=rrdb_tiny {SMALL} dataset.second_date=false degradation=bicubic scale=4 trainer=minimal"
TEST = (*SMALL.split(), "degradation=bicubic", "scale=4")
ROWS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "no reference": (
        "model=refdiff_tiny scale=8 trainer=minimal " + SMALL,
        ("dataset.second_date=false", "scale=8"),
        "refdiff_tiny needs change_mask and ref",
    ),
    "no LR to take": (TRAIN, ("degradation=paired",), "degradation=paired needs lr"),
    "another scale": (TRAIN, ("scale=2",), "is trained at scale=4 and has one scale; it cannot be tested at scale=2"),
    "other bands": (TRAIN, ("dataset.bands=4",), "is trained on 3 to 3 bands and dataset=synthetic has 4 to 4"),
    "a sampler's option": (TRAIN, ("sampler.steps=8",), "sampler.steps has no effect with this model"),
    "a metric of samples": (TRAIN, ("metrics.metrics=[crps]",), "no metric can be computed: CRPS: it judges several restorations"),
    "no weights of a metric": (TRAIN, ("metrics.metrics=[niqe_rs]", "metrics.weight_folders=[nowhere]"), "no metric can be computed: NIQE"),
    "a metric that does not exist": (TRAIN, ("metrics.metrics=[psrn]",), "'psrn' is not a metric"),
    "a further stage": (
        "model=rrdb_tiny",
        (),
        "has a discriminator built for targets of 64 x 64, and in training they are 32 x 32",
    ),
    "no data": (TRAIN, ("dataset=folder", "dataset.root=nowhere"), "nowhere"),
}


def test_nothing_is_trained_that_cannot_be_evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "launch", lambda *given: pytest.fail(f"launched {given[0]}"))
    register_schemas()
    rows, points = [], []
    for name, (training, settings, _) in ROWS.items():
        stages = (training,) if name != "a further stage" else (TRAIN, TRAIN.replace("rrdb_tiny", "esrgan_tiny") + " trainer.patch=32")
        rows.append(TableRow(name=name, model="rrdb_tiny", train=stages, points=(name,)))
        keys = {setting.partition("=")[0] for setting in settings}
        kept = [word for word in TEST if word.partition("=")[0] not in keys and not ("dataset" in keys and word.startswith("dataset"))]
        points.append(TablePoint(name=name, evaluate=(*settings, *kept)))
    table = TableConfig(
        title="Rows that cannot be", source="nowhere", metrics="standard", shown=("psnr",), rows=tuple(rows), points=tuple(points)
    )
    workshop = Workshop(rsdiff.compose("sweeps=tables/ldcsr_aid"), None)
    with composing(REPOSITORY / "conf"):
        cells = cells_of(table, "paper", 1, ["rrdb_tiny"], lambda model: (), lambda settings: None)
        outcomes = workshop.finish([cell.job for cell in cells if cell.job is not None])
    said = {cell.row.name: outcomes[cell.job].reason for cell in cells if cell.job is not None}
    assert said.keys() == ROWS.keys()
    for name, reason in said.items():
        assert ROWS[name][2] in reason, (name, reason)
        assert reason.endswith(".")
        assert "\n" not in reason
    assert not workshop.failed


def test_a_leaderboard_and_a_sweep_refuse_before_the_first_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "launch", lambda *given: pytest.fail(f"launched {given[0]}"))
    register_schemas()
    board = LeaderboardTask(
        methods=(
            LeaderboardMethod(name="GAN", train=("model=rrdb_tiny trainer=minimal", "model=esrgan_tiny trainer=minimal trainer.patch=32")),
        ),
        data=(*TEST, "dataset.second_date=false", "metrics=standard"),
    )
    workshop = Workshop(rsdiff.compose("sweeps=leaderboard"), None)
    with composing(REPOSITORY / "conf"):
        jobs = jobs_of(board)
        outcomes = workshop.finish(list(jobs.values()))
    assert "built for targets of 64 x 64" in outcomes[jobs["GAN"]].reason
    with pytest.raises(ConfigError, match="refdiff_tiny needs change_mask and ref"):
        check_command(REPOSITORY / "conf", ["model=rrdb_tiny,refdiff_tiny", "dataset.second_date=false"], multirun=True)
