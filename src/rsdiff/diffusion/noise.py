"""Sources of randomness: the same image and seed give the same draws at any batch size, device count or worker count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.seeding import derived_seed
from rsdiff.data.transfer import to_device
from rsdiff.diffusion import counter_random


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
    """Noise of every image by that image's key, and a further key for draws the whole batch shares.

    keys    one key per image, e.g. (seed, 'restore', name) or (seed, 'train', epoch, index)
    shared  key of the shared draws, e.g. (seed, 'step', step)
    A draw depends on the image's key, on how many draws came before and on its shape, on nothing else: every device sees the same numbers.
    """

    def __init__(self, keys: Sequence[Sequence[int | str]], shared: Sequence[int | str] = ("shared",)) -> None:
        self._keys = _OnDevice([derived_seed(*key) for key in keys])
        self._shared = tuple(shared)
        self._draws = 0
        self._shared_draws = 0

    def _streams(self, shape: Sequence[int], device: torch.device | str) -> Tensor:
        """Return the stream (B, 1) of every image for the next draw of `shape`, and count it."""
        if shape[0] != len(self._keys):
            raise UserError(f"noise of batch size {shape[0]} was asked of a source with {len(self._keys)} images.")
        streams = counter_random.mixed(self._keys.on(device) + counter_random.wrapped(self._draws * counter_random.STEP))
        self._draws += 1
        return streams[:, None]

    def _counters(self, shape: Sequence[int], device: torch.device | str) -> Tensor:
        """Return a counter for every value of the next draw."""
        values = torch.arange(math.prod(shape[1:]), device=device)
        return (self._streams(shape, device) + values * counter_random.STEP).reshape(tuple(shape))

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        values = math.prod(shape[1:])
        groups = -(-values // counter_random.NORMALS)
        positions = torch.arange(2 * groups, device=device).view(2, 1, groups)
        counters = self._streams(shape, device) + positions * counter_random.STEP
        rows = counter_random.normals(counters.view(2, -1)).view(shape[0], -1)
        return rows[:, :values].reshape(tuple(shape)).to(dtype)

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        return counter_random.uniforms(self._counters(shape, device)).to(dtype)

    def integers(self, low: int, high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        return counter_random.integers(self._counters(shape, device), low, high)

    def shared_integer(self, low: int, high: int) -> int:
        self._shared_draws += 1
        return low + derived_seed(*self._shared, self._shared_draws) % (high - low)


class _OnDevice:
    """A few integers, moved once to every device that asks for them, without making the host wait."""

    def __init__(self, values: Sequence[int]) -> None:
        self._values = torch.tensor(values, dtype=torch.int64)
        self._moved: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self._values)

    def on(self, device: torch.device | str) -> Tensor:
        """Return the integers on `device`, shape (N,); not to be written to."""
        device = torch.device(device)
        if device not in self._moved:
            self._moved[device] = to_device(self._values, device)
        return self._moved[device]


class ReplayNoise:
    """Returns given arrays in order, whatever their kind; for parity with published runs.

    Raises ValueError when an array's shape differs from the draw that is asked for, or when the arrays run out.
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
    Draws of fewer axes have no position and are the same for every tile. Every device and tile shape sees the same numbers.
    """

    def __init__(self, key: Sequence[int | str], origins: Sequence[tuple[int, int]], tile_size: tuple[int, int]) -> None:
        self._key = tuple(key)
        self._origins = list(origins)
        self._tile_size = tile_size
        self._firsts: dict[tuple[int, int], _OnDevice] = {}
        self._draws = 0

    def _counters(self, shape: Sequence[int], device: torch.device | str, planes: int | None = None) -> Tensor:
        """Return counters (B, planes, h, w) of the next draw, one plane per channel by default, and count it.

        A draw without position has counters (1, planes, values of an image): they serve every tile.
        """
        if shape[0] != len(self._origins):
            raise UserError(f"noise of batch size {shape[0]} was asked of a source with {len(self._origins)} tiles.")
        state = derived_seed(*self._key, self._draws)
        self._draws += 1
        has_place = len(shape) == 4
        channels = counter_random.streams(state, torch.arange(planes or (shape[1] if has_place else 1), device=device))
        if not has_place:
            return channels[None, :, None] + torch.arange(math.prod(shape[1:]), device=device) * counter_random.STEP
        rows, columns = (self._positions(axis, shape[2 + axis], device) for axis in (0, 1))
        lines = counter_random.streams(channels[:, None], rows[:, None])
        return lines[..., None] + columns[:, None, None] * counter_random.STEP

    def _positions(self, axis: int, length: int, device: torch.device | str) -> Tensor:
        """Return the scene coordinates (B, length) of the rows (axis 0) or columns (axis 1) of each tile."""
        if (axis, length) not in self._firsts:
            side = self._tile_size[axis]
            step = 1 if length >= side else side // length
            firsts = [origin[axis] for origin in self._origins]
            if (length < side and side % length) or any(first % step for first in firsts):
                raise UserError(
                    f"noise of {length} {('rows', 'columns')[axis]} was asked for tiles of {side} pixels that begin at {firsts}; "
                    f"choose tile sizes and origins that are multiples of the model's pixel multiple."
                )
            self._firsts[axis, length] = _OnDevice([first // step for first in firsts])
        return self._firsts[axis, length].on(device)[:, None] + torch.arange(length, device=device)

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        groups = -(-shape[1] // counter_random.NORMALS) if len(shape) == 4 else 1  # a pair of counters of a pixel serves four channels
        counters = self._counters(shape, device, planes=2 * groups).transpose(0, 1)
        tiles, places = counters.shape[1], counters.shape[2:]
        values = counter_random.normals(counters.reshape(2, -1)).view(groups, tiles, *places, counter_random.NORMALS)
        if len(shape) != 4:
            return self._placed(values[0, ..., 0], shape).to(dtype)
        return values.permute(1, 0, 4, 2, 3).reshape(tiles, -1, *places)[:, : shape[1]].to(dtype)

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        return self._placed(counter_random.uniforms(self._counters(shape, device)), shape).to(dtype)

    def integers(self, low: int, high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        return self._placed(counter_random.integers(self._counters(shape, device), low, high), shape)

    @staticmethod
    def _placed(values: Tensor, shape: Sequence[int]) -> Tensor:
        """Return values as they are where they have a place, else the same for every tile."""
        return values if len(shape) == 4 else values.reshape(1, *shape[1:]).repeat(shape[0], *[1] * (len(shape) - 1))

    def shared_integer(self, low: int, high: int) -> int:
        self._draws += 1
        return low + derived_seed(*self._key, "shared", self._draws) % (high - low)
