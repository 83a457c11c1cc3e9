"""Taking some of the bands: the degradation of spectral super-resolution at its simplest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.degradations.base import DegradationConfig, Degraded, RecordValue, common_lr_size
from rsdiff.degradations.resizing import ResizeBackend, resize


@config
class BandsConfig(DegradationConfig):
    """Some bands of the target, nothing random."""

    bands: tuple[int, ...] = (5, 12, 23)
    "bands taken, counted from 1 and in this order; the default is SCDM's (432, 532, 689 nm of the 48 bands of DFC2018)"
    resize: ResizeBackend = "matlab"
    "back-end that shrinks them where the scale is not 1, see rsdiff.degradations.resizing"

    def __post_init__(self) -> None:
        if not self.bands or min(self.bands) < 1:
            raise ValueError(f"bands is {list(self.bands)}; name at least one, counted from 1.")

    def lr_bands(self, bands: int) -> int:
        if max(self.bands) > bands:
            raise ValueError(f"degradation.bands={list(self.bands)} takes band {max(self.bands)} of images with {bands}; choose others.")
        return len(self.bands)

    def build(self) -> Bands:
        return Bands(self)


@dataclass(frozen=True)
class BandsDecisions:
    """lr_size  (h, w) to resize to."""

    lr_size: tuple[int, int]


@dataclass(frozen=True)
class Bands:
    """The `Degradation` of a `BandsConfig`."""

    config: BandsConfig

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"lr_clean"})

    def draw(
        self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1
    ) -> list[BandsDecisions]:
        self.config.lr_bands(hr_shape[0])
        return [BandsDecisions(lr_size)] * views

    def apply(self, hr: Tensor, decisions: Sequence[BandsDecisions]) -> Degraded:
        taken = hr[:, [band - 1 for band in self.config.bands]]
        lr = at_size(taken, common_lr_size(len(hr), [d.lr_size for d in decisions]), self.config.resize)
        return Degraded(lr=lr, hr=hr, lr_clean=lr)

    def record(self, decisions: BandsDecisions) -> dict[str, RecordValue]:
        return {}


def at_size(image: Tensor, size: tuple[int, int], how: ResizeBackend) -> Tensor:
    """Return an image (N, C, H, W) resized to (h, w); itself where it has that size."""
    return image if tuple(image.shape[-2:]) == size else resize(image, size, how)
