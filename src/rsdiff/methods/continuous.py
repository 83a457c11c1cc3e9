"""LIIF and MetaSR: an encoder at LR resolution and a query network that answers at any coordinate.

Source: yinboc/liif. Images are (x - 0.5) / 0.5 inside; the loss is the mean absolute error at queried pixels.
Training data may hold images of one scale, or of a scale each (`trainer.scale_per=image`): then the targets are extended to a common size
and `Batch.sizes` holds the true ones. Coordinates are those of the crop, not of the whole image.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem
from rsdiff.networks.coordinates import pixel_centres
from rsdiff.networks.edsr import EDSR, EDSRConfig
from rsdiff.networks.liif import LIIF, MetaSR
from rsdiff.networks.rdn import RDN, RDNConfig


@config
class QueryConfig(MethodConfig):
    """What methods with an encoder and queries have in common."""

    encoder: Literal["edsr", "rdn"] = "edsr"
    """Which encoder makes the feature map."""
    edsr: EDSRConfig = EDSRConfig()
    """Options of encoder=edsr."""
    rdn: RDNConfig = RDNConfig()
    """Options of encoder=rdn."""
    queries: int = 2304
    """Pixels per training image at which the loss is measured, drawn without replacement; 0 means all (images of one size only)."""
    chunk: int = 30_000
    """Pixels answered at once in restoration."""

    def __post_init__(self) -> None:
        if self.queries < 0 or self.chunk < 1:
            raise ValueError(f"queries={self.queries} and chunk={self.chunk} were given; choose 0 or more, and at least 1.")

    @property
    def any_scale(self) -> bool:
        return True

    def build_encoder(self, in_channels: int) -> EDSR | RDN:
        """Return the chosen encoder with fresh weights."""
        return self.edsr.build(in_channels) if self.encoder == "edsr" else self.rdn.build(in_channels)


@config
class LIIFConfig(QueryConfig):
    """LIIF. The defaults are EDSR-baseline-LIIF."""

    hidden: tuple[int, ...] = (256, 256, 256, 256)
    """Widths of the MLP's hidden layers."""
    ensemble: bool = True
    """Average the answers of the four nearest cells."""
    unfold: bool = True
    """A cell's feature includes its eight neighbours'."""
    cell: bool = True
    """The MLP is told the size of the queried pixel."""

    def build(self, problem: Problem) -> ContinuousRegression:
        encoder = self.build_encoder(problem.lr_bands)
        network = LIIF(encoder.out_channels, problem.bands, self.hidden, self.ensemble, self.unfold, self.cell)
        return ContinuousRegression(self, encoder, network)


@config
class MetaSRConfig(QueryConfig):
    """MetaSR with LIIF's encoder and protocol."""

    hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the network that predicts filters."""

    def build(self, problem: Problem) -> ContinuousRegression:
        encoder = self.build_encoder(problem.lr_bands)
        return ContinuousRegression(self, encoder, MetaSR(encoder.out_channels, problem.bands, self.hidden))


class ContinuousRegression(Method):
    """An encoder and a query network (see LIIF), trained together."""

    def __init__(self, options: QueryConfig, encoder: EDSR | RDN, network: LIIF | MetaSR) -> None:
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.network = network

    def predict(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the image (B, C, H, W) of `size` in [-1, 1], unbounded, of lr in [-1, 1]; `chunk` pixels at a time."""
        prepared = self.network.prepare(self.encoder(lr))
        coordinates = pixel_centres(size, device=lr.device).to(lr.dtype).flatten(0, 1).expand(len(lr), -1, -1)
        cell = cell_of(size).to(lr)
        parts = [self.network(prepared, asked, cell.expand_as(asked)) for asked in coordinates.split(self.options.chunk, dim=1)]
        return torch.cat(parts, dim=1).mT.unflatten(2, size)

    def losses(self, batch: Batch, group: str, noise: NoiseSource) -> Losses:
        hr, lr = 2 * batch.need("hr") - 1, 2 * batch.need("lr") - 1
        if self.options.queries == 0:
            loss = F.l1_loss(self.predict(lr, batch.size), hr)
            return Losses(loss, {"l1": loss.detach()})
        sizes = true_sizes(batch)
        order = noise.uniform((len(lr), hr.shape[-2] * hr.shape[-1]))  # smallest numbers first: pixels without replacement
        asked = [query(image, size, row, self.options.queries) for image, size, row in zip(hr, sizes, order, strict=True)]
        coordinates, colours, cells = (torch.stack(part) for part in zip(*asked, strict=True))
        answers = self.network(self.network.prepare(self.encoder(lr)), coordinates, cells)
        loss = F.l1_loss(answers, colours)
        return Losses(loss, {"l1": loss.detach()})

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return (self.predict(2 * batch.need("lr") - 1, batch.size) + 1) / 2


def cell_of(size: tuple[int, int]) -> Tensor:
    """Return height and width of a pixel of an image of `size` (H, W) in coordinates: (2 / H, 2 / W), (2,)."""
    return torch.tensor([2 / size[0], 2 / size[1]])


def true_sizes(batch: Batch) -> list[tuple[int, int]]:
    """Return the size (H, W) of every target before it was extended to the batch's size."""
    return batch.sizes or [batch.size] * len(batch)


def query(hr: Tensor, size: tuple[int, int], order: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return coordinates (count, 2), colours (count, C) and cells (count, 2) of pixels of the upper left `size` of hr (C, H, W).

    order  at least size[0] * size[1] numbers; the pixels of the smallest are taken
    Raises ValueError when the image has fewer pixels than are asked for.
    """
    pixels = size[0] * size[1]
    if pixels < count:
        raise ValueError(f"model.queries={count} and a target has {size[0]}x{size[1]} pixels; lower queries or raise trainer.patch.")
    chosen = order[:pixels].argsort()[:count].to(hr.device)
    coordinates = pixel_centres(size, device=hr.device).flatten(0, 1)[chosen].to(hr.dtype)
    colours = hr[:, : size[0], : size[1]].flatten(1)[:, chosen].mT
    return coordinates, colours, cell_of(size).to(hr).expand(count, -1)
