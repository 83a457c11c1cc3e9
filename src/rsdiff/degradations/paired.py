"""The data set has LR images of its own: nothing is drawn, nothing is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.degradations.base import DegradationConfig, Reach, RecordValue


@config
class PairedConfig(DegradationConfig):
    """Keep the LR of the data set; there is nothing to set."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"lr"})

    def build(self) -> Paired:
        return Paired()


@dataclass(frozen=True)
class Paired:
    """The `Degradation` whose decisions are None, on which `degrade` keeps the batch as it is."""

    @property
    def gives(self) -> frozenset[str]:
        return frozenset()

    def draw(self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1) -> list[None]:
        return [None] * views

    def apply(self, hr: Tensor, decisions: Sequence[None]) -> NoReturn:
        raise UserError("degradation=paired makes no LR from HR; choose degradation=bicubic (or another) for data without an LR.")

    def reach(self, decisions: None, scale: float) -> Reach:
        return Reach(0)

    def record(self, decisions: None) -> dict[str, RecordValue]:
        return {}
