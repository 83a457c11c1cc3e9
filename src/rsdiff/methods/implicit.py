"""LIIF and MetaSR, and after them LTE, LMF and CiaoSR: query networks on the same encoders, with the same training and restoration.

Unlike the published code, LMF-CiaoSR is trained with the enlarged image added to its answers, as it is used (there, only evaluation adds
it), and one pixel size per image is given instead of one per query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.methods.base import Problem
from rsdiff.methods.cmsr import ByDifficulty, CMSRConfig
from rsdiff.methods.continuous import ContinuousRegression, QueryConfig
from rsdiff.networks.ciaosr import CiaoSR, CiaoSRNetConfig
from rsdiff.networks.liif import LIIF, LIIFNetConfig, MetaSR, MetaSRNetConfig
from rsdiff.networks.lmf import LMFLIIF, LMFLTE, LMFCiaoSR, LMFCiaoSRNetConfig, LMFLIIFNetConfig, LMFLTENetConfig
from rsdiff.networks.lte import LTE, LTENetConfig
from rsdiff.networks.swinir import SwinIRConfig

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
TILED_UP_TO = 4  # enlargement


@config
class LIIFConfig(LIIFNetConfig, QueryConfig):
    """LIIF. The defaults are EDSR-baseline-LIIF."""

    def query_network(self, feature_channels: int, bands: int) -> LIIF:
        return LIIF(self, feature_channels, bands)


@config
class MetaSRConfig(MetaSRNetConfig, QueryConfig):
    """MetaSR with LIIF's encoder and protocol."""

    def query_network(self, feature_channels: int, bands: int) -> MetaSR:
        return MetaSR(self, feature_channels, bands)


@config
class LTEConfig(LTENetConfig, QueryConfig):
    """LTE. The defaults are EDSR-baseline-LTE."""

    answer_base: ClassVar[Literal["none", "bilinear"]] = "bilinear"

    largest_told: float = 4.0
    """Largest enlargement whose pixel size the network gets as input in restoration; 0: always the true one."""

    def __post_init__(self) -> None:
        QueryConfig.__post_init__(self)
        LTENetConfig.__post_init__(self)

    def query_network(self, feature_channels: int, bands: int) -> LTE:
        return LTE(self, feature_channels, bands)


@config
class LMFConfig(QueryConfig):
    """What the three methods of LMF have in common besides their networks."""

    cmsr: CMSRConfig = CMSRConfig()
    """Restoration of easy parts at a smaller scale."""
    largest_told: float = 4.0
    """Largest enlargement whose pixel size the network gets as input in restoration; 0: always the true one."""

    @property
    def by_parts(self) -> ByDifficulty:
        return ByDifficulty(self.cmsr)


@config
class LMFLTEConfig(LMFLTENetConfig, LMFConfig):
    """LMF-LTE."""

    answer_base: ClassVar[Literal["none", "bilinear"]] = "bilinear"

    def __post_init__(self) -> None:
        LMFConfig.__post_init__(self)
        LMFLTENetConfig.__post_init__(self)

    def query_network(self, feature_channels: int, bands: int) -> LMFLTE:
        return LMFLTE(self, feature_channels, bands)


@config
class LMFLIIFConfig(LMFLIIFNetConfig, LMFConfig):
    """LMF-LIIF."""

    def __post_init__(self) -> None:
        LMFConfig.__post_init__(self)
        LMFLIIFNetConfig.__post_init__(self)

    def query_network(self, feature_channels: int, bands: int) -> LMFLIIF:
        return LMFLIIF(self, feature_channels, bands)


@config
class LMFCiaoSRConfig(LMFCiaoSRNetConfig, LMFConfig):
    """LMF-CiaoSR."""

    answer_base: ClassVar[Literal["none", "bilinear"]] = "bilinear"

    def __post_init__(self) -> None:
        LMFConfig.__post_init__(self)
        LMFCiaoSRNetConfig.__post_init__(self)

    def query_network(self, feature_channels: int, bands: int) -> LMFCiaoSR:
        return LMFCiaoSR(self, feature_channels, bands)


@config
class CiaoSRConfig(CiaoSRNetConfig, QueryConfig):
    """CiaoSR. The defaults are EDSR-CiaoSR."""

    answer_base: ClassVar[Literal["none", "bilinear"]] = "bilinear"
    read_with: ClassVar[ReadWith] = {"tile_overlap": ("tile", (ABOVE_0,))}

    centre: Literal["div2k", "half"] = "div2k"
    """What is subtracted from images: the mean of DIV2K's bands, or 0.5 before a division by 0.5 (LMF's copy)."""
    swinir: SwinIRConfig = SwinIRConfig(out_channels=0, mirror=False)
    """Options of encoder=swinir."""
    tile: int = 192
    """Restoration by whole factors up to 4 works in parts of so many LR pixels a side; 0 means on the whole image."""
    tile_overlap: int = 32
    """LR pixels that neighbouring parts share; they are averaged."""

    def __post_init__(self) -> None:
        QueryConfig.__post_init__(self)
        if self.tile and not 0 <= self.tile_overlap < self.tile:
            raise UserError(f"tile_overlap={self.tile_overlap} was given with tile={self.tile}; choose 0 or more and less than the tile.")

    def refuse(self, problem: Problem) -> str | None:
        if self.centre == "div2k" and problem.bands != len(DIV2K_MEAN):
            return f"model.centre=div2k is the mean of three bands and the images have {problem.bands}; set model.centre=half."
        return QueryConfig.refuse(self, problem)

    def query_network(self, feature_channels: int, bands: int) -> CiaoSR:
        return CiaoSR(self, feature_channels, bands)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], float]:
        return (DIV2K_MEAN, 1.0) if self.centre == "div2k" else ((0.5,), 0.5)

    @property
    def by_parts(self) -> Overlapping | None:
        return Overlapping(self.tile, self.tile_overlap) if self.tile else None


@dataclass(frozen=True)
class Overlapping:
    """Restores large images in overlapping parts, each a query of its own; `tile` and `overlap` in LR pixels."""

    tile: int
    overlap: int

    def __call__(self, method: ContinuousRegression, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return `predict` of the parts, averaged where they overlap; of the whole image for other scales than whole ones up to 4."""
        h, w = lr.shape[-2:]
        scale = size[0] // h
        tile = min(self.tile, h, w)
        if size != (h * scale, w * scale) or scale > TILED_UP_TO:
            return method.predict(lr, size)
        total, count = lr.new_zeros(len(lr), lr.shape[1], *size), lr.new_zeros(size)
        for top in tile_origins(h, tile, self.overlap):
            for left in tile_origins(w, tile, self.overlap):
                rows, columns = (slice(first * scale, (first + tile) * scale) for first in (top, left))
                part = lr[..., top : top + tile, left : left + tile]
                total[..., rows, columns] += method.predict(part, (tile * scale, tile * scale))
                count[rows, columns] += 1
        return total / count


def tile_origins(length: int, tile: int, overlap: int) -> list[int]:
    """Return where parts of `tile` pixels begin that cover `length`: equidistant, the last one flush with the end."""
    return [*range(0, length - tile, max(tile - overlap, 1)), length - tile]
