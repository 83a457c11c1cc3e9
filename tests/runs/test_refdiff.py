"""Ref-Diff as a user runs it: on the published layout, on generated scenes, on real pairs of two dates, from released weights."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsdiff.data.synthetic import SyntheticDataset
from rsdiff.data.views import TestSamples
from rsdiff.degradations import BicubicConfig
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import restore_images
from rsdiff.metrics.baseline import bicubic
from rsdiff.metrics.psnr import psnr
from rsdiff.training.built import method_from
from rsdiff.training.checkpoints import read_checkpoint
from tests.conftest import Command
from tests.scene_methods import pixels
from tests.unit.test_refdiff_data import stand_in

SMALL = [
    "model.network.trunk.model_channels=8",
    "model.network.modulation_width=4",
    "sampler.steps=2",
    "trainer=quick",
    "trainer.steps=2",
    "trainer.batch=2",
    "trainer.patch=32",
    "trainer.validate_every_steps=2",
    "trainer.validation_images=1",
    "trainer.workers=0",
    "metrics.metrics=[psnr]",
]


@pytest.mark.parametrize(("dataset", "scale"), [("second", 8), ("cnam_cd", 16)])
def test_the_published_layout_trains_and_evaluates(run_command: Command, tmp_path: Path, dataset: str, scale: int):
    data = stand_in(tmp_path / "data")
    ended = run_command("model=refdiff_quick", f"dataset={dataset}", f"dataset.root={data}", f"scale={scale}", *SMALL)
    assert ended.code == 0, ended.err
    assert "PSNR" in ended.out


def test_unchanged_ground_is_scored_apart(run_command: Command, tmp_path: Path):
    data = stand_in(tmp_path / "data")
    trained = run_command("model=refdiff_quick", "dataset=second", f"dataset.root={data}", "scale=8", *SMALL)
    assert trained.code == 0, trained.err
    (checkpoint,) = (tmp_path / "outputs/train").glob("*/*")
    scores = {}
    for region in ("all", "unchanged", "changed"):
        outputs = tmp_path / region
        ended = run_command(
            "task=evaluate",
            f"checkpoint={checkpoint}",
            f"dataset.region={region}",
            f"outputs={outputs}",
            "dataset=second",
            f"dataset.root={data}",
        )
        assert ended.code == 0, ended.err
        (records,) = outputs.glob("evaluate/*/*/evaluation/records.csv")
        scores[region] = records.read_text()
    assert len(set(scores.values())) == 3


def test_data_without_reference_are_refused_with_those_that_have_one(run_command: Command):
    ended = run_command("model=refdiff_quick", "dataset=folder", "dataset.root=.")
    assert ended.code != 0
    assert "for ref choose dataset=bitemporal, cnam_cd, second or synthetic" in ended.err


@pytest.mark.parametrize("mask", ["given", "checked", "unchanged", "changed", "estimated"])
def test_real_pairs_of_two_dates_are_restored_and_evaluated(run_command: Command, tmp_path: Path, mask: str):
    images = Path(os.environ.get("RSDIFF_DATA", "")) / "levir_pairs"
    if not os.environ.get("RSDIFF_DATA") or not images.is_dir():
        pytest.skip("RSDIFF_DATA does not name a folder with levir_pairs")
    pairs = [
        "model=refdiff_quick",
        "dataset=bitemporal",
        f"dataset.root={images}",
        "dataset.split=pattern",
        "dataset.test_limit=2",
        "scale=8",
    ]
    trained = run_command(*pairs, *SMALL, f"model.mask={mask}")
    assert trained.code == 0, trained.err
    (checkpoint,) = (tmp_path / "outputs/train").glob("*/*")
    ended = run_command("task=evaluate", f"checkpoint={checkpoint}", f"outputs={tmp_path}/again")
    assert ended.code == 0, ended.err
    assert "PSNR" in ended.out


def test_a_checkpoint_may_be_evaluated_under_another_mask(run_command: Command, tmp_path: Path):
    trained = run_command(
        "model=refdiff_quick", "dataset=synthetic", "dataset.size=32", "dataset.train_images=3", "dataset.test_images=1", "scale=8", *SMALL
    )
    assert trained.code == 0, trained.err
    (checkpoint,) = (tmp_path / "outputs/train").glob("*/*")
    scores = set()
    for mask in ("given", "unchanged", "changed"):
        outputs = tmp_path / mask
        ended = run_command("task=evaluate", f"checkpoint={checkpoint}", "model=refdiff_quick", f"model.mask={mask}", f"outputs={outputs}")
        assert ended.code == 0, ended.err
        (records,) = outputs.glob("evaluate/*/*/evaluation/records.csv")
        scores.add(records.read_text())
    assert len(scores) == 3


def test_a_scene_without_a_mask_is_restored_by_the_rule_one_chooses(run_command: Command, tmp_path: Path):
    trained = run_command("model=refdiff_quick", "dataset.size=32", "dataset.train_images=3", "dataset.test_images=1", "scale=8", *SMALL)
    assert trained.code == 0, trained.err
    (checkpoint,) = (tmp_path / "outputs/train").glob("*/*")
    generator = np.random.default_rng(0)
    for name, side in (("lr", 8), ("ref", 64)):
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(tmp_path / "mask.png")
    words = ["task=restore", f"checkpoint={checkpoint}", f"input={tmp_path}/lr.png", f"task.reference={tmp_path}/ref.png"]
    refused = run_command(*words, "output=refused.tif")
    assert refused.code != 0
    assert "task.change_mask" in refused.err
    images = {}
    for rule in ("unchanged", "changed", "estimated"):
        ended = run_command(*words, f"output={rule}.tif", "model=refdiff_quick", f"model.mask={rule}")
        assert ended.code == 0, ended.err
        images[rule] = pixels(Path(f"{rule}.tif"))
    ended = run_command(*words, f"task.change_mask={tmp_path}/mask.png", "output=given.tif")
    assert ended.code == 0, ended.err
    assert not np.array_equal(images["unchanged"], images["changed"])
    assert np.array_equal(images["changed"], images["estimated"])  # noise against noise
    assert np.array_equal(pixels(Path("given.tif")), images["changed"])  # code 255 is changed in all of it


def test_released_weights_are_imported_and_evaluated(run_command: Command, tmp_path: Path):
    source = Path(__file__).parents[1] / "goldens/cases/refdiff/tiny-network-snapshot.pkl"
    refused = run_command("task=import", "model=refdiff", f"source={source}", "scale=8", f"output={tmp_path}/imported")
    assert refused.code != 0
    advice = re.search(r"add (model\..*)\.$", refused.err.strip())
    assert advice is not None, refused.err
    ended = run_command("task=import", "model=refdiff", f"source={source}", "scale=8", f"output={tmp_path}/imported", *advice[1].split())
    assert ended.code == 0, ended.err
    scored = run_command(
        "task=evaluate",
        f"checkpoint={tmp_path}/imported",
        "dataset=synthetic",
        "dataset.size=32",
        "dataset.test_images=1",
        "sampler.steps=2",
    )
    assert scored.code == 0, scored.err


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_short_training_uses_its_reference(run_command: Command, tmp_path: Path):
    """On unchanged ground: right reference better than a wrong one, and that better than bicubic. Measured: 29.1, 23.0 and 22.7 dB."""
    ended = run_command("experiments=refdiff/synthetic_x8", "trainer.workers=1")
    assert ended.code == 0, ended.err
    (checkpoint,) = (tmp_path / "outputs/train").glob("*/*")
    found = scores_on_unchanged_ground(checkpoint)
    print(json.dumps(found))
    assert found["right"] > found["wrong"] > found["bicubic"]


def scores_on_unchanged_ground(checkpoint: Path, images: int = 8) -> dict[str, float]:
    """Return mean PSNR in dB with the right reference, with that of the next scene, and of bicubic, where nothing changed."""
    read = read_checkpoint(checkpoint)
    method = method_from(read, 8).method
    degradation = BicubicConfig().build()
    source = SyntheticDataset(size=128, test_images=images).build("test", 8)
    samples = TestSamples(source, 8, 0, degradation.draw)
    right = [samples[index] for index in range(images)]
    wrong = [replace(sample, ref=right[(index + 1) % images].ref) for index, sample in enumerate(right)]
    sampler = SamplerConfig(**options_of(read.card["config"]["sampler"]))
    scores: dict[str, list[float]] = {"right": [], "wrong": [], "bicubic": []}
    for name, chosen in (("right", right), ("wrong", wrong)):
        for restored in restore_images(method, chosen, degradation, sampler, 0, torch.device("cpu")):
            batch = restored.batch
            hr, unchanged = 255 * batch.need("hr")[0], batch.need("change_mask")[0] == 0
            scores[name].append(psnr((255 * restored.image[0]).round(), hr, valid=unchanged))
            if name == "right":
                enlarged = 255 * bicubic(batch.need("lr")[0], batch.size).clamp(0, 1)
                scores["bicubic"].append(psnr(enlarged.round(), hr, valid=unchanged))
    return {name: sum(values) / len(values) for name, values in scores.items()}


def options_of(sampler: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in sampler.items() if key != "kind"}
