"""The ESRGAN family as a user runs it: two stages in one command, released weights, networks of other projects."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rsdiff.methods.base import Problem
from rsdiff.methods.regression import RRDBMethodConfig
from rsdiff.networks.rrdb import RRDBNetConfig
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.weights import export_weights
from tests.conftest import Command
from tests.runs.short import SHORT as SHORT_RUN
from tests.runs.short import scenes

SCENES = scenes(64, 2)
SHORT = [*SHORT_RUN, "metrics.metrics=[psnr]"]
EVALUATION = ["metrics.metrics=[psnr]", "metrics.panels=1"]


def published_file(folder: Path, config: RRDBMethodConfig | None = None, scale: float = 4) -> Path:
    """Write a small RRDBNet as BasicSR or KAIR does."""
    torch.manual_seed(0)
    config = config or RRDBMethodConfig(network=RRDBNetConfig(width=8, blocks=1))
    weights = config.build(Problem(scale=scale, bands=3, lr_bands=3)).state_dict()
    torch.save({"params_ema": export_weights("rrdb", config, weights)}, folder / "RRDBNet.pth")
    return folder / "RRDBNet.pth"


def test_released_weights_of_another_scale_are_imported_when_it_is_named(run_command: Command, tmp_path: Path) -> None:
    source = published_file(tmp_path, RRDBMethodConfig(network=RRDBNetConfig(width=8, blocks=1, growth=8, head="stages")), scale=3)
    small = ["model.network.width=8", "model.network.blocks=1", "model.network.growth=8"]
    command = ["task=import", "model=bsrnet", f"source={source}", f"output={tmp_path / 'imported'}", *small]
    unlike = run_command(*command, "scale=3", "model.network.width=16", "model.initial=kaiming")
    assert unlike.err.strip().endswith("; for this file add model.network.width=8.")
    refused = run_command(*command)
    assert refused.code == 2
    assert "are those of scale=2 and scale=3, not of scale=4; set scale" in refused.err
    assert run_command(*command, "scale=3").code == 0


def test_both_stages_train_in_one_command_and_the_last_checkpoint_of_the_gan_counts(run_command: Command, tmp_path: Path) -> None:
    ended = run_command("-m", "experiments=quick/bsrgan_stage1,quick/bsrgan_stage2", *SCENES, *SHORT, "trainer.patch=64")
    assert ended.code == 0, ended.err
    (first,) = (tmp_path / "outputs/train").glob("bsrnet_quick-*/*")
    (second,) = (tmp_path / "outputs/train").glob("bsrgan_quick-*/*")
    assert f"starting from {Path('outputs') / first.relative_to(tmp_path / 'outputs')}" in ended.out
    assert not (second / "checkpoints" / "best.json").exists()
    assert read_checkpoint(second).folder.name == "step_00000002"
    names = {name for line in (second / "history.jsonl").read_text().splitlines() for name in json.loads(line)}
    assert {"restorer/l1", "restorer/adversarial", "discriminator/real", "discriminator/fake"} <= names


@pytest.mark.parametrize(("model", "degradation"), [("esrgan_quick", "bicubic"), ("real_esrgan_quick", "real_esrgan")])
def test_a_gan_trains_from_a_trained_network_and_from_released_weights(
    run_command: Command, tmp_path: Path, model: str, degradation: str
) -> None:
    small = ["model.network.width=8", "model.network.blocks=1", "model.network.growth=32", "model.base=none"]
    source = published_file(tmp_path)
    imported = run_command("task=import", "model=rrdb", f"source={source}", f"output={tmp_path / 'imported'}", *small)
    assert imported.code == 0, imported.err
    target = ["degradation.target=raw"] if degradation == "real_esrgan" else []
    trained = run_command(
        f"model={model}",
        f"degradation={degradation}",
        *target,
        *small,
        *SCENES,
        *SHORT,
        "trainer.patch=64",
        f"checkpoint={tmp_path / 'imported'}",
    )
    assert trained.code == 0, trained.err
    (folder,) = (tmp_path / "outputs/train").glob("*/*")
    assert any(name.startswith("discriminator.") for name in load_file(read_checkpoint(folder).folder / "weights.safetensors"))


def require_true_labels(folder: Path, out: str, source: Path, architecture: str) -> None:
    """Every result names the released file, its hash, architecture and source, and calls it no quick budget."""
    (run,) = folder.glob("*/*")
    for text in (out, (run / "results.md").read_text(), (run / "report.html").read_text()):
        assert source.name in text
        assert hashlib.sha256(source.read_bytes()).hexdigest() in text
        assert architecture in text
        assert "released weights" in text
        assert "budget" not in text.partition("Resolved settings")[0].lower()
        assert " steps" not in text.partition("Resolved settings")[0]


def test_a_released_generator_brings_no_discriminator_and_its_results_say_whose_weights_they_are(
    run_command: Command, tmp_path: Path
) -> None:
    source, small = published_file(tmp_path), ["model.generator.width=8", "model.generator.blocks=1"]
    imported = run_command("task=import", "model=real_esrgan", f"source={source}", f"output={tmp_path / 'imported'}", *small)
    assert imported.code == 0, imported.err
    checkpoint = read_checkpoint(tmp_path / "imported")
    assert {name.partition(".")[0] for name in checkpoint.weights} == {"network"}
    assert checkpoint.card["parameters"] == sum(value.numel() for value in checkpoint.weights.values())
    scored = run_command("task=evaluate", f"checkpoint={tmp_path / 'imported'}", "degradation=bicubic", *SCENES, *EVALUATION)
    assert scored.code == 0, scored.err
    require_true_labels(tmp_path / "outputs/evaluate", scored.out, source, "RRDBNet")


def test_a_gan_without_a_first_stage_says_what_to_train(run_command: Command) -> None:
    ended = run_command("model=bsrgan_quick", *SCENES, *SHORT)
    assert ended.code == 2
    assert "train it first" in ended.err


def test_a_network_of_another_project_is_evaluated_and_restores(run_command: Command, tmp_path: Path) -> None:
    source = published_file(tmp_path)
    evaluated = run_command("task=evaluate", "model=spandrel", f"checkpoint={source}", *SCENES, *EVALUATION)
    assert evaluated.code == 0, evaluated.err
    require_true_labels(tmp_path / "outputs/evaluate", evaluated.out, source, "ESRGAN")
    assert "PSNR" in evaluated.out
    (row,) = (tmp_path / "outputs/evaluate").glob("spandrel-*/*")
    scene = next((row / "panels").rglob("*.png"), None) or next(row.rglob("*.png"))
    restored = run_command(
        "task=restore", "model=spandrel", f"checkpoint={source}", f"input={scene}", "output=out.tif", "task.preview=false"
    )
    assert restored.code == 0, restored.err
    assert (tmp_path / "out.tif").exists()


def test_a_network_that_is_not_trained_or_of_another_scale_says_so(run_command: Command, tmp_path: Path) -> None:
    source = published_file(tmp_path)
    trained = run_command("model=spandrel", f"checkpoint={source}", *SCENES, *SHORT)
    assert trained.code == 2
    assert "model=spandrel is not trained; add task=evaluate" in trained.err
    other = run_command("task=evaluate", "model=spandrel", f"checkpoint={source}", "scale=2", *SCENES, *EVALUATION)
    assert other.code != 0
    assert "set scale=4" in other.err
