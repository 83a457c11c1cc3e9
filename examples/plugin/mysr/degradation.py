"""A degradation: decisions drawn from a generator, applied by a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.degradations.base import DegradationConfig, Degraded, Reach, RecordValue
from rsdiff.degradations.resizing import resize, resize_reach


@config
class HazeConfig(DegradationConfig):
    """Bicubic under a veil of haze of random thickness."""

    thickest: float = 0.3
    """Share of white in the thickest haze."""

    def __post_init__(self) -> None:
        if not 0 <= self.thickest < 1:
            raise UserError(f"thickest={self.thickest} was given; give a share from 0 to below 1.")

    def build(self) -> Haze:
        return Haze(self)


@dataclass(frozen=True)
class HazeDecisions:
    """lr_size (h, w); thickness, share of white."""

    lr_size: tuple[int, int]
    thickness: float


@dataclass(frozen=True)
class Haze:
    """The `Degradation` of a `HazeConfig`."""

    config: HazeConfig

    @property
    def gives(self) -> frozenset[str]:
        return frozenset()

    def draw(
        self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1
    ) -> list[HazeDecisions]:
        thickness = float(torch.rand((), generator=generator)) * self.config.thickest
        return [HazeDecisions(lr_size, thickness)] * views

    def apply(self, hr: Tensor, decisions: Sequence[HazeDecisions]) -> Degraded:
        white = torch.tensor([entry.thickness for entry in decisions], device=hr.device)[:, None, None, None]
        small = resize(hr, decisions[0].lr_size, "matlab").clamp(0, 1)
        return Degraded(lr=small * (1 - white) + white, hr=hr)

    def reach(self, decisions: HazeDecisions, scale: float) -> Reach:
        return Reach(resize_reach("matlab", scale))

    def record(self, decisions: HazeDecisions) -> dict[str, RecordValue]:
        return {"haze": decisions.thickness}
