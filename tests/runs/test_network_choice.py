"""Objectives on images combine with any network, on the command line alone: a GAN on HAT needs no code and no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsdiff.app.words import present_words
from rsdiff.config import config_from_mapping
from rsdiff.config.former import present_values
from rsdiff.methods.regression import RRDBMethodConfig
from rsdiff.training.checkpoints import read_card, read_checkpoint
from tests.conftest import Command
from tests.runs.test_training import SMALL

HAT = ["model.network=hat_small", "model.network.width=12", "model.network.heads=[2,2]"]
BRIEF = [*(word for word in SMALL if not word.startswith(("model", "sampler"))), "trainer.workers=0", "trainer.steps=2", "trainer.patch=16"]


def run_of(folder: Path) -> Path:
    (run,) = (path for path in (folder / "train").glob("*/*") if (path / "checkpoints").is_dir())
    return run


@pytest.mark.parametrize("word", ["model.network=hat", "network@model.network=hat"])
def test_a_choice_inside_an_option_is_also_written_as_hydra_writes_it(word: str) -> None:
    assert present_words(word) == ["network@model.network=hat"]


def test_a_gan_on_hat_starts_from_a_regression_on_hat(run_command: Command, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ended = run_command("model=rrdb", *HAT, "model.loss.sam=0.1", "model.loss.ramp.sam=[0,2]", *BRIEF, "scale=4", f"outputs={first}")
    assert ended.code == 0, ended.err
    regression = read_checkpoint(run_of(first))
    assert any("overlap_attn" in name for name in regression.best_weights)
    gan = ["model=esrgan", *HAT, "model.perceptual.weight=0", "model.discriminator=patch", "model.discriminator.width=4"]
    ended = run_command(*gan, *BRIEF, "scale=4", f"checkpoint={run_of(first)}", f"outputs={second}")
    assert ended.code == 0, ended.err
    names = {name for line in (run_of(second) / "history.jsonl").read_text().splitlines() for name in json.loads(line)}
    assert {"restorer/l1", "restorer/adversarial", "discriminator/real"} <= names


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=rrdb", "model.network=hatt"], "model.network=hatt does not exist (did you mean hat?)"),
        (["model=sr3", "model.network=hat"], "model.network is not a setting of this model"),
        (["model=rrdb", "model.network=hat", "model.network.growth=3"], "model.network.growth is not a setting"),
        (["model=esrgan", "model.discriminator=unet", "model.discriminator.size=64"], "model.discriminator.size is not a setting"),
        (["model=rrdb", "model.network=mstpp"], "set scale=1"),
        (["model=spsr", "model.network=hat"], "choose model=esrgan"),
    ],
)
def test_a_choice_that_does_not_go_is_one_sentence(run_command: Command, words: list[str], sentence: str, tmp_path: Path) -> None:
    ended = run_command(*words, *BRIEF, "scale=4", f"outputs={tmp_path}")
    assert ended.code != 0
    assert sentence in ended.err


def test_former_names_of_options_go_on_working(run_command: Command, tmp_path: Path) -> None:
    former = ["model=rrdb", "model.generator.width=8", "model.generator.blocks=1", "model.generator.growth=4"]
    ended = run_command(*former, "model.generator.starts_bicubic=true", *BRIEF, "scale=4", f"outputs={tmp_path}")
    assert ended.code == 0, ended.err
    model = read_checkpoint(run_of(tmp_path)).card["config"]["model"]
    assert model["network"] == {"kind": "rrdb", "width": 8, "blocks": 1, "growth": 4, "head": "always_x4"}
    assert model["base"] == {"kind": "enlarged"}


def test_cards_of_former_versions_are_read_by_present_names(tmp_path: Path) -> None:
    model = {"kind": "rrdb", "generator": {"width": 8}, "starts_bicubic": True}
    sampler = {"kind": "solver", "solver": "ddim", "shift_deviation": 2.0}
    (tmp_path / "card.json").write_text(json.dumps({"config": {"model": model, "sampler": sampler, "scale": 4}}))
    config = read_card(tmp_path)["config"]
    config_from_mapping(RRDBMethodConfig, {name: value for name, value in config["model"].items() if name != "kind"}, "model")
    assert config["model"]["base"] == {"kind": "enlarged"}
    assert config["sampler"] == {"kind": "solver", "solver": "ddim"}
    assert config["scale"] == 4
    former = {"autoencoder": {"decoder": {"starts_bicubic": True, "width": 32}}}
    assert present_values(former, ["autoencoder"]) == {"autoencoder": {"decoder": {"initial": "enlarged", "width": 32}}}


def test_help_shows_the_options_that_apply_and_names_the_others_with_what_they_need(run_command: Command) -> None:
    told = run_command("sampler=ddim", "model=edm_sr_tiny", "--help").out
    shown = {line.split("=")[0].strip() for line in told.splitlines()}
    assert {"sampler.eta", "model.song.dropout", "model.levels.mean"} <= shown
    assert shown.isdisjoint({"sampler.churn", "model.dhariwal.dropout", "model.song.class_labels", "model.augmentation.scale"})
    words = " ".join(told.split())
    assert (
        "sampler.* not read beside these: stride (with spacing=strided and grid=model or table); sigma_min, sigma_max (with grid=" in words
    )
    assert "churn, time_schedule, scaling (with solver=euler or heun)" in words
    assert "model.* not read beside these: dhariwal (with architecture=dhariwal)" in words
