"""Tiles of a scene as they are restored: cut into fused parts, in the model's range, with noise of their place, blended again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.data.normalisation import type_range
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.source import mask_values
from rsdiff.degradations.resizing import resize
from rsdiff.diffusion.fusion import FusedTileNoise
from rsdiff.diffusion.noise import TileNoise
from rsdiff.inference.draws import variant
from rsdiff.inference.images import restore
from rsdiff.inference.scene_input import AlignedRaster, NormalisedScene, filled
from rsdiff.inference.scene_job import SceneJob
from rsdiff.inference.tiling import Axis, Grid, rounded_up
from rsdiff.methods.base import Method

SMALLEST_TILE = 16
"""Input pixels; a scene that is smaller is continued by reflection."""
Restored = NDArray[np.float32]


@dataclass(frozen=True)
class TileInput:
    """What is read of a tile.

    image   (C, h, w) in the model's range, without holes
    beside  windows of the aligned rasters by the field of the batch that they fill, (parts, C, H, W)
    """

    image: Tensor
    beside: Mapping[str, Tensor]


@dataclass(frozen=True)
class TileRestorer:
    """Restores tiles of a scene.

    aligned    second rasters by the field of the batch that they fill
    codes      (1, ...) global estimate of every method for the whole scene, or None
    is_random  whether several samples draw noise of their own; else they are flips and transposes
    grid       of the scene
    rows, columns  how the tiles of a fused group lie in a tile of the grid
    """

    job: SceneJob
    scene: NormalisedScene
    aligned: Mapping[str, AlignedRaster]
    codes: Sequence[Tensor | None]
    is_random: bool
    scale: Fraction
    grid: Grid
    rows: Axis
    columns: Axis

    def read(self, tile: int) -> TileInput | None:
        """Return what the methods are shown of a tile, or None for one without any valid pixel: all that is read of it from files."""
        row, column = self.grid.place(tile)
        rows, columns = self.grid.rows, self.grid.columns
        image, is_valid = self.scene.window(rows.start(row), columns.start(column), rows.tile, columns.tile)
        return TileInput(torch.from_numpy(image), self._aligned_windows(self._origins(tile))) if is_valid else None

    def restored(self, tiles: Sequence[int], inputs: Sequence[TileInput], sample: int) -> Restored:
        """Return restored tiles (n, C, H, W); a fused group of tiles is restored as that many and blended."""
        job, rows, columns = self.job, self.rows, self.columns
        method, code = job.in_turn[sample % len(job.in_turn)], self.codes[sample % len(job.methods)]
        images, outside = split_at_range(torch.stack([one.image for one in inputs]))
        inside = self._inside
        origins = [origin for tile in tiles for origin in self._origins(tile)]
        parts = [
            image[:, rows.start(i) : rows.start(i) + rows.tile, columns.start(j) : columns.start(j) + columns.tile]
            for image in images
            for i, j in inside
        ]
        size = (rows.target_tile, columns.target_tile)
        batch = Batch([SampleMeta(job.input.stem)] * len(parts), size, (rows.tile, columns.tile), lr=torch.stack(parts))
        beside = {name: torch.cat([one.beside[name] for one in inputs]) for name in self.aligned}
        batch = replace(batch, **beside)  # type: ignore[arg-type]
        if code is not None:
            batch = replace(batch, code=code.expand(len(parts), *code.shape[1:]))
        key = (job.seed, "restore", job.input.stem, sample)
        # Noise belongs to a place in the file: a window of a scene gets what the whole scene has there.
        first = int(self.scene.reader.top * self.scale), int(self.scene.reader.left * self.scale)
        origins = [(row + first[0], column + first[1]) for row, column in origins]
        noise = TileNoise(key, origins, size)
        if len(inside) > 1:
            noise = FusedTileNoise(key, origins, size, len(inside), int(rows.overlap * rows.scale))
        with torch.no_grad():
            work, precision = batch.to(job.device), job.options.precision
            if job.options.channels_last:
                work = work.with_memory_format(torch.channels_last)
            if self.is_random:
                made = restore(method, work, job.sampler, noise, precision)
            else:
                number = sample // len(job.methods)
                made = variant(work, number, lambda turned: restore(method, turned, job.sampler, noise, precision))
            restored = made.cpu().contiguous().numpy()  # channels last would be stored and read value by value
        if len(inside) > 1:
            group = Grid(rows, columns, max(rows.target_length, columns.target_length))
            groups = restored.reshape(len(tiles), len(inside), *restored.shape[1:])
            restored = np.stack([group.blend(0, list(members)) for members in groups])
        return restored if outside is None or outside.shape[1] != restored.shape[1] else restored + enlarged(outside, restored.shape[-2:])

    @property
    def _inside(self) -> list[tuple[int, int]]:
        """The parts (row, column) of a fused group; one of a tile that stands alone."""
        return [(row, column) for row in range(self.rows.count) for column in range(self.columns.count)]

    def _origins(self, tile: int) -> list[tuple[int, int]]:
        """Return the first target pixel (row, column) of every part of a tile."""
        row, column = self.grid.place(tile)
        top, left = self.grid.rows.target_start(row), self.grid.columns.target_start(column)
        return [(top + self.rows.target_start(i), left + self.columns.target_start(j)) for i, j in self._inside]

    def _aligned_windows(self, origins: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Return reference and change mask of the parts that begin at `origins`, each (n, C, H, W)."""
        size = (self.rows.target_tile, self.columns.target_tile)
        windows: dict[str, Tensor] = {}
        for name, raster in self.aligned.items():
            parts = [raster.window(*origin, *size) for origin in origins]
            if name == "ref":
                parts_in_range = [self._reference(raster, values, valid) for values, valid in parts]
            else:
                parts_in_range = [np.where(valid, mask_values(values), np.float32(0)) for values, valid in parts]
            windows[name] = torch.from_numpy(np.stack(parts_in_range))
        return windows

    def _reference(self, raster: AlignedRaster, values: NDArray[Any], valid: NDArray[np.bool_]) -> Restored:
        normaliser = type_range(raster.dtype) if self.job.options.scaling == "dtype" else self.scene.normaliser
        image = normaliser.normalise(values)
        if valid.all():
            return image
        return filled(image, valid, self.scene.fill if len(self.scene.fill) == len(values) else np.full(len(values), 0.5, np.float32))


def scene_code(method: Method, job: SceneJob, scene: NormalisedScene, scale: Fraction, multiple: int) -> Tensor | None:
    """Return the mean (1, ...) of a method's global estimates over windows spread over the scene, or None.

    multiple  of which the sides of what is shown to the method must be
    """
    codes = []
    for values, valid in scene.reader.samples():
        if not valid.any():
            continue
        image = scene.normaliser.scaled(values)
        image = (image if valid.all() else filled(image, valid, scene.fill)).clip(0, 1)
        side = [rounded_up(max(length, SMALLEST_TILE), multiple) for length in image.shape[1:]]
        image = np.pad(image, ((0, 0), (0, side[0] - image.shape[1]), (0, side[1] - image.shape[2])), mode="symmetric")
        lr = torch.from_numpy(image)[None].to(job.device)
        target = (int(side[0] * scale), int(side[1] * scale))
        code = method.degradation_code(Batch([SampleMeta(job.input.stem)], target, (side[0], side[1]), lr=lr))
        if code is None:
            return None
        codes.append(code)
    return torch.stack(codes).mean(0) if codes else None


def split_at_range(images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return images limited to [0, 1], and what they lack then: the part outside, which no network sees, or None where there is none."""
    inside = images.clamp(0, 1)
    outside = images - inside
    return inside, outside if bool(outside.any()) else None


def enlarged(outside: Tensor, size: Sequence[int]) -> Restored:
    """Return what lies outside the range at the target's `size`, by bicubic: added to a restoration, it gives the values back."""
    return resize(outside, (size[0], size[1]), "matlab").numpy()
