"""Sources of randomness: the same image and seed give the same draws at any batch size, device count or worker count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.seeding import derived_seed, keyed_generator


class NoiseSource(Protocol):
    """Yields the draws of a batch one after the other. The first axis of every `shape` is the batch axis."""

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal draw of `shape`."""
        ...

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform draw in [0, 1) of `shape`."""
        ...

    def integers(self, low: int, high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Integer draw in [low, high) of `shape`, int64."""
        ...

    def shared_integer(self, low: int, high: int) -> int:
        """One integer in [low, high) for the whole batch, equal on every process of a step."""
        ...


class SeededNoise:
    """One generator per image, made from that image's key; a further one for draws the whole batch shares.

    keys    one key per image, e.g. (seed, 'restore', name) or (seed, 'train', epoch, index)
    shared  key of the shared draws, e.g. (seed, 'step', step)
    Draws are made on the CPU, so that every device sees the same numbers.
    """

    def __init__(self, keys: Sequence[Sequence[int | str]], shared: Sequence[int | str] = ("shared",)) -> None:
        self._generators = [keyed_generator(*key) for key in keys]
        self._shared = keyed_generator(*shared)

    def _check(self, shape: Sequence[int]) -> None:
        if shape[0] != len(self._generators):
            raise UserError(f"noise of batch size {shape[0]} was asked of a source with {len(self._generators)} images.")

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        self._check(shape)
        rows = [torch.randn(tuple(shape[1:]), generator=g, dtype=torch.float32) for g in self._generators]
        return torch.stack(rows).to(device=device, dtype=dtype)

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        self._check(shape)
        rows = [torch.rand(tuple(shape[1:]), generator=g, dtype=torch.float32) for g in self._generators]
        return torch.stack(rows).to(device=device, dtype=dtype)

    def integers(self, low: int, high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        self._check(shape)
        rows = [torch.randint(low, high, tuple(shape[1:]), generator=g) for g in self._generators]
        return torch.stack(rows).to(device)

    def shared_integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=self._shared))


class ReplayNoise:
    """Returns given arrays in order, whatever their kind; for parity with published runs.

    Raises UserError when an array's shape differs from the draw that is asked for, or when the arrays run out.
    """

    def __init__(self, draws: Sequence[np.ndarray | Tensor | float | int]) -> None:
        self._draws = [torch.as_tensor(draw) for draw in draws]
        self._next = 0

    def _take(self, shape: Sequence[int]) -> Tensor:
        if self._next >= len(self._draws):
            raise UserError(f"replayed noise ran out after {len(self._draws)} draws.")
        draw = self._draws[self._next]
        if tuple(draw.shape) != tuple(shape):
            raise UserError(f"draw {self._next} has shape {tuple(draw.shape)} where {tuple(shape)} was asked for.")
        self._next += 1
        return draw

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        return self._take(shape).to(device=device, dtype=dtype)

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        return self._take(shape).to(device=device, dtype=dtype)

    def integers(self, low: int, high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        return self._take(shape).to(device=device, dtype=torch.int64)

    def shared_integer(self, low: int, high: int) -> int:
        return int(self._take(()))


class TileNoise:
    """Noise keyed by position: a pixel of a scene sees the same draws in every tile that covers it, so that tiles have no seams.

    key        names the scene and the sample, e.g. (seed, 'restore', name)
    origins    (row, column) of each tile's first target pixel in the scene, one per image of the batch; may be negative (margins)
    tile_size  (H, W) of the tiles in target pixels

    A draw (B, C, h, w) is keyed by (key, how many draws came before, channel, row, column). h >= H are target pixels, the tile being
    extended downwards and to the right; a smaller h must divide H (latents): rows are then counted in steps of H / h pixels, and so for w.
    Draws of fewer axes have no position and are the same for every tile. The numbers are made on the CPU by integer hashing, so that
    every device and tile shape sees the same; they do not depend on torch's generators.
    """

    def __init__(self, key: Sequence[int | str], origins: Sequence[tuple[int, int]], tile_size: tuple[int, int]) -> None:
        self._key = tuple(key)
        self._origins = list(origins)
        self._tile_size = tile_size
        self._draws = 0

    def _bits(self, kind: str, shape: Sequence[int]) -> np.ndarray:
        """Return uniform 64-bit integers of `shape`, and count the draw."""
        if shape[0] != len(self._origins):
            raise UserError(f"noise of batch size {shape[0]} was asked of a source with {len(self._origins)} tiles.")
        state = np.array([derived_seed(*self._key, kind, self._draws)], dtype=np.uint64)
        self._draws += 1
        if len(shape) != 4:
            values = _hash(state, np.arange(int(np.prod(shape[1:])))).reshape(1, *shape[1:])
            return np.broadcast_to(values, tuple(shape))
        channels = _hash(state, np.arange(shape[1]))[0]
        rows, columns = (self._positions(axis, shape[2 + axis]) for axis in (0, 1))
        return np.stack([_hash(_hash(channels, rows[i]), columns[i]) for i in range(shape[0])])

    def _positions(self, axis: int, length: int) -> list[np.ndarray]:
        """Return the scene coordinates of `length` rows (axis 0) or columns (axis 1) of each tile."""
        side = self._tile_size[axis]
        step = 1 if length >= side else side // length
        firsts = [origin[axis] for origin in self._origins]
        if (length < side and side % length) or any(first % step for first in firsts):
            raise UserError(
                f"noise of {length} {('rows', 'columns')[axis]} was asked for tiles of {side} pixels that begin at {firsts}; "
                f"choose tile sizes and origins that are multiples of the model's pixel multiple."
            )
        return [first // step + np.arange(length) for first in firsts]

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        # 52 bits and a half: strictly between 0 and 1, exact in float64
        uniform = ((self._bits("normal", shape) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        return torch.special.ndtri(torch.from_numpy(uniform)).to(torch.float32).to(device=device, dtype=dtype)

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        uniform = (self._bits("uniform", shape) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)  # 24 bits: below 1 in float32
        return torch.from_numpy(uniform).to(device=device, dtype=dtype)

    def integers(self, low: int, high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        remainders = (self._bits("integers", shape) % np.uint64(high - low)).astype(np.int64)
        return torch.from_numpy(low + remainders).to(device)

    def shared_integer(self, low: int, high: int) -> int:
        return int(self.integers(low, high, (len(self._origins),))[0])


def _hash(states: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return 64-bit hashes of shape states.shape + positions.shape: SplitMix64 of each state, advanced to each position."""
    z = states[..., None] + positions.astype(np.int64).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
