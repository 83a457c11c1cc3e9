"""Scenes as users have them, written by the tests, and bicubic enlargement of them by a factor of 2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from rsdiff.degradations.resizing import resize
from rsdiff.inference.scene_job import SceneJob
from rsdiff.methods.base import Problem
from rsdiff.methods.bicubic import Bicubic, BicubicMethodConfig
from tests.scene_methods import job

SCALE = 2


def smooth(bands: int, height: int, width: int, low: float, high: float, seed: int = 0) -> NDArray[np.float64]:
    """Return structure and noise (bands, height, width) from `low` to `high`."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    noise = 0.3 * generator.standard_normal((bands, height, width))
    image = noise + np.stack([np.sin(columns / (5 + band) + band) + np.cos(rows / (7 + band)) for band in range(bands)])
    return low + (image - image.min()) / (image.max() - image.min()) * (high - low)


def bicubic_job(folder: Path, source: Path, bands: int, name: str = "out.tif", **options: Any) -> SceneJob:
    """Return a job that enlarges by bicubic, in one tile."""
    work = job(folder, source, Bicubic(BicubicMethodConfig()), bands, name, **{"tile": 128, "scaling": "trained", **options})
    return replace(work, problem=Problem(SCALE, bands, bands), scale=SCALE, trained=None)


def interpolated(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return values (C, h, w) enlarged by bicubic in real numbers, in units of their own range so that float32 serves."""
    low, high = float(values.min()), float(values.max())
    unit = (values.astype(np.float64) - low) / (high - low)
    size = (values.shape[1] * SCALE, values.shape[2] * SCALE)
    image = resize(torch.from_numpy(unit.astype(np.float32))[None], size, "matlab")[0]
    return image.double().numpy() * (high - low) + low


def enlarged_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask (C, h, w) at the size of the target."""
    return mask.repeat(SCALE, axis=-2).repeat(SCALE, axis=-1)


def masks(path: Path, bands: int) -> NDArray[np.bool_]:
    """Return what GDAL says of the validity of the first bands."""
    with rasterio.open(path) as file:
        valid: NDArray[np.bool_] = file.read_masks(list(range(1, bands + 1))) > 0
        values = file.read(list(range(1, bands + 1)))
    return valid & np.isfinite(values)
