"""Real-ESRGAN's pool of training pairs, which mixes images of different batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rsdiff.config import UserError


@dataclass
class PairPool:
    """Keeps pairs of LR and HR and exchanges them for those of new batches.

    While it fills, batches pass unchanged. Afterwards every call permutes the pool, hands out its first pairs and keeps the given ones in
    their place. The published pipeline needs it because its batches share most decisions; rsdiff draws per image, so its own training
    does without, and stays resumable. Source: RealESRGANModel._dequeue_and_enqueue.

    capacity  pairs; a multiple of the batch (180 published)
    """

    capacity: int
    _pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def exchange(self, lr: Tensor, hr: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return lr (N, c, h, w) and hr (N, C, H, W) of the pairs that leave the pool in exchange for the given ones."""
        return self.exchange_in_order(lr, hr, torch.randperm(self.capacity, generator=generator) if self.is_full else None)

    @property
    def is_full(self) -> bool:
        """Whether the next call exchanges pairs; before, batches pass unchanged."""
        return len(self._pairs) >= self.capacity

    def exchange_in_order(self, lr: Tensor, hr: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor]:
        """`exchange` with the permutation (capacity,) given; None while the pool fills."""
        if self.capacity % len(lr):
            raise UserError(f"a pool of {self.capacity} pairs got a batch of {len(lr)}; make the capacity a multiple of the batch.")
        pairs = list(zip(lr.clone(), hr.clone(), strict=True))
        if order is None:
            self._pairs += pairs
            return lr, hr
        self._pairs = [self._pairs[index] for index in order.tolist()]
        leaving, self._pairs[: len(pairs)] = self._pairs[: len(pairs)], pairs
        return torch.stack([pair[0] for pair in leaving]), torch.stack([pair[1] for pair in leaving])
