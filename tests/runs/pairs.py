"""Every pair of a tiny model and a kind of data under a degradation, and what it must be able to do: a training step, a restoration."""

from __future__ import annotations

import itertools
import signal
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from hydra import compose
from PIL import Image

from documentation.matrix import Shipped, bands_of, refusal_of, shipped
from rsdiff.app.command_line import CONFIG_NAME, composing
from rsdiff.app.composition import group_config
from rsdiff.app.diagnosis import options_of
from rsdiff.app.schemas import register_schemas
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
from rsdiff.data.sample import Batch, Sample, collate
from rsdiff.data.views import SampleKey, TestSamples, TrainingSamples
from rsdiff.degradations import Degradation, degrade
from rsdiff.degradations.grid import GridConfig
from rsdiff.degradations.test_sets import draw_of
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import restore_images
from rsdiff.methods.base import Method, MethodConfig, Problem
from rsdiff.runs.compatibility import fields_given
from rsdiff.runs.options import RunOptions
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import EvaluateTask, TrainTask
from rsdiff.training.built import build_method
from tests.conftest import REPOSITORY
from tests.unit.test_refdiff_data import stand_in

CONF = REPOSITORY / "conf"
SIDES, BANDS = (32, 64), 48
"""Pixels of images and training crops: the larger ones where a model says that the smaller are too small, and bands of cubes."""
WAVELENGTHS = tuple(400.0 + 600.0 * band / (BANDS - 1) for band in range(BANDS))
SCALES = {"second": 8.0, "cnam_cd": 8.0, "paired": 4.0, "paired_same_size": 1.0}
"""Scales of the kinds of data that bring their LR; others are degraded to the model's usual scale."""
LONGEST = 120.0
"""Seconds that a pair may take; it takes one."""
SHIPPED = frozenset(options_of(CONF / "model"))
SMALL = {name for name in SHIPPED if name.endswith("_quick")} | {
    name for name in SHIPPED if name.endswith("_tiny") and name.replace("_tiny", "_quick") not in SHIPPED
}
MODELS = sorted(SMALL | {"bicubic", "spectral_linear"})
"""A small variant of each: the quick one, where there is one, and those that need neither a small variant nor a file of weights."""


@cache
def options() -> Shipped:
    """The shipped options; they take most of the time of these tests and are composed once."""
    register_schemas()
    return shipped(CONF)


@dataclass(frozen=True)
class Pair:
    """A tiny model, a kind of data and a degradation that go together at a scale."""

    model: str
    data: str
    degradation: str
    scale: float

    def __str__(self) -> str:
        return f"{self.model}-{self.data}-{self.degradation}-x{self.scale:g}"


@dataclass(frozen=True)
class Outcome:
    """What became of a pair; `said` is the refusal or the error."""

    state: Literal["ran", "refused", "failed"]
    said: str = ""


def picture(path: Path, side: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    low = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3)).astype(np.uint8)
    Image.fromarray(low).resize((side, side), Image.Resampling.BICUBIC).save(path)


@cache
def data_kinds(side: int = SIDES[0]) -> dict[str, Any]:
    """A small data set of every kind, on disk where it has files."""
    root = Path(tempfile.mkdtemp(prefix="rsdiff_matrix_"))
    for index in range(4):
        picture(root / "folder" / f"{index}.png", side, index)
        picture(root / "layout" / ("train" if index < 3 else "test") / f"{index}.png", side, index)
        picture(root / "paired" / "HR" / f"{index}.png", side, index)
        picture(root / "paired" / "LR" / f"{index}.png", side // 4, index)
        picture(root / "paired" / "same" / f"{index}.png", side, index)
    cube = np.random.default_rng(0).integers(1, 4000, (BANDS, side, 2 * side)).astype(np.uint16)
    (root / "cubes").mkdir()
    np.save(root / "cubes" / "scene.npy", cube)
    stand_in(root / "refsr")
    scenes = SyntheticDataset(size=side, train_images=3, test_images=1, second_date=False)
    splits = {split: scenes.build(split, 1.0) for split in ("train", "test")}
    pack(splits, root / "packed.h5", "stop", 1.0, lambda done, total: None)  # type: ignore[arg-type]
    refsr = str(root / "refsr" / "RefSR_dataset")
    return {
        "synthetic": SyntheticDataset(size=side, train_images=3, test_images=1),
        "synthetic48": SyntheticDataset(size=side, train_images=3, test_images=1, bands=BANDS, second_date=False),
        "folder": FolderDataset(root=str(root / "folder")),
        "layout": LayoutDataset(root=str(root / "layout"), train_folders=("train",), test_folders=("test",)),
        "paired": PairedDataset(root=str(root / "paired"), hr_folder="HR", lr_folder="LR"),
        "paired_same_size": PairedDataset(root=str(root / "paired"), hr_folder="HR", lr_folder="same"),
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


def pairs(models: Sequence[str]) -> Iterator[Pair]:
    """Yield every allowed pair of these models, a kind of data and a degradation."""
    for model, (kind, data) in itertools.product(models, data_kinds().items()):
        config = options().models[model]
        for name in sorted(options().degradations):
            degradation = degradation_for(name, data)
            if isinstance(degradation, GridConfig):
                continue
            scale = SCALES.get(kind, float(type(config).usual_scale))
            groups = {"model": config, "dataset": data, "degradation": degradation}
            fields = {group: fields_given(groups, group) for group in ("dataset", "degradation")}
            task = EvaluateTask() if config.is_ready else TrainTask()
            choices = {"model": model, "dataset": kind, "degradation": name, "task": "train"}
            if refusal_of(RunSettings(RunOptions(scale=scale), task, groups, choices, {}), fields, known_bands(data)) is None:
                yield Pair(model, kind, name, scale)


def shortened(setting: str, most: int) -> SamplerConfig:
    """The sampler that a command with a setting chooses, with `most` steps at most."""
    with composing(CONF):
        chosen = group_config(compose(CONFIG_NAME, [setting]), "sampler")
    assert isinstance(chosen, SamplerConfig)
    return replace(chosen, steps=min(chosen.steps, most))


@cache
def sampler_of(model: str) -> SamplerConfig:
    """The sampler that a model chooses, with few steps."""
    return shortened(f"model={model}", 3)


@cache
def samplers(most: int) -> dict[str, SamplerConfig]:
    """Every shipped sampler by name, with `most` steps at most: with 3, each of its branches is taken."""
    options()
    return {name: shortened(f"sampler={name}", most) for name in options_of(CONF / "sampler")}


@dataclass(frozen=True)
class Material:
    """Data under a degradation, the same for every model.

    batch  of two training images, None where nothing is trained
    """

    problem: Problem
    degradation: Degradation
    batch: Batch | None
    case: Sample


@cache
def material(kind: str, degradation: str, scale: float, views: int, side: int) -> Material:
    """Return the material of a pair; `views` is 0 for a model that is not trained."""
    data = data_kinds(side)[kind]
    chosen = degradation_for(degradation, data)
    source, test, built = data.build("train", scale), data.build("test", scale), chosen.build()
    lr_bands = source.lr_bands if "lr" in source.gives else chosen.lr_bands(source.bands)
    batch = None
    if views:
        samples = TrainingSamples(source, scale, side, 0, draw_of(built, source), views=views, small="pad")
        batch = degrade(collate([samples[SampleKey(0, index % len(samples), 0)] for index in range(2)]), built)
    cases = TestSamples(test, scale, 0, draw_of(built, test), size_rule=data.size_rule)
    return Material(Problem(scale, source.bands, lr_bands), built, batch, cases[0])


def without_downloads(config: MethodConfig) -> MethodConfig:
    """Return a config whose training needs no perceptual network, whose weights are a download."""
    if hasattr(config, "perceptual"):
        return replace(config, perceptual=replace(config.perceptual, weight=0.0))  # type: ignore[call-arg]
    return replace(config, perceptual_weight=0.0) if hasattr(config, "perceptual_weight") else config  # type: ignore[call-arg]


@lru_cache(maxsize=4)
def fresh(model: str, problem: Problem) -> Method:
    """Return the method with its initial weights; that of a later stage with those of a fresh earlier one. To be copied, not used."""
    config = without_downloads(options().models[model])
    method = build_method(config, problem, seed=0)
    if config.predecessor is not None:
        first = replace(
            options().models[f"{config.predecessor.kind}_{model.partition(':')[0].rpartition('_')[2]}"], **config.predecessor.options
        )  # type: ignore[type-var]
        method.begin_from(build_method(first, problem, 0).state_dict())
    return method


def train_a_step(method: Method, batch: Batch) -> None:
    """One optimiser step of every group; raises AssertionError for a loss that is not finite or reaches another group's parameters."""
    noise = SeededNoise([(0,), (1,)])
    groups = {name: list(parameters) for name, parameters in method.groups().items()}
    method.train()
    method.zero_grad()
    reached: dict[int, str] = {}
    stage = method.stages()[-1]
    assert set(stage.groups) == set(groups)
    for part in method.passes(stage):
        for group, losses in method.losses(batch, part, noise).items():
            assert torch.isfinite(losses.total), group
            losses.total.backward()
            found = {id(p): group for p in method.parameters() if p.grad is not None and id(p) not in reached}
            assert set(found) <= {id(parameter) for parameter in groups[group]}, f"the loss of {group} reaches others"
            assert found, f"the loss of {group} reaches nothing"
            reached |= found
        for group in part.groups:
            torch.optim.Adam([parameter for parameter in groups[group] if parameter.requires_grad], lr=1e-5).step()


def restore_an_image(method: Method, given: Material, sampler: SamplerConfig) -> None:
    """Raises AssertionError unless the restored test image has the target's size and finite values in [0, 1]."""
    method.eval()
    (restored,) = restore_images(method, [given.case], given.degradation, sampler, 0, torch.device("cpu"))
    assert restored.image.shape[-2:] == restored.batch.size
    assert restored.image.shape[1] == given.problem.bands
    assert torch.isfinite(restored.image).all()
    assert 0 <= restored.image.min() <= restored.image.max() <= 1


def material_of(pair: Pair, side: int) -> Material:
    """Return the material of a pair."""
    config = options().models[pair.model]
    return material(pair.data, pair.degradation, pair.scale, 0 if config.is_ready else config.views, side)


@lru_cache(maxsize=1)
def trained(pair: Pair, side: int) -> Method:
    """Return the method after a training step, which some need to know the range of what they sample."""
    given = material_of(pair, side)
    method = deepcopy(fresh(pair.model, given.problem))
    if given.batch is not None:
        train_a_step(method, given.batch)
    return method


def run_pair(pair: Pair, side: int, sampler: SamplerConfig | None) -> None:
    """A training step and a restoration with the model's own sampler or another one."""
    config, given, method = options().models[pair.model], material_of(pair, side), trained(pair, side)
    if sampler is None:
        sampler = sampler_of(pair.model)
        if sampler.start.startswith("image") and not config.starts_at_image(given.problem):
            sampler = replace(sampler, start="edm")  # the command line refuses the other
    restore_an_image(method, given, sampler)


def outcome_of(pair: Pair, sampler: SamplerConfig | None = None) -> Outcome:
    """Do what `run_pair` does and say what became of it; a pair that hangs is interrupted.

    A sentence that says what to change is no failure: what is too small for a network is known when a run begins. Larger images are tried.
    """

    def interrupt(number: int, frame: object) -> None:
        raise TimeoutError(f"it took more than {LONGEST:g} s")

    outcome = Outcome("ran")
    for side in SIDES:
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, LONGEST)
        try:
            run_pair(pair, side, sampler)
        except Exception as error:  # whatever it is, the other pairs are tried, too
            said = str(error)
            if not (isinstance(error, ValueError) and said.endswith(".") and "; " in said and "\n" not in said):
                return Outcome("failed", f"{type(error).__name__}: {said}")
            outcome = Outcome("refused", said)
        else:
            return Outcome("ran")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    return outcome
