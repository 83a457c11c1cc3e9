"""Taking some of the bands: the degradation of spectral super-resolution at its simplest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.transfer import constant
from rsdiff.degradations.base import DegradationConfig, Degraded, Reach, RecordValue, common_lr_size
from rsdiff.degradations.resizing import ResizeBackend, resize, resize_reach


@config
class BandsConfig(DegradationConfig):
    """Some bands of the target, nothing random."""

    bands: tuple[int, ...] = (5, 12, 23)
    "bands taken, counted from 1 and in this order; the default is SCDM's (432, 532, 689 nm of the 48 bands of DFC2018)"
    resize: ResizeBackend = "matlab"
    "back-end that shrinks them where the scale is not 1, see rsdiff.degradations.resizing"

    def __post_init__(self) -> None:
        if not self.bands or min(self.bands) < 1:
            raise UserError(f"bands is {list(self.bands)}; name at least one, counted from 1.")

    def lr_bands(self, bands: int) -> int:
        if max(self.bands) > bands:
            raise UserError(f"degradation.bands={list(self.bands)} takes band {max(self.bands)} of images with {bands}; choose others.")
        return len(self.bands)

    def reduced(self, hr: Tensor) -> Tensor:
        """Return the bands of hr (N, C, H, W) that are taken."""
        self.lr_bands(hr.shape[1])
        return hr.index_select(1, constant(tuple(band - 1 for band in self.bands), hr.device, torch.int64))

    def build(self) -> FewerBands:
        return FewerBands(self)


class BandReduction(Protocol):
    """Options that say which bands are made of those of the target."""

    @property
    def resize(self) -> ResizeBackend: ...

    def reduced(self, hr: Tensor) -> Tensor:
        """Return (N, c, H, W) of hr (N, C, H, W); raises UserError for bands that it cannot be made of."""
        ...


@dataclass(frozen=True)
class FewerBandsDecisions:
    """lr_size  (h, w) to resize to."""

    lr_size: tuple[int, int]


@dataclass(frozen=True)
class FewerBands:
    """The `Degradation` that makes few bands of many, then resizes where the scale is not 1."""

    config: BandReduction

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"lr_clean"})

    def draw(
        self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1
    ) -> list[FewerBandsDecisions]:
        return [FewerBandsDecisions(lr_size)] * views

    def apply(self, hr: Tensor, decisions: Sequence[FewerBandsDecisions]) -> Degraded:
        size = common_lr_size(len(hr), [d.lr_size for d in decisions])
        few = self.config.reduced(hr)
        lr = few if tuple(few.shape[-2:]) == size else resize(few, size, self.config.resize)
        return Degraded(lr=lr, hr=hr, lr_clean=lr)

    def reach(self, decisions: FewerBandsDecisions, scale: float) -> Reach:
        return Reach(0 if scale == 1 else resize_reach(self.config.resize, scale), bands=True)

    def record(self, decisions: FewerBandsDecisions) -> dict[str, RecordValue]:
        return {}
