"""LTE, LMF and CiaoSR: query networks after LIIF, on the same encoders, with the same training and restoration.

Unlike the published code, LMF-CiaoSR is trained with the enlarged image added to its answers, as it is used (there, only evaluation adds
it), and one pixel size per image is given instead of one per query.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.cmsr import CMSRQueryConfig, CMSRRegression
from rsdiff.methods.continuous import ContinuousRegression, QueryConfig
from rsdiff.networks.ciaosr import CiaoSR
from rsdiff.networks.lmf import LMFLIIF, LMFLTE, LMFCiaoSR
from rsdiff.networks.lte import LTE, Pairing
from rsdiff.networks.swinir import SwinIRConfig

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
TILED_UP_TO = 4  # enlargement


@config
class ResidualQueryConfig(QueryConfig):
    """Methods whose answers are added to the enlarged input."""

    def refuse(self, problem: Problem) -> str | None:
        if problem.bands != problem.lr_bands:
            return f"the model adds to the enlarged input, which has {problem.lr_bands} bands for {problem.bands}; choose model=liif."
        return None


@config
class LTEConfig(ResidualQueryConfig):
    """LTE. The defaults are EDSR-baseline-LTE."""

    width: int = 256
    """Amplitudes and frequencies per cell, even."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the MLP's hidden layers."""
    pairing: Pairing = "neighbours"
    """Channels that make a frequency's row and column: neighbours (LTE), or one of either half (LTE+)."""
    largest_told: float = 4.0
    """Largest enlargement whose pixel size the network gets as input in restoration; 0: always the true one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_even("width", self.width)

    def build(self, problem: Problem) -> ContinuousRegression:
        encoder = self.build_encoder(problem.lr_bands)
        network = LTE(encoder.out_channels, problem.bands, self.width, self.hidden, self.pairing)
        return ContinuousRegression(self, encoder, network, residual=True)


@config
class LMFConfig(CMSRQueryConfig):
    """What the three methods of LMF have in common. The defaults are those of EDSR-baseline."""

    hidden: tuple[int, ...] = (288,)
    """Widths of the latent MLP's hidden layers."""
    render_width: int = 16
    """Width of the rendering MLP."""
    render_depth: int = 8
    """Hidden layers of the rendering MLP."""
    compress: bool = True
    """Render from codes that the latent MLP makes, instead of the features themselves."""
    largest_told: float = 4.0
    """Largest enlargement whose pixel size the network gets as input in restoration; 0: always the true one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_even("render_width", self.render_width)


@config
class LMFLTEConfig(LMFConfig, ResidualQueryConfig):
    """LMF-LTE."""

    width: int = 128
    """Amplitudes and frequencies per cell, even."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_even("width", self.width)

    def build(self, problem: Problem) -> CMSRRegression:
        encoder = self.build_encoder(problem.lr_bands)
        network = LMFLTE(encoder.out_channels, problem.bands, self.width, self.hidden, self.render_width, self.render_depth, self.compress)
        return CMSRRegression(self, encoder, network, residual=True)


@config
class LMFLIIFConfig(LMFConfig):
    """LMF-LIIF."""

    hidden: tuple[int, ...] = (208,)
    """Widths of the latent MLP's hidden layers."""
    render_depth: int = 6
    """Hidden layers of the rendering MLP; published with SwinIR: 8."""
    ensemble: bool = True
    """Average the answers of the four nearest cells."""
    unfold: bool = True
    """The latent MLP sees a cell's eight neighbours."""
    cell: bool = True
    """The size of the queried pixel is an input of both MLPs."""

    def build(self, problem: Problem) -> CMSRRegression:
        encoder = self.build_encoder(problem.lr_bands)
        network = LMFLIIF(
            encoder.out_channels,
            problem.bands,
            self.hidden,
            self.render_width,
            self.render_depth,
            self.compress,
            self.ensemble,
            self.unfold,
            self.cell,
        )
        return CMSRRegression(self, encoder, network)


@config
class LMFCiaoSRConfig(LMFConfig, ResidualQueryConfig):
    """LMF-CiaoSR."""

    query_hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the MLP that makes the attention's queries."""
    attention_hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the MLPs that weigh keys and values."""
    temperature: float = 1.0
    """Divides the attention's scores."""
    scales: tuple[Literal[2, 3, 4], ...] = (2,)
    """Scales of the non-local features; without any there are none."""
    attention_tile: int = 48
    """Non-local features are found within parts of about so many LR pixels a side; 0 means in the whole image."""

    def build(self, problem: Problem) -> CMSRRegression:
        encoder = self.build_encoder(problem.lr_bands)
        network = LMFCiaoSR(
            encoder.out_channels,
            problem.bands,
            self.query_hidden,
            self.attention_hidden,
            self.hidden,
            self.render_width,
            self.render_depth,
            self.compress,
            self.temperature,
            self.scales,
            self.attention_tile,
        )
        return CMSRRegression(self, encoder, network, residual=True)


@config
class CiaoSRConfig(ResidualQueryConfig):
    """CiaoSR. The defaults are EDSR-CiaoSR."""

    hidden: tuple[int, ...] = (256, 256, 256, 256)
    """Widths of the hidden layers of the three MLPs."""
    neighbourhood: Literal[1, 2, 3] = 2
    """Cells a side that are attended to."""
    unfold: bool = True
    """A cell's feature includes its eight neighbours'."""
    temperature: float = 1.0
    """Divides the attention's scores."""
    scales: tuple[Literal[2, 3, 4], ...] = (2,)
    """Scales of the non-local features; without any there are none."""
    attention_tile: int = 0
    """Non-local features are found within parts of about so many LR pixels a side (LMF's copy: 48); 0 means in the whole image."""
    centre: Literal["div2k", "half"] = "div2k"
    """What is subtracted from images: the mean of DIV2K's bands, or 0.5 before a division by 0.5 (LMF's copy)."""
    swinir: SwinIRConfig = SwinIRConfig(out_channels=0, mirror=False)
    """Options of encoder=swinir."""
    tile: int = 192
    """Restoration by whole factors up to 4 works in parts of so many LR pixels a side; 0 means on the whole image."""
    tile_overlap: int = 32
    """LR pixels that neighbouring parts share; they are averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile and not 0 <= self.tile_overlap < self.tile:
            raise UserError(f"tile_overlap={self.tile_overlap} was given with tile={self.tile}; choose 0 or more and less than the tile.")

    def refuse(self, problem: Problem) -> str | None:
        if self.centre == "div2k" and problem.bands != len(DIV2K_MEAN):
            return f"model.centre=div2k is the mean of three bands and the images have {problem.bands}; set model.centre=half."
        return super().refuse(problem)

    def build(self, problem: Problem) -> CiaoSRRegression:
        encoder = self.build_encoder(problem.lr_bands)
        network = CiaoSR(
            encoder.out_channels,
            problem.bands,
            self.hidden,
            self.neighbourhood,
            self.temperature,
            self.scales,
            self.attention_tile,
            self.unfold,
        )
        centre, span = (DIV2K_MEAN, 1.0) if self.centre == "div2k" else ((0.5,), 0.5)
        return CiaoSRRegression(self, encoder, network, residual=True, centre=centre, span=span)


class CiaoSRRegression(ContinuousRegression):
    """CiaoSR restores large images in overlapping parts, each a query of its own."""

    options: CiaoSRConfig

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.predict_tiled(self.normalised(batch.need("lr")), batch.size) * self.span + self.centre

    def predict_tiled(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return `predict` of overlapping parts, averaged where they overlap; of the whole image where `tile` does not apply."""
        h, w = lr.shape[-2:]
        scale = size[0] // h
        tile = min(self.options.tile, h, w)
        if not tile or size != (h * scale, w * scale) or scale > TILED_UP_TO:
            return self.predict(lr, size)
        total, count = lr.new_zeros(len(lr), lr.shape[1], *size), lr.new_zeros(size)
        for top in tile_origins(h, tile, self.options.tile_overlap):
            for left in tile_origins(w, tile, self.options.tile_overlap):
                rows, columns = (slice(first * scale, (first + tile) * scale) for first in (top, left))
                part = lr[..., top : top + tile, left : left + tile]
                total[..., rows, columns] += self.predict(part, (tile * scale, tile * scale))
                count[rows, columns] += 1
        return total / count


def tile_origins(length: int, tile: int, overlap: int) -> list[int]:
    """Return where parts of `tile` pixels begin that cover `length`: equidistant, the last one flush with the end."""
    return [*range(0, length - tile, max(tile - overlap, 1)), length - tile]


def _require_even(name: str, value: int) -> None:
    if value < 2 or value % 2:
        raise UserError(f"{name}={value} was given; choose an even number of at least 2.")
