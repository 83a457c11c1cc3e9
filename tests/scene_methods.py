"""Two methods for tests of scenes: three convolutions, and a small SR3 with random weights. Both see well beyond their own pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin
from torch import Tensor, nn

from rsdiff.data.normalisation import Normaliser
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.scene_job import Alone, SceneJob, SceneResult
from rsdiff.inference.scene_options import SceneOptions
from rsdiff.inference.scenes import restore_scene
from rsdiff.methods.base import Method, Problem
from rsdiff.methods.sr3 import SR3Config

SCALE = 4


class Convolutions(Method):
    """A regression: nearest enlargement and what three convolutions add. Counts the images it restores; fails above `limit` pixels."""

    def __init__(self, bands: int, limit: int = 10**9) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(bands, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, bands * SCALE**2, 3, padding=1))
        self.limit = limit
        self.restored = 0

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        lr = batch.need("lr")
        if lr.shape[-1] * lr.shape[-2] > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.restored += len(lr)
        return F.interpolate(lr, scale_factor=SCALE) + 0.2 * F.pixel_shuffle(self.layers(lr), SCALE)


def regression(bands: int = 3, limit: int = 10**9) -> Convolutions:
    """Return the regression with fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Convolutions(bands, limit).eval()


def diffusion(bands: int = 3) -> Method:
    """Return a small SR3 with fixed random weights."""
    config = SR3Config(width=8, multipliers=(1, 2, 2, 2), blocks=1, norm_groups=4, dropout=0.0, nominal_size=16, attention_sizes=())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return config.build(Problem(SCALE, bands, bands)).eval()


def write_raster(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    """Write values (C, h, w) as a GeoTIFF in UTM."""
    placed = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), **profile}
    settings = {
        "driver": "GTiff",
        "count": len(values),
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        **placed,
    }
    with rasterio.open(path, "w", **{name: value for name, value in settings.items() if value is not None}) as file:
        file.write(values)
    return path


def landscape(bands: int, height: int, width: int, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Return a scene (bands, height, width) with large and small structure over a part of its type's range."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack([np.sin(rows / (9 + 3 * band)) + np.cos(columns / (7 + 2 * band)) for band in range(bands)])
    values = 0.5 + 0.12 * smooth + 0.1 * generator.standard_normal((bands, height, width))
    high = 1.0 if dtype.startswith("float") else float(np.iinfo(dtype).max)
    return (np.clip(values, 0.02, 1) * high).astype(dtype)


def job(folder: Path, source: Path, method: Method, count: int = 3, name: str = "out.tif", **options: Any) -> SceneJob:
    """Return a job whose output is `folder`/`name`; `options` are those of the scene."""
    given = SceneOptions(**{"tile": 20, "overlap": 8, "scaling": "dtype", **options})
    return SceneJob(
        input=source,
        output=folder / name,
        scratch=folder / f"scratch-{name}",
        method=method,
        problem=Problem(SCALE, count, count),
        scale=SCALE,
        sampler=SamplerConfig(solver="ddim", steps=2, eta=1.0, clip=True),
        options=given,
        trained=Normaliser((0.0,), (255.0,)),
        needs=frozenset(),
        seed=0,
        device=torch.device("cpu"),
    )


def restored(work: SceneJob, order: Callable[[int], Sequence[int]] | None = None) -> SceneResult:
    """Restore alone and return the result."""
    return restore_scene(replace(work, order=order), Alone(), lambda done, total: None)


def pixels(path: Path) -> NDArray[Any]:
    """Return the bands of a raster."""
    with rasterio.open(path) as file:
        values: NDArray[Any] = file.read()
    return values


ROTATED = Affine(8.0, -3.0, 500_000.0, 3.0, -8.0, 5_000_000.0)
