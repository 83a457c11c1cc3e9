"""Single random numbers from a generator: what the practical degradations decide with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


class Draws:
    """Draws plain numbers, one after the other, from one generator; every call advances it."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def share(self) -> float:
        """Return a number uniform in [0, 1)."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def uniform(self, low: float, high: float) -> float:
        """Return a number uniform in [low, high)."""
        return low + (high - low) * self.share()

    def chance(self, probability: float) -> bool:
        """Return whether an event of this probability happened; 0 and 1 draw nothing."""
        return probability > 0 and (probability >= 1 or self.share() < probability)

    def integer(self, low: int, high: int) -> int:
        """Return an integer in low..high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def choice(self, options: Sequence[T]) -> T:
        """Return one of `options`, all equally likely."""
        return options[self.integer(0, len(options) - 1)]

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        """Return one of `options`, as likely as its weight says; weights need not sum to 1."""
        position = self.share() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            position -= weight
            if position < 0:
                return option
        return next(option for option, weight in zip(reversed(options), reversed(weights), strict=True) if weight > 0)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return `items` in random order."""
        return [items[i] for i in torch.randperm(len(items), generator=self.generator).tolist()]

    def normal(self, *shape: int) -> torch.Tensor:
        """Return a float32 tensor of standard normal numbers."""
        return torch.randn(*shape, generator=self.generator)

    def seed(self) -> int:
        """Return a seed for a generator of its own."""
        return self.integer(0, 2**62)
