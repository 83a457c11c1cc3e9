"""Sources of randomness: the same image and seed give the same draws at any batch size, device count or worker count.

Numbers are a function of a counter: no generator, no state. A draw hashes 64-bit counters (SplitMix64, Steele, Lea and Flood 2014, "Fast
splittable pseudorandom number generators"). Each hash holds four 16-bit words. A normal is the sum of two words' quantiles from one table,
divided by the square root of two beforehand: the table's values are multiples of 2^-20, so that every sum is exact. Only integer
operations, table look-ups and exact sums occur: devices cannot differ in a bit, as they do in logarithms, sines and even roots. Nothing is
read back from the device, so an accelerator never waits for a draw.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.seeding import derived_seed
from rsdiff.data.transfer import to_device

STEP = 0x9E3779B97F4A7C15 - 2**64
"""Distance of two counters of one stream: 2^64 over the golden ratio, SplitMix64's."""
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
NORMALS = 4
"""Normals that a pair of counters gives."""
CHUNK = 1 << 15
"""Pairs of counters worked on at once on a CPU: what a chunk needs stays in its cache."""


def wrapped(value: int) -> int:
    """Return `value` modulo 2^64 as a signed integer, which is how int64 tensors count."""
    return (value + 2**63) % 2**64 - 2**63


def mixed(counters: Tensor) -> Tensor:
    """Replace int64 counters of any shape by their SplitMix64 hashes, in place, and return them."""
    if counters.device.type == "cpu":  # NumPy shifts unsigned integers, for which PyTorch needs a mask, and multiplies faster
        values = counters.numpy().view(np.uint64)
        _mix(values, np.empty_like(values))
        return counters
    counters.bitwise_xor_((counters >> 30).bitwise_and_(2**34 - 1)).mul_(_FIRST)
    counters.bitwise_xor_((counters >> 27).bitwise_and_(2**37 - 1)).mul_(_SECOND)
    return counters.bitwise_xor_((counters >> 31).bitwise_and_(2**33 - 1))


def _mix(values: NDArray[np.uint64], shifted: NDArray[np.uint64]) -> None:
    """Replace values by their hashes, in place; integers wrap. `shifted`, of the same shape, is written to."""
    np.bitwise_xor(values, np.right_shift(values, np.uint64(30), out=shifted), out=values)
    np.multiply(values, np.uint64(_FIRST % 2**64), out=values)
    np.bitwise_xor(values, np.right_shift(values, np.uint64(27), out=shifted), out=values)
    np.multiply(values, np.uint64(_SECOND % 2**64), out=values)
    np.bitwise_xor(values, np.right_shift(values, np.uint64(31), out=shifted), out=values)


def streams(state: int | Tensor, positions: Tensor) -> Tensor:
    """Return one independent stream (int64) for every position of `state`, shape as the two broadcast."""
    return mixed(positions * STEP + state)


def uniforms(counters: Tensor) -> Tensor:
    """Return float32 uniforms in [0, 1) of the counters' shape, multiples of 2^-24. The counters are overwritten."""
    return (mixed(counters) >> 40).bitwise_and_(2**24 - 1).to(torch.float32).mul_(2.0**-24)


def integers(counters: Tensor, low: int, high: int) -> Tensor:
    """Return int64 in [low, high) of the counters' shape. The counters are overwritten."""
    return mixed(counters).bitwise_and_(2**63 - 1).remainder_(high - low).add_(low)


def normals(lines: Tensor, length: int) -> Tensor:
    """Return float32 standard normals (..., length, 4): four for every pair of counters. They lie within +-6.2.

    lines  int64 counters (1 or 2, ...) with which lines begin; those that follow are STEP apart. The k-th counters of two lines are a pair,
           where there is one line the k-th and the k-th after the first `length`
    Words of 16 bits are read in the order of their bytes, which is the same on all devices that PyTorch supports.
    """
    device, is_one = lines.device, len(lines) == 1
    if device.type == "cpu":
        first = lines.reshape(len(lines), -1)
        pairs = torch.cat([first, first + wrapped(length * STEP)]) if is_one else first
        return _by_lines(pairs.numpy().view(np.uint64), length).view(*lines.shape[1:], length, NORMALS)
    steps = (
        torch.arange(2 * length, device=device).view(2, *[1] * (lines.dim() - 1), length) if is_one else torch.arange(length, device=device)
    )
    counters = lines.contiguous()[..., None] + steps * STEP
    words = mixed(counters).view(torch.int16).to(torch.int32).add_(2**15)
    values = quantiles(device).index_select(0, words.view(-1)).view(*counters.shape, NORMALS)
    return values[0] + values[1]


def _by_lines(lines: NDArray[np.uint64], length: int) -> Tensor:
    """Return the normals (R, length, 4) of pairs of lines (2, R), worked out in parts that stay in the cache."""
    rows = lines.shape[1]
    together, along = max(1, min(rows, CHUNK // max(1, length))), max(1, min(length, CHUNK))
    made, table, steps = torch.empty((rows, length, NORMALS)), _quantiles_by_word(), _steps(CHUNK)
    # Every part is worked out in the same memory: new memory is zeroed by the system first.
    room = 2 * together * along
    counters, shifted = np.empty(room, np.uint64), np.empty(room, np.uint64)
    words, found = torch.empty(room * NORMALS, dtype=torch.int32), torch.empty(room * NORMALS)
    for top in range(0, rows, together):
        for left in range(0, length, along):
            first = lines[:, top : top + together, None] + np.uint64(left * STEP % 2**64)
            shape = (2, first.shape[1], min(along, length - left))
            size = math.prod(shape)
            bits = counters[:size]
            np.add(first, steps[: shape[2]], out=bits.reshape(shape))
            _mix(bits, shifted[:size])
            np.copyto(words.numpy()[: size * NORMALS], bits.view(np.uint16))
            torch.index_select(table, 0, words[: size * NORMALS], out=found[: size * NORMALS])
            values = found[: size * NORMALS].view(*shape, NORMALS)
            torch.add(values[0], values[1], out=made[top : top + together, left : left + along])
    return made


@functools.lru_cache(maxsize=2)
def _steps(count: int) -> NDArray[np.uint64]:
    """Return what is added to a line's first counter."""
    return np.arange(count, dtype=np.uint64) * np.uint64(STEP % 2**64)


@functools.lru_cache(maxsize=16)
def quantiles(device: torch.device) -> Tensor:
    """Return 2^16 quantiles of a normal of variance 1/2, float32, multiples of 2^-20, on `device`.

    The upper half of the bell is cut into 2^15 parts of equal probability; each stands for itself by its root mean square, so that the
    variance is exact and the fourth moment of a sum of two is 2e-4 short of 3.
    """
    parts = 2**15
    edges = torch.special.ndtri(0.5 + torch.arange(parts, dtype=torch.float64) / (2 * parts))
    density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
    slope = torch.cat([edges * density, torch.zeros(1, dtype=torch.float64)])  # 0 at infinity
    upper = (1 + (slope[:-1] - slope[1:]) * 2 * parts).sqrt() / math.sqrt(2)
    return torch.cat([upper, -upper]).mul(2**20).round().div(2**20).to(torch.float32).to(device)


@functools.cache
def _quantiles_by_word() -> Tensor:
    """Return the quantiles in the order of unsigned words, of which `quantiles` is the order of signed ones."""
    return quantiles(torch.device("cpu")).roll(2**15)


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
        streams = mixed(self._keys.on(device) + wrapped(self._draws * STEP))
        self._draws += 1
        return streams[:, None]

    def _counters(self, shape: Sequence[int], device: torch.device | str) -> Tensor:
        """Return a counter for every value of the next draw."""
        values = torch.arange(math.prod(shape[1:]), device=device)
        return (self._streams(shape, device) + values * STEP).reshape(tuple(shape))

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        values = math.prod(shape[1:])
        groups = -(-values // NORMALS)
        rows = normals(self._streams(shape, device).view(1, -1), groups).view(shape[0], -1)
        return rows[:, :values].reshape(tuple(shape)).to(dtype)

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        return uniforms(self._counters(shape, device)).to(dtype)

    def integers(self, low: int, high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        return integers(self._counters(shape, device), low, high)

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

    def _lines(self, shape: Sequence[int], device: torch.device | str, planes: int | None = None) -> tuple[Tensor, int]:
        """Return the counters (B, planes, h) with which lines of the next draw begin, and their length w, and count the draw.

        planes  one per channel by default
        A draw without position has a line (1, planes) for all values of an image: they serve every tile.
        """
        if shape[0] != len(self._origins):
            raise UserError(f"noise of batch size {shape[0]} was asked of a source with {len(self._origins)} tiles.")
        state = derived_seed(*self._key, self._draws)
        self._draws += 1
        has_place = len(shape) == 4
        channels = streams(state, torch.arange(planes or (shape[1] if has_place else 1), device=device))
        if not has_place:
            return channels[None], math.prod(shape[1:])
        rows, columns = (self._beginnings(axis, shape[2 + axis], device) for axis in (0, 1))
        along = torch.arange(shape[2], device=device) * STEP + rows[:, None]
        lines = mixed(channels[:, None] + along[:, None])
        return lines + columns[:, None, None], shape[3]

    def _beginnings(self, axis: int, length: int, device: torch.device | str) -> Tensor:
        """Return the first scene coordinate (B,) of the rows (axis 0) or columns (axis 1) of each tile, times STEP."""
        if (axis, length) not in self._firsts:
            side = self._tile_size[axis]
            step = 1 if length >= side else side // length
            firsts = [origin[axis] for origin in self._origins]
            if (length < side and side % length) or any(first % step for first in firsts):
                raise UserError(
                    f"noise of {length} {('rows', 'columns')[axis]} was asked for tiles of {side} pixels that begin at {firsts}; "
                    f"choose tile sizes and origins that are multiples of the model's pixel multiple."
                )
            self._firsts[axis, length] = _OnDevice([wrapped(first // step * STEP) for first in firsts])
        return self._firsts[axis, length].on(device)

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        groups = -(-shape[1] // NORMALS) if len(shape) == 4 else 1  # a pair of counters of a pixel serves four channels
        lines, length = self._lines(shape, device, planes=2 * groups)
        values = normals(lines.transpose(0, 1).unflatten(0, (2, groups)), length)
        if len(shape) != 4:
            return self._placed(values[0, ..., 0], shape).to(dtype)
        return values.permute(1, 0, 4, 2, 3).flatten(1, 2)[:, : shape[1]].to(dtype)

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        return self._placed(uniforms(self._counters(shape, device)), shape).to(dtype)

    def integers(self, low: int, high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        return self._placed(integers(self._counters(shape, device), low, high), shape)

    def _counters(self, shape: Sequence[int], device: torch.device | str) -> Tensor:
        """Return the counters of the next draw, one per value."""
        lines, length = self._lines(shape, device)
        return lines[..., None] + torch.arange(length, device=device) * STEP

    @staticmethod
    def _placed(values: Tensor, shape: Sequence[int]) -> Tensor:
        """Return values as they are where they have a place, else the same for every tile."""
        return values if len(shape) == 4 else values.reshape(1, *shape[1:]).repeat(shape[0], *[1] * (len(shape) - 1))

    def shared_integer(self, low: int, high: int) -> int:
        self._draws += 1
        return low + derived_seed(*self._key, "shared", self._draws) % (high - low)
