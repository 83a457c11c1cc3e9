"""Plain resizing: the degradation of the classical benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.degradations.base import DegradationConfig, Degraded, Reach, RecordValue, common_lr_size
from rsdiff.degradations.resizing import ResizeBackend, resize, resize_reach
from rsdiff.degradations.rounding import round_to_grey_levels


@config
class BicubicConfig(DegradationConfig):
    """Resize only, nothing random."""

    resize: ResizeBackend = "matlab"
    "resize back-end, see rsdiff.degradations.resizing"
    rounding: bool = False
    "round the LR to 8-bit grey levels, as data sets stored in 8 bits do"
    clamp: bool = True
    "limit the LR to [0, 1]; bicubic filters overshoot at edges"

    def build(self) -> Bicubic:
        return Bicubic(self)


@dataclass(frozen=True)
class BicubicDecisions:
    """lr_size  (h, w) to resize to."""

    lr_size: tuple[int, int]


@dataclass(frozen=True)
class Bicubic:
    """The `Degradation` of a `BicubicConfig`."""

    config: BicubicConfig

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"lr_clean"})

    def draw(
        self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1
    ) -> list[BicubicDecisions]:
        return [BicubicDecisions(lr_size)] * views

    def apply(self, hr: Tensor, decisions: Sequence[BicubicDecisions]) -> Degraded:
        size = common_lr_size(len(hr), [d.lr_size for d in decisions])
        clean = resize(hr, size, self.config.resize)
        lr = clean.clamp(0, 1) if self.config.clamp else clean
        return Degraded(lr=round_to_grey_levels(lr) if self.config.rounding else lr, hr=hr, lr_clean=clean)

    def reach(self, decisions: BicubicDecisions, scale: float) -> Reach:
        return Reach(resize_reach(self.config.resize, scale))

    def record(self, decisions: BicubicDecisions) -> dict[str, RecordValue]:
        return {}
