"""Overlapping tiles that are sampled together: their clean estimates are blended at every step (MultiDiffusion, Bar-Tal et al. 2023).

Overlapping tiles start from the same noise and draw the same noise (`TileNoise`), so that with a common estimate they keep a common state:
a group of tiles is sampled as one large image whose denoiser looks at one tile at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rsdiff.diffusion.noise import TileNoise
from rsdiff.diffusion.solvers import Denoiser, DenoiserHook


class FusedTileNoise(TileNoise):
    """Noise keyed by position for groups of tiles whose estimates `sample` blends.

    key        see TileNoise
    origins    (row, column) of every tile in target pixels: the tiles of the first group, of the second group, ...
    tile_size  (H, W) of a tile in target pixels
    group      tiles per group; tiles of other groups do not influence each other
    overlap    target pixels that neighbours share, over which the weights rise from 0 to 1 (both excluded)
    """

    def __init__(
        self, key: Sequence[int | str], origins: Sequence[tuple[int, int]], tile_size: tuple[int, int], group: int, overlap: int
    ) -> None:
        super().__init__(key, origins, tile_size)
        self._places = list(origins)
        self._size = tile_size
        self._group = group
        self._overlap = overlap

    def fuse(self, denoiser: Denoiser) -> Denoiser:
        """Return `denoiser` with blended estimates."""
        return _Fused(denoiser, self)

    def blend(self, estimate: Tensor) -> Tensor:
        """Return estimates (B, C, h, w) of tiles, every pixel the weighted mean of the tiles of its group that hold it."""
        rows, columns = (_Placement(self._places, self._size, self._overlap, axis, estimate.shape[2 + axis]) for axis in (0, 1))
        weight = rows.weights.to(estimate)[:, None] * columns.weights.to(estimate)
        result = torch.empty_like(estimate)
        for first in range(0, len(estimate), self._group):
            members = range(first, first + self._group)
            top, left = min(rows.starts[i] for i in members), min(columns.starts[i] for i in members)
            bottom = max(rows.starts[i] for i in members) + estimate.shape[2]
            right = max(columns.starts[i] for i in members) + estimate.shape[3]
            total = estimate.new_zeros((estimate.shape[1], bottom - top, right - left))
            weights = estimate.new_zeros((bottom - top, right - left))
            where = {i: (rows.extent(i, top), columns.extent(i, left)) for i in members}
            for i, (down, across) in where.items():
                total[:, down, across] += weight * estimate[i]
                weights[down, across] += weight
            total /= weights
            for i, (down, across) in where.items():
                result[i] = total[:, down, across]
        return result


class _Placement:
    """Where tiles begin along one axis, in pixels of a state that may be a latent (smaller) or extended at its end (larger)."""

    def __init__(self, origins: Sequence[tuple[int, int]], size: tuple[int, int], overlap: int, axis: int, length: int) -> None:
        step = 1 if length >= size[axis] else size[axis] // length
        self.starts = [origin[axis] // step for origin in origins]
        self.length = length
        inside = -(-size[axis] // step)
        distance = torch.arange(inside, dtype=torch.float64) + 0.5
        rise = torch.minimum(distance, inside - distance) / max(1.0, overlap / step)
        weights = torch.sin(torch.pi / 2 * rise.clamp(max=1.0)).square()
        self.weights = torch.cat([weights, weights[-1:].expand(length - inside)])

    def extent(self, index: int, first: int) -> slice:
        """Return the pixels of a tile, counted from `first`."""
        return slice(self.starts[index] - first, self.starts[index] - first + self.length)


class _Fused(DenoiserHook):
    """Blends the estimates of a denoiser."""

    def __init__(self, denoiser: Denoiser, tiles: FusedTileNoise) -> None:
        super().__init__(denoiser)
        self.tiles = tiles

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        return self.tiles.blend(self.denoiser(y, sigma))
