"""Every option of data sets and metrics, set to another legal value, changes what a run sees or scores, or is no part of what it is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsdiff.config import ConfigError
from rsdiff.config.reading import require_effect
from rsdiff.data import FolderDataset, HyperspectralDataset, LayoutDataset, PairedDataset, SyntheticDataset
from rsdiff.data.normalisation import NormaliserConfig
from rsdiff.data.sample import Sample
from rsdiff.data.views import SampleKey, TestSamples, TrainingSamples
from rsdiff.degradations import GaussianDegradationConfig, PairedConfig
from rsdiff.degradations.test_sets import draw_of
from rsdiff.metrics import MetricsConfig, ProtocolConfig
from rsdiff.runs.content import digest_of_images
from tests.effects import require_effects
from tests.unit.test_evaluator import degraded, restored, scenes

SCALE, PATCH = 4.0, 24
OWN = NormaliserConfig(rule="fixed", low=(11.0,), high=(197.0,))


def seen(data: Any) -> list[str]:
    """Return the names and a digest of all samples that a run trains and tests on."""
    found = []
    train, test = (data.build(split, SCALE) for split in ("train", "test"))
    degradation = (PairedConfig() if "lr" in train.gives else GaussianDegradationConfig(noise=5.0)).build()
    samples = TrainingSamples(train, SCALE, PATCH, 0, draw_of(degradation, train), small=data.small)
    cases = TestSamples(test, SCALE, 0, draw_of(degradation, test), size_rule=data.size_rule)
    for sample in [*(samples[SampleKey(0, index, 0)] for index in range(len(samples))), *(cases[index] for index in range(len(cases)))]:
        found.append(f"{sample.meta.name} {sample.meta.wavelengths} {digest(sample)}")
    return found


def digest(sample: Sample) -> str:
    tensors = [value for value in vars(sample).values() if isinstance(value, torch.Tensor)]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() + str(tuple(tensor.shape)).encode() for tensor in tensors)).hexdigest()


def picture(path: Path, seed: int, sides: tuple[int, int], grey: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = sides if grey else (*sides, 3)
    Image.fromarray(np.random.default_rng(seed).integers(10, 200, shape).astype(np.uint8)).save(path)


def folder(root: Path) -> Any:
    """Grey images of which one is smaller than the crop and none has sides that the scale divides."""
    for number in range(9):
        picture(root / ("one" if number % 2 else "other") / f"{'test' if number < 2 else 'scene'}{number}.png", number, (33, 34))
    for number in range(3):
        picture(root / "one" / f"small{number}.png", 20 + number, (13, 13))
    picture(root / "one" / "more.bmp", 30, (33, 34))
    (root / "names.txt").write_text("scene3")
    return FolderDataset(root=str(root), small="pad", split="fraction", test_fraction=0.3, extensions=("png",), normaliser=OWN)


def layout(root: Path) -> Any:
    for number in range(6):
        picture(root / ("a" if number < 4 else "b") / f"{number}.png", number, (66, 66))
    picture(root / "c" / "7.png", 7, (66, 66))
    picture(root / "a" / "more.bmp", 8, (66, 66))
    return LayoutDataset(
        root=str(root),
        train_folders=("a", "c"),
        test_folders=("b", "c"),
        image_folders=("d",),
        extensions=("png",),
        tile=21,
        small="pad",
        normaliser=OWN,
    )


def layout_of_one_folder(root: Path) -> Any:
    whole = layout(root)
    for number in range(6):
        picture(root / "d" / f"test{number}.png", number, (66, 66))
    picture(root / "d" / "more.bmp", 9, (66, 66))
    return replace(whole, train_folders=("x",), test_folders=("y",), image_folders=("d", "c"), split="fraction", test_fraction=0.3)


def paired(root: Path) -> Any:
    for number in range(10):
        picture(root / "HR" / f"hr_{number}.png", number, (32, 32), grey=False)
        for low in ("LR", "other"):
            picture(root / low / f"lr_{number}.png", number + len(low), (8, 8), grey=False)
        for extra in ("ref", "mask"):
            picture(root / extra / f"hr_{number}.png", number + 9, (32, 32), grey=extra == "mask")
    return PairedDataset(root=str(root), hr_prefix="hr_", lr_prefix="lr_", split="fraction", test_fraction=0.4, normaliser=OWN)


def cube(root: Path) -> Any:
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "scene.npy", np.random.default_rng(0).integers(100, 4000, (6, 40, 90)).astype(np.uint16))
    return HyperspectralDataset(root=str(root), small="pad", regions="columns", range=(0.0, 3990.0))


VALUES = {
    "extensions": [("bmp", "png")],
    "take_bands": [(1, 1)],
    "range": ["measured", (0.0, 300.0)],
    "wavelengths": [(500.0,), (500.0, 600.0, 700.0), (500.0, 600.0, 700.0, 800.0, 850.0, 900.0)],
    "variable": [],  # of files that hold several arrays
    "root": [],
    "limit": [2],
    "test_limit": [1],
    "train_list": ["names.txt"],
    "test_list": ["names.txt"],
    "test_pattern": ["scene*"],
    "low": [(5.0,)],
    "high": [(200.0,)],
    "percentiles": [(5.0, 60.0)],
    "images": [1],
    "train_folders": [("c",), ("c", "a")],
    "test_folders": [("c",), ("c", "b")],
    "image_folders": [()],
    "tile": [40],
    "train_tile": [30],
    "tiles_per_image": [1],
    "hr_folder": ["LR"],
    "lr_folder": ["other", ""],
    "ref_folder": ["ref"],
    "mask_folder": ["mask"],
    "hr_prefix": ["h"],
    "hr_suffix": [],  # recognised by itself in test_pairing
    "lr_prefix": ["l"],
    "lr_suffix": [],
    "area": [(0, 0, 40, 60)],
    "without_bands": [(2,)],
    "bad_bands": [],  # of ENVI headers
    "download": [],  # words of a message
    "bands": [1, 5],
    "size": [40],
    "seed": [1],
}
DATA = {
    "synthetic": lambda root: SyntheticDataset(size=21, train_images=2, test_images=1, small="pad"),
    "synthetic of one date": lambda root: SyntheticDataset(size=21, train_images=2, test_images=1, small="pad", second_date=False),
    "folder": folder,
    "layout": layout,
    "layout of one folder": layout_of_one_folder,
    "paired": paired,
    "cube": cube,
}


NOT_SEEN: dict[str, set[str]] = {
    "layout": {"image_folders"},  # the others are there
    "layout of one folder": {"train_folders", "test_folders"},  # which are not there
    "paired": {"small", "size_rule", "extensions", "convert"},  # all files are alike and fit
    "cube": {"small", "limit", "test_limit"},  # one scene
}
"""Options that these files do not show, although others do."""


@pytest.mark.parametrize("kind", DATA)
def test_every_option_of_data(kind: str, tmp_path: Path) -> None:
    def content(data: Any) -> list[str]:
        return [digest_of_images(data.build(split, SCALE)) for split in ("train", "test")]

    given = {**VALUES, **{option: [] for option in NOT_SEEN.get(kind, ())}}
    assert require_effects(DATA[kind](tmp_path / "data"), seen, given, "dataset", content) > 4


@pytest.mark.parametrize("rule", ["type", "fixed", "percentile", "maximum", "measured"])
def test_every_option_of_a_normaliser(rule: Any) -> None:
    images = [np.random.default_rng(seed).integers(-300, 200 * (seed + 1), (2, 8, 8)).astype(np.int16) for seed in range(5)]

    def normalised(config: NormaliserConfig) -> bytes:
        made = config.build(np.dtype(np.int16), 2, lambda count: images[:count])
        return made.normalise(np.arange(-3000, 3000, 10, dtype=np.int16).reshape(2, 15, 20)).tobytes()

    assert require_effects(NormaliserConfig(rule=rule, high=(100.0,)), normalised, VALUES) > 3


METRICS = [
    MetricsConfig(metrics=("psnr", "ssim", "lr_psnr")),
    MetricsConfig(metrics=("psnr", "ssim", "seams", "ag"), protocol=ProtocolConfig(space="y_studio", quantise="clip"), panels=0),
    MetricsConfig(metrics=("opensr_reflectance", "opensr_spectral", "opensr_synthesis", "opensr_improvement", "opensr_omission", "psnr")),
]
SCORES = {
    "metrics": [("psnr", "ag")],
    "rgb_bands": [(1, 3, 2)],
    "seam_interval": [20],
    "weight_folders": [],
    "fid_preset": [],
    "niqe_min_blocks": [],
}
"""Weights, and what is read with them, need a download."""


@pytest.mark.parametrize("base", METRICS, ids=lambda base: "-".join(base.metrics))
def test_every_option_of_metrics(base: MetricsConfig) -> None:
    batch = degraded(scenes(3, bands=4, side=64))
    images = restored(batch) + 0.3 * (torch.rand(batch.need("hr").shape, generator=torch.Generator().manual_seed(1)) - 0.5)
    images[0] = batch.need("hr")[0] if base.metrics[0] == "psnr" and len(base.metrics) == 3 else images[0]

    def scored(config: MetricsConfig) -> list[str]:
        evaluator = config.build(4, True, GaussianDegradationConfig(noise=5.0).build())
        summary = evaluator.summary(evaluator.rows(batch, images, 0.5))
        pictures = [str(config.panels), str(config.rgb_bands) if config.panels else ""]
        return [str(evaluator.rows(batch, images, 0.5)), str(summary.metrics), config.protocol.name, *pictures]

    assert require_effects(base, scored, SCORES, "metrics") > 4


@pytest.mark.parametrize(
    ("typed", "base"),
    [
        ("metrics.seam_interval", MetricsConfig()),
        ("metrics.opensr.border", MetricsConfig()),
        ("metrics.protocol.epsilon", MetricsConfig(metrics=("ssim",))),
        ("metrics.protocol.crop_for_perceptual", MetricsConfig()),
    ],
)
def test_an_option_of_a_metric_that_is_not_computed_is_refused(typed: str, base: MetricsConfig) -> None:
    with pytest.raises(ConfigError, match=rf"{typed} has no effect with metrics\.metrics=\[.*or set metrics\.metrics=\["):
        require_effect({"metrics": base}, [typed])
