"""The methods that papers compare with, as a user runs them: spectral regressions, EDiffSR, SPSR."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.runs.short import SHORT as SHORT_RUN
from tests.runs.short import scenes

SCENES = scenes(32, 1)
SHORT = [*SHORT_RUN, "trainer.patch=32"]


def the_run(outputs: Path, name: str) -> Path:
    (folder,) = outputs.glob(f"{name}-*/*")
    return folder


def train_spectral(run_command: Command, outputs: Path, model: str, *settings: str) -> Path:
    trained = run_command(
        f"model={model}", *settings, *SCENES, *SHORT, "dataset.bands=10", "degradation.bands=[2,5,9]", "trainer.best_metric=rmse"
    )
    assert trained.code == 0, trained.err
    return the_run(outputs / "train", model)


@pytest.mark.parametrize("model", ["mstpp_quick", "mst_l_quick", "awan_quick"])
def test_a_spectral_regression_trains_and_keeps_the_checkpoint_with_the_lowest_error(
    run_command: Command, tmp_path: Path, model: str
) -> None:
    run = train_spectral(run_command, tmp_path / "outputs", model, "model.width=16")
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    errors = [line["validation/rmse"] for line in history if "validation/rmse" in line]
    assert json.loads((run / "checkpoints" / "best.json").read_text())["value"] == min(errors)


def test_an_ensemble_changes_what_is_evaluated(run_command: Command, tmp_path: Path) -> None:
    run = train_spectral(run_command, tmp_path / "outputs", "hscnn_plus_quick", "model.blocks=1")
    found = set()
    for ensemble in ("none", "mean", "median"):
        evaluated = run_command("task=evaluate", f"task.ensemble={ensemble}", f"checkpoint={run}", f"outputs={tmp_path / ensemble}")
        assert evaluated.code == 0, evaluated.err
        found.add((the_run(tmp_path / ensemble / "evaluate", "hscnn_plus_quick") / "evaluation" / "records.csv").read_text())
    assert len(found) == 3


def test_ediffsr_trains_and_any_sampler_restores_with_it(run_command: Command, tmp_path: Path) -> None:
    few = ["model.schedule.steps=3", "sampler=ddim", "sampler.steps=3"]
    trained = run_command("model=ediffsr_quick", *few, *SCENES, *SHORT, "metrics.metrics=[psnr]", "scale=4")
    assert trained.code == 0, trained.err
    run = the_run(tmp_path / "outputs/train", "ediffsr_quick")
    for sampler in ("ediffsr", "ddpm"):
        ended = run_command("task=evaluate", f"checkpoint={run}", f"sampler={sampler}", "sampler.steps=3", f"outputs={tmp_path / sampler}")
        assert ended.code == 0, ended.err


def test_spsr_follows_the_rrdb_it_starts_from_in_one_command(run_command: Command, tmp_path: Path) -> None:
    sizes = ["model.network.width=4", "model.network.growth=4"]
    first = run_command("model=rrdb_quick", *sizes, *SCENES, *SHORT, "metrics.metrics=[psnr]", "scale=4")
    assert first.code == 0, first.err
    second = run_command(
        *("model=spsr_quick", "model.discriminator.size=32", "model.discriminator.width=2", "model.fusion_steps=1"),
        *sizes,
        *SCENES,
        *SHORT,
        "metrics.metrics=[psnr]",
        "scale=4",
    )
    assert second.code == 0, second.err
    assert (
        f"starting from {Path('outputs') / the_run(tmp_path / 'outputs/train', 'rrdb_quick').relative_to(tmp_path / 'outputs')}"
        in second.out
    )
    lines = (the_run(tmp_path / "outputs/train", "spsr_quick") / "history.jsonl").read_text().splitlines()
    names = {name for line in lines for name in json.loads(line)}
    assert {"restorer/branch", "restorer/gradient_adversarial", "discriminator/real", "gradient_discriminator/fake"} <= names
