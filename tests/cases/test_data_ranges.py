"""Ranges of data sets: believed for 8 bits, checked for all others, and scored in their own units."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rsdiff.data.data_range import PRESETS
from rsdiff.data.folder import FolderDataset
from rsdiff.data.paired import PairedDataset
from rsdiff.data.source import DataError
from tests.cases.scene_cases import smooth
from tests.conftest import Command
from tests.scene_methods import write_raster


def folder_of(root: Path, low: float, high: float, dtype: str, count: int = 3, **profile: Any) -> str:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_raster(root / f"{number}.tif", smooth(3, 24, 24, low, high, number).astype(dtype), **profile)
    return str(root)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "fits"),
    [
        (300, 3360, "uint16", "sentinel2_harmonized"),
        (1100, 9000, "uint16", "sentinel2"),
        (200, 6000, "float32", "sentinel2_harmonized"),
        (-25, 3, "float32", None),
        (0, 4095, "uint16", "sentinel2_harmonized"),
        (7500, 30000, "float32", "landsat_c2"),
    ],
)
def test_values_that_do_not_fit_the_range_are_refused_with_ranges_that_do(
    tmp_path: Path, low: float, high: float, dtype: str, fits: str | None
) -> None:
    root = folder_of(tmp_path, low, high, dtype)
    with pytest.raises(DataError, match=r"say what is 0 and what is 1: .*dataset\.range=measured") as refusal:
        FolderDataset(root=root, split="all").build("train", 1.0).read(0)
    offered = re.findall(r"dataset\.range=(\w+)", str(refusal.value))
    assert fits is None or fits in offered
    for name in offered:
        if name != "type":
            assert FolderDataset(root=root, split="all", range=name).build("train", 1.0).read(0).hr is not None


@pytest.mark.parametrize("name", PRESETS)
def test_presets_map_counts_to_reflectance(tmp_path: Path, name: str) -> None:
    low, high = PRESETS[name]
    root = folder_of(tmp_path, low, high, "uint16")
    found = FolderDataset(root=root, split="all", range=name).build("train", 1.0)  # type: ignore[arg-type]
    hr = found.read(0).hr
    assert hr is not None
    gain, offset = {"sentinel2": (1e-4, -0.1), "sentinel2_harmonized": (1e-4, 0.0), "landsat_c2": (2.75e-5, -0.2)}[name]
    stored = smooth(3, 24, 24, low, high, 0).astype("uint16").astype(np.float64)
    np.testing.assert_allclose(hr.numpy(), np.clip(stored * gain + offset, 0, 1), atol=1e-5)


def test_signed_values_are_measured_on_the_training_images(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", -400, 2660, "int16", nodata=-9999)
    folder_of(tmp_path / "test", -300, 2000, "int16", nodata=-9999)
    source = FolderDataset(root=str(tmp_path)).build("test", 1.0)
    assert (source.normaliser.low, source.normaliser.high) == ((-400.0,), (2660.0,))


def test_a_few_values_outside_are_told(tmp_path: Path) -> None:
    values = smooth(3, 24, 24, 300, 9000).astype(np.uint16)
    values[:, 3:6, 3:6] = 14000
    write_raster(tmp_path / "a.tif", values)
    source = FolderDataset(root=str(tmp_path), split="all", range="sentinel2_harmonized").build("train", 1.0)
    assert source.remarks() == ["hr: 27 of 1728 values (1.6 %) lie outside 0 to 10000 and are limited to it (seen in 1 images)"]


def test_sixteen_bits_are_scored_unrounded_and_the_peak_is_told(run_command: Command, tmp_path: Path) -> None:
    folder_of(tmp_path / "s2", 300, 3360, "uint16")
    command = (
        "task=evaluate",
        "model=bicubic",
        "scale=2",
        "metrics.panels=0",
        "metrics.metrics=[psnr]",
        "dataset=folder",
        "dataset.root=s2",
    )
    assert "dataset.range=sentinel2_harmonized" in run_command(*command).err
    ended = run_command(*command, "dataset.range=sentinel2_harmonized")
    assert ended.code == 0, ended.err
    assert "scored not rounded with peak 255 (stored value 10000)" in ended.out
    assert "float clipped to 0..255" in next((tmp_path / "outputs").rglob("results.md")).read_text()


def test_pairs_whose_types_differ_are_brought_to_one_range(tmp_path: Path) -> None:
    for number in range(2):
        image = smooth(3, 24, 24, 0, 255, number).astype(np.uint8)
        for folder in ("HR", "LR"):
            (tmp_path / folder).mkdir(exist_ok=True)
        write_raster(tmp_path / "HR" / f"{number}.tif", image.astype(np.uint16) * 40)
        Image.fromarray(image.transpose(1, 2, 0)).resize((12, 12), Image.Resampling.BOX).save(tmp_path / "LR" / f"{number}.png")
    with pytest.raises(DataError, match=r"say what is 0 and what is 1"):
        PairedDataset(root=str(tmp_path), split="all").build("test", 2.0)
    sample = PairedDataset(root=str(tmp_path), split="all", range=(0.0, 10200.0)).build("test", 2.0).read(0)
    assert sample.hr is not None
    assert sample.lr is not None
    assert abs(float(sample.hr.mean()) / float(sample.lr.mean()) - 1) < 0.05
