"""Finding the run that a training starts from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsdiff.config import ConfigError
from rsdiff.config.typed import plain_values
from rsdiff.runs.predecessor import begin, locate, starting_point
from rsdiff.training.checkpoints import CheckpointError, write_checkpoint
from tests.unit.test_ldcsr import FIRST, PROBLEM, SECOND
from tests.unit.test_rrdb import GAN, PLAIN

SETTINGS: dict[str, Any] = {"dataset": {"kind": "synthetic"}, "seed": 0, "scale": 4.0, "degradation": {"kind": "bicubic"}}
CARD_PROBLEM = {"scale": 4.0, "bands": 3, "lr_bands": 3}


def write_run(
    outputs: Path, signature: str, config: Any = FIRST, state: str = "finished", kind: str = "ldcsr_vae", **settings: Any
) -> Path:
    folder = outputs / "train" / "ldcsr_vae-synthetic" / signature
    card = {"config": {**SETTINGS, **settings, "model": {"kind": kind, **plain_values(config)}}, "problem": CARD_PROBLEM}
    torch.manual_seed(1)
    write_checkpoint(folder / "checkpoints", 5, config.build(PROBLEM).state_dict(), [], card, None)
    (folder / "status.json").write_text(json.dumps({"state": state}))
    return folder


def test_the_finished_first_stage_of_the_same_options_data_and_seed_is_found(tmp_path: Path) -> None:
    wanted = write_run(tmp_path, "aaaa000000")
    write_run(tmp_path, "bbbb000000", state="interrupted")
    write_run(tmp_path, "cccc000000", seed=1)
    other = replace(FIRST.autoencoder, latent_channels=3)
    write_run(tmp_path, "dddd000000", config=replace(FIRST, autoencoder=other))
    found = starting_point(SECOND, SETTINGS, None, tmp_path)
    assert found is not None
    assert found.parents[1] == wanted


def test_the_scale_tells_runs_apart_unless_one_serves_all_and_the_degradation_always(tmp_path: Path) -> None:
    write_run(tmp_path, "aaaa000000", scale=2.0)
    assert starting_point(SECOND, SETTINGS, None, tmp_path) is not None  # LDCSR serves every scale
    write_run(tmp_path / "other", "bbbb000000", degradation={"kind": "iso"})
    with pytest.raises(ConfigError, match="train it first"):
        starting_point(SECOND, SETTINGS, None, tmp_path / "other")
    for signature, scale in (("cccc000000", 2.0), ("dddd000000", 4.0)):
        write_run(tmp_path / "gan", signature, config=PLAIN, kind="rrdb", scale=scale)
    found = starting_point(GAN, SETTINGS, None, tmp_path / "gan")
    assert found is not None
    assert found.parents[1].name == "dddd000000"


def test_none_and_several_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train it first"):
        starting_point(SECOND, SETTINGS, None, tmp_path)
    write_run(tmp_path, "aaaa000000")
    write_run(tmp_path, "bbbb000000", config=replace(FIRST, kl_weight=0.5))
    with pytest.raises(ConfigError, match="checkpoint=SIGNATURE"):
        starting_point(SECOND, SETTINGS, None, tmp_path)


def test_a_model_without_predecessor_starts_from_fresh_weights(tmp_path: Path) -> None:
    assert starting_point(FIRST, SETTINGS, None, tmp_path) is None


def test_a_signature_or_its_beginning_finds_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa000000")
    assert locate("aaaa000000", tmp_path) == folder
    assert locate("aaaa", tmp_path) == folder
    assert locate("somewhere/else", tmp_path) == Path("somewhere/else")
    write_run(tmp_path, "aaaa111111")
    with pytest.raises(ConfigError, match="more of it"):
        locate("aaaa", tmp_path)


def test_the_second_stage_takes_the_autoencoder_of_the_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa000000")
    method = SECOND.build(PROBLEM)
    checkpoint = begin(method, SECOND, "ldcsr", (3, 3), folder)
    for name, value in method.first_stage.state_dict().items():
        assert torch.equal(value, checkpoint.weights[f"autoencoder.{name}"])


def test_training_goes_on_from_weights_of_its_own_kind(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa000000")
    method = FIRST.build(PROBLEM)
    checkpoint = begin(method, FIRST, "ldcsr_vae", (3, 3), folder)
    assert all(torch.equal(value, checkpoint.weights[name]) for name, value in method.state_dict().items())


def test_a_checkpoint_of_other_options_bands_or_kind_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa000000")
    other = replace(SECOND, first_stage=replace(SECOND.first_stage, latent_channels=3))
    with pytest.raises(CheckpointError, match="another autoencoder"):
        begin(other.build(PROBLEM), other, "ldcsr", (3, 3), folder)
    with pytest.raises(CheckpointError, match="bands"):
        begin(SECOND.build(PROBLEM), SECOND, "ldcsr", (4, 4), folder)
    with pytest.raises(CheckpointError, match="can start from 'sr3'"):
        begin(FIRST.build(PROBLEM), FIRST, "sr3", (3, 3), folder)
