"""Random numbers as a function of a counter: no generator, no state, the same numbers on every device.

A draw hashes 64-bit counters (SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"). Each hash holds
four 16-bit words. A normal is the sum of two words' quantiles from one table, divided by the square root of two beforehand: the table's
values are multiples of 2^-20, so that every sum is exact. Only integer operations, table look-ups and exact sums occur: devices cannot
differ in a bit, as they do in logarithms, sines and even roots. Nothing is read back from the device, so an accelerator never waits for a
draw.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
        _mix(counters.numpy().view(np.uint64))
        return counters
    counters.bitwise_xor_((counters >> 30).bitwise_and_(2**34 - 1)).mul_(_FIRST)
    counters.bitwise_xor_((counters >> 27).bitwise_and_(2**37 - 1)).mul_(_SECOND)
    return counters.bitwise_xor_((counters >> 31).bitwise_and_(2**33 - 1))


def _mix(values: NDArray[np.uint64]) -> None:
    """Replace values by their hashes, in place; integers wrap."""
    shifted = values >> np.uint64(30)
    np.bitwise_xor(values, shifted, out=values)
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


def normals(counters: Tensor) -> Tensor:
    """Return float32 standard normals (N, 4) of counters (2, N): four for every pair of counters. They lie within +-6.2.

    Words of 16 bits are read in the order of their bytes, which is the same on all devices that PyTorch supports.
    """
    table = quantiles(counters.device)
    count = counters.shape[1]
    result = torch.empty((count, NORMALS), dtype=torch.float32, device=counters.device)
    chunk = CHUNK if counters.device.type == "cpu" else max(1, count)
    for start in range(0, count, chunk):
        bits = mixed(counters[:, start : start + chunk].clone(memory_format=torch.contiguous_format))
        words = bits.view(torch.int16).to(torch.int32).add_(2**15)
        values = table.index_select(0, words.view(-1)).view(2, -1, NORMALS)
        torch.add(values[0], values[1], out=result[start : start + chunk])
    return result


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
