"""The matrix of what goes with what: answers in one sentence, README's table made of them, and every allowed pair does what it promises.

`make matrix` (slow) lets every allowed (model kind, data set kind, degradation) take one training step and restore an image with its tiny
variant, and every tiny model restore with every sampler; the ordinary tests take a sample of both.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose
from PIL import Image

from rsdiff.config import ConfigError
from rsdiff.data import (
    CnamCdDataset,
    FolderDataset,
    HyperspectralDataset,
    LayoutDataset,
    PackedDataset,
    PairedDataset,
    SecondDataset,
    SyntheticDataset,
)
from rsdiff.data.packing import pack
from rsdiff.data.sample import collate
from rsdiff.data.views import SampleKey, TestSamples, TrainingSamples
from rsdiff.degradations import degrade
from rsdiff.degradations.grid import GridConfig
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import restore_images
from rsdiff.methods.base import Method, Problem
from rsdiff.tasks.command_line import CONFIG_NAME, check_command, composing, fields_given, options_of
from rsdiff.tasks.experiment import build_method, draw_of
from rsdiff.tasks.groups import register_schemas
from rsdiff.tasks.matrix import Combination, Shipped, bands_of, feature_table, refusal_of, shipped, with_features
from rsdiff.tasks.options import EvaluateTask, RunOptions, TrainTask
from rsdiff.tasks.settings import RunSettings, group_config
from tests.conftest import REPOSITORY
from tests.unit.test_refdiff_data import stand_in

pytestmark = pytest.mark.xdist_group("matrix")  # the options are composed once

CONF = REPOSITORY / "conf"
SIDE, BANDS = 64, 48
WAVELENGTHS = tuple(400.0 + 600.0 * band / (BANDS - 1) for band in range(BANDS))


@cache
def options() -> Shipped:
    """The shipped options; they take most of the time of these tests and are composed once."""
    register_schemas()
    return shipped(CONF)


@cache
def answers() -> Sequence[Combination]:
    """All combinations with their answers; a minute's work."""
    return list(options().combinations())


def test_readme_holds_the_table_of_this_version() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert text == with_features(text, feature_table(options(), answers())), "the table of features is stale; run `make feature-table`"


def test_every_combination_runs_or_is_refused_in_one_sentence() -> None:
    sentences: dict[str, str] = {}
    allowed = total = 0
    for combination in answers():
        total += 1
        if combination.refusal is None:
            allowed += 1
        else:
            sentences.setdefault(combination.refusal, combination.model)
    assert 0 < allowed < total
    for sentence in sentences:
        assert sentence.endswith("."), sentence
        assert "\n" not in sentence, sentence
        assert len(sentence) < 600, sentence


def test_the_command_line_gives_the_matrix_s_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSDIFF_REPOSITORY", str(REPOSITORY))
    chooser = random.Random(0)
    ready_to_use = {name for name, data in options().datasets.items() if getattr(data, "root", None) != "given"}
    everything = [c for c in answers() if c.dataset in ready_to_use and c.scale in (1.0, 4.0)]
    for answer, count in ((True, 3), (False, 3)):
        for chosen in chooser.sample([c for c in everything if (c.refusal is None) == answer], count):
            sampler = chooser.choice(options_of(CONF / "sampler"))
            typed = [f"{group}={getattr(chosen, group)}" for group in ("model", "dataset", "degradation")]
            typed += [f"sampler={sampler}", f"scale={chosen.scale:g}"]
            typed += ["task=evaluate"] if options().models[chosen.model].is_ready else []
            try:
                check_command(CONF, typed, multirun=False)
                refused = False
            except ConfigError as refusal:
                # A later stage asks for its first one only where nothing else speaks against the run.
                refused = "starts from a trained" not in str(refusal)
            bands_are_known = hasattr(options().datasets[chosen.dataset], "bands")
            assert refused == (not answer) or (not bands_are_known and not refused), typed


@dataclass(frozen=True)
class Pair:
    """A tiny model, a kind of data and a degradation that go together at a scale."""

    model: str
    data: str
    degradation: str
    scale: float

    def __str__(self) -> str:
        return f"{self.model}-{self.data}-{self.degradation}-x{self.scale:g}"


def picture(path: Path, side: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    low = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3)).astype(np.uint8)
    Image.fromarray(low).resize((side, side), Image.Resampling.BICUBIC).save(path)


@cache
def data_kinds() -> dict[str, Any]:
    """A small data set of every kind, on disk where it has files."""
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="rsdiff_matrix_"))
    for index in range(4):
        picture(root / "folder" / f"{index}.png", SIDE, index)
        picture(root / "layout" / ("train" if index < 3 else "test") / f"{index}.png", SIDE, index)
        picture(root / "paired" / "HR" / f"{index}.png", SIDE, index)
        picture(root / "paired" / "LR" / f"{index}.png", SIDE // 4, index)
    cube = np.random.default_rng(0).integers(1, 4000, (BANDS, SIDE, 2 * SIDE)).astype(np.uint16)
    (root / "cubes").mkdir()
    np.save(root / "cubes" / "scene.npy", cube)
    stand_in(root / "refsr")
    scenes = SyntheticDataset(size=SIDE, train_images=3, test_images=1, second_date=False)
    splits = {split: scenes.build(split, 1.0) for split in ("train", "test")}  # type: ignore[arg-type]
    pack(splits, root / "packed.h5", "stop", 1.0, lambda done, total: None)  # type: ignore[arg-type]
    refsr = str(root / "refsr" / "RefSR_dataset")
    return {
        "synthetic": SyntheticDataset(size=SIDE, train_images=3, test_images=1),
        "synthetic48": SyntheticDataset(size=SIDE, train_images=3, test_images=1, bands=BANDS, second_date=False),
        "folder": FolderDataset(root=str(root / "folder")),
        "layout": LayoutDataset(root=str(root / "layout"), train_folders=("train",), test_folders=("test",)),
        "paired": PairedDataset(root=str(root / "paired"), hr_folder="HR", lr_folder="LR"),
        "packed": PackedDataset(file=str(root / "packed.h5")),
        "second": SecondDataset(root=refsr),
        "second_own_lr": SecondDataset(root=refsr, lr="degradation"),
        "cnam_cd": CnamCdDataset(root=refsr),
        "hyperspectral": HyperspectralDataset(root=str(root / "cubes"), test_fraction=0.5),
    }


def degradation_for(name: str, data: Any) -> Any:
    """The degradation, told the wavelengths of many bands as the config files tell it."""
    found = options().degradations[name]
    return replace(found, wavelengths=WAVELENGTHS) if hasattr(found, "wavelengths") and known_bands(data) == BANDS else found


def known_bands(data: Any) -> int:
    return BANDS if isinstance(data, HyperspectralDataset) else bands_of(data)


def pairs() -> Iterator[Pair]:
    """Every allowed pair of a tiny model (or one that has no tiny variant and needs no weights), kind of data and degradation."""
    models = {
        name: config for name, config in options().models.items() if name.endswith("_tiny") or config.is_ready or name == "spectral_linear"
    }
    models.pop("spandrel", None)  # is whatever file it is given
    for (model, config), (kind, data) in itertools.product(sorted(models.items()), data_kinds().items()):
        for name in sorted(options().degradations):
            degradation = degradation_for(name, data)
            if isinstance(degradation, GridConfig):
                continue
            scale = 8.0 if kind in ("second", "cnam_cd") else float(type(config).usual_scale)
            groups = {"model": config, "dataset": data, "degradation": degradation}
            fields = {group: fields_given(groups, group) for group in ("dataset", "degradation")}
            task = EvaluateTask() if config.is_ready else TrainTask()
            choices = {"model": model, "dataset": kind, "degradation": name, "task": "train"}
            if refusal_of(RunSettings(RunOptions(scale=scale), task, groups, choices, {}), fields, known_bands(data)) is None:
                yield Pair(model, kind, name, scale)


@cache
def sampler_of(model: str) -> SamplerConfig:
    """The sampler that a model chooses, with few steps."""
    with composing(CONF):
        chosen = group_config(compose(CONFIG_NAME, [f"model={model}"]), "sampler")
    assert isinstance(chosen, SamplerConfig)
    return replace(chosen, steps=min(chosen.steps, 3))


def begin(method: Method, model: str, problem: Problem) -> None:
    """Give a later stage the weights of a fresh earlier one."""
    wanted = options().models[model].predecessor
    if wanted is not None:
        first = replace(options().models[f"{wanted.kind}_tiny"], **wanted.options)  # type: ignore[type-var]
        method.begin_from(build_method(first, problem, 0).state_dict())


def train_and_restore(pair: Pair, samplers: list[SamplerConfig] | None = None) -> None:
    """One optimiser step of every group, then one restored test image of the target's size in [0, 1], per sampler."""
    config, data = options().models[pair.model], data_kinds()[pair.data]
    degradation = degradation_for(pair.degradation, data).build()
    source, test = data.build("train", pair.scale), data.build("test", pair.scale)
    lr_bands = source.lr_bands if "lr" in source.gives else degradation_for(pair.degradation, data).lr_bands(source.bands)
    problem = Problem(pair.scale, source.bands, lr_bands)
    method = build_method(config, problem, seed=0)
    begin(method, pair.model, problem)
    noise = SeededNoise([(0,), (1,)])
    if not config.is_ready:
        samples = TrainingSamples(source, pair.scale, SIDE, 0, draw_of(degradation, source), views=config.views, small="pad")
        batch = degrade(collate([samples[SampleKey(0, index % len(samples), 0)] for index in range(2)]), degradation)
        method.train()
        for group, parameters in method.groups().items():
            learned = [parameter for parameter in parameters if parameter.requires_grad]
            optimiser = torch.optim.Adam(learned, lr=1e-5)
            total = method.losses(batch, group, noise).total
            assert torch.isfinite(total), (str(pair), group)
            total.backward()
            optimiser.step()
    method.eval()
    cases = TestSamples(test, pair.scale, 0, draw_of(degradation, test), size_rule=data.size_rule)
    for sampler in samplers or [sampler_of(pair.model)]:
        (restored,) = restore_images(method, [cases[0]], degradation, sampler, 0, torch.device("cpu"))
        assert restored.image.shape[-2:] == restored.batch.size
        assert restored.image.shape[1] == source.bands
        assert torch.isfinite(restored.image).all(), str(pair)
        assert 0 <= restored.image.min() <= restored.image.max() <= 1


def failures_of(chosen: list[Pair]) -> list[str]:
    """Let every pair take its step and restore; return what went wrong, all of it.

    A sentence that says what to change is no failure: some sizes (of a kernel, of a discriminator) are known when a run begins.
    """
    failed = []
    for pair in chosen:
        try:
            train_and_restore(pair)
        except Exception as error:  # whatever it is, the other pairs are tried, too
            sentence = str(error)
            if isinstance(error, ValueError) and sentence.endswith(".") and "; " in sentence and "\n" not in sentence:
                continue
            failed.append(f"{pair}: {type(error).__name__}: {error}")
    return failed


def sample_of_pairs() -> list[Pair]:
    """One pair for every tiny model, so chosen that data kinds and degradations take turns."""
    chooser = random.Random(0)
    found: dict[str, list[Pair]] = {}
    for pair in pairs():
        found.setdefault(pair.model, []).append(pair)
    return [chooser.choice(of_model) for of_model in found.values()]


def test_a_pair_of_every_model_trains_a_step_and_restores() -> None:
    chosen = sample_of_pairs()
    assert {pair.model for pair in chosen} >= {name for name in options().models if name.endswith("_tiny")}
    assert not failures_of(chosen)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_allowed_pair_trains_a_step_and_restores() -> None:
    everything = list(pairs())
    failed = failures_of(everything)
    print(f"{len(everything)} pairs of model, data set kind and degradation ran; {len(failed)} failed")
    assert not failed, "\n".join(failed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_tiny_model_restores_with_every_sampler_or_says_why_not() -> None:
    with composing(CONF):
        samplers = {name: group_config(compose(CONFIG_NAME, [f"sampler={name}"]), "sampler") for name in options_of(CONF / "sampler")}
    failed = {}
    for pair in sample_of_pairs():
        for name, sampler in samplers.items():
            try:
                train_and_restore(pair, [replace(sampler, steps=min(sampler.steps, 3))])
            except ValueError as refusal:
                if not str(refusal).endswith("."):
                    failed[f"{pair} {name}"] = str(refusal)
    assert not failed, failed
