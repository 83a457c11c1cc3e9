"""Sources of randomness: the same image and seed give the same draws at any batch size, device count or worker count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.seeding import keyed_generator


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
            raise ValueError(f"noise of batch size {shape[0]} was asked of a source with {len(self._generators)} images.")

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

    Raises ValueError when an array's shape differs from the draw that is asked for, or when the arrays run out.
    """

    def __init__(self, draws: Sequence[np.ndarray | Tensor | float | int]) -> None:
        self._draws = [torch.as_tensor(draw) for draw in draws]
        self._next = 0

    def _take(self, shape: Sequence[int]) -> Tensor:
        if self._next >= len(self._draws):
            raise ValueError(f"replayed noise ran out after {len(self._draws)} draws.")
        draw = self._draws[self._next]
        if tuple(draw.shape) != tuple(shape):
            raise ValueError(f"draw {self._next} has shape {tuple(draw.shape)} where {tuple(shape)} was asked for.")
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
