"""An encoder at LR resolution and a query network that answers at any coordinate: what LIIF and the methods after it share.

Source: yinboc/liif. Images are (x - 0.5) / 0.5 inside; the loss is the mean absolute error at queried pixels.
Training data may hold images of one scale, or of a scale each (`trainer.scale_per=image`): then the targets are extended to a common size
and `Batch.sizes` holds the true ones. Coordinates are those of the crop, not of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.sample import Batch
from rsdiff.data.transfer import to_device
from rsdiff.losses.images import masked_l1
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage
from rsdiff.networks.continuous_upsampling import pixel_centres
from rsdiff.networks.edsr import EDSR, EDSRConfig
from rsdiff.networks.layers import mirror_to
from rsdiff.networks.liif import QueryNetwork
from rsdiff.networks.rdn import RDN, RDNConfig
from rsdiff.networks.swinir import SwinIR, SwinIRConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


Parts = Callable[["ContinuousRegression", Tensor, tuple[int, int]], Tensor]
"""Of (method, lr, size): what `ContinuousRegression.predict` returns, made of parts by calls of it."""


@config
class QueryConfig(MethodConfig):
    """What methods with an encoder and queries have in common."""

    samples: ClassVar[bool] = False
    read_with: ClassVar[ReadWith] = {name: ("encoder", (name,)) for name in ("edsr", "rdn", "swinir")}
    answer_base: ClassVar[Literal["none", "bilinear"]] = "none"
    """What the network's answers are added to: nothing, or the bilinearly enlarged input."""

    encoder: Literal["edsr", "rdn", "swinir"] = "edsr"
    """Which encoder makes the feature map."""
    edsr: EDSRConfig = EDSRConfig()
    """Options of encoder=edsr."""
    rdn: RDNConfig = RDNConfig()
    """Options of encoder=rdn."""
    swinir: SwinIRConfig = SwinIRConfig()
    """Options of encoder=swinir."""
    queries: int = 2304
    """Pixels per training image at which the loss is measured, drawn without replacement; 0 means all (images of one size only)."""
    chunk: int = 30_000
    """Pixels answered at once in restoration."""
    largest_told: float = 0.0
    """Largest enlargement whose pixel size the network gets as input in restoration (LTE and LMF: 4); 0: always the true one."""

    def __post_init__(self) -> None:
        if self.queries < 0 or self.chunk < 1:
            raise UserError(f"queries={self.queries} and chunk={self.chunk} were given; choose 0 or more, and at least 1.")
        if self.largest_told < 0 or 0 < self.largest_told < 1:
            raise UserError(f"largest_told={self.largest_told} was given; choose an enlargement of at least 1, or 0 for no limit.")

    @property
    def any_scale(self) -> bool:
        return True

    def build_encoder(self, in_channels: int) -> EDSR | RDN | SwinIR:
        """Return the chosen encoder with fresh weights."""
        options: dict[str, EDSRConfig | RDNConfig | SwinIRConfig] = {"edsr": self.edsr, "rdn": self.rdn, "swinir": self.swinir}
        return options[self.encoder].build(in_channels)

    def query_network(self, feature_channels: int, bands: int) -> QueryNetwork:
        """Return the network that answers, with fresh weights."""
        raise NotImplementedError

    @property
    def by_parts(self) -> Parts | None:
        """How large images are restored; None restores them whole."""
        return None

    @property
    def normalisation(self) -> tuple[tuple[float, ...], float]:
        """What is subtracted from images in [0, 1], per band or for all, and what they are divided by then."""
        return (0.5,), 0.5

    def refuse(self, problem: Problem) -> str | None:
        if self.answer_base == "bilinear" and problem.bands != problem.lr_bands:
            return f"the model adds to the enlarged input, which has {problem.lr_bands} bands for {problem.bands}; choose model=liif."
        return None

    def build(self, problem: Problem) -> ContinuousRegression:
        encoder = self.build_encoder(problem.lr_bands)
        return ContinuousRegression(self, encoder, self.query_network(encoder.out_channels, problem.bands))


class ContinuousRegression(Method):
    """An encoder and a query network (see LIIF), trained together."""

    centre: Tensor

    def __init__(self, options: QueryConfig, encoder: nn.Module, network: QueryNetwork) -> None:
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.network = network
        self.base, self.by_parts = options.answer_base, options.by_parts
        centre, self.span = options.normalisation
        with torch.device("cpu"):
            self.register_buffer("centre", torch.tensor(centre)[:, None, None], persistent=False)

    def normalised(self, image: Tensor) -> Tensor:
        """Return an image in [0, 1] as the networks see it."""
        return (image - self.centre) / self.span

    def answer(self, lr: Tensor, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """Return colours (B, Q, C) at coordinates (B, Q, 2); lr (B, C, h, w) is what `prepared` was made of, cell (B, 2)."""
        colours = self.network(prepared, coordinates, cell)
        return colours + enlarged_at(lr, coordinates) if self.base == "bilinear" else colours

    def predict(self, lr: Tensor, size: tuple[int, int], cell: Tensor | None = None) -> Tensor:
        """Return the image (B, C, H, W) of `size`, unbounded and normalised as lr is; `chunk` pixels at a time.

        cell  (2,) height and width of the pixels that the network receives; None follows `largest_told`
        """
        h, w = lr.shape[-2:]
        cell = cell_of(size) * self._enlargement_factor((h, w), size) if cell is None else cell
        coordinates = pixel_centres(size, device=lr.device).to(lr.dtype).flatten(0, 1)
        extended = self.extended(lr)
        if extended is not lr:  # the image is the upper left part of [-1, 1]
            share = torch.tensor([h / extended.shape[-2], w / extended.shape[-1]])
            coordinates, cell = (coordinates + 1) * to_device(share, lr.device, lr.dtype) - 1, cell * share
        told = to_device(cell, lr.device, lr.dtype).expand(len(lr), -1)
        return self.render(extended, self.network.prepare(self.encoder(extended), told), coordinates, told).unflatten(2, size)

    def render(self, lr: Tensor, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """Return (B, C, Q) at coordinates (Q, 2), the same for all images; for the rest see `answer`."""
        asked = coordinates.expand(len(lr), -1, -1).split(self.options.chunk, dim=1)
        return torch.cat([self.answer(lr, prepared, part, cell) for part in asked], dim=1).mT

    def extended(self, lr: Tensor) -> Tensor:
        """Return the image to restore, with the mirrored border that published evaluations give SwinIR."""
        swinir = self.options.swinir
        if self.options.encoder != "swinir" or not swinir.mirror:
            return lr
        height, width = ((side // swinir.window + 1) * swinir.window for side in lr.shape[-2:])
        return mirror_to(lr, height, width)

    def _enlargement_factor(self, lr_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
        ratio = torch.tensor([size[0] / lr_size[0], size[1] / lr_size[1]])
        limit = self.options.largest_told
        return (ratio / limit).clamp_min(1) if limit else torch.ones(2)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        hr, lr = self.normalised(batch.need("hr")), self.normalised(batch.need("lr"))
        if self.options.queries == 0:
            coordinates = pixel_centres(batch.size, device=lr.device).to(lr.dtype).flatten(0, 1)
            cell = to_device(cell_of(batch.size), lr.device, lr.dtype).expand(len(lr), -1)
            made = self.render(lr, self.network.prepare(self.encoder(lr), cell), coordinates, cell)
            loss = masked_l1(made, hr.flatten(2), None if batch.valid is None else batch.valid.flatten(2))
            return {"restorer": Losses(loss, {"l1": loss.detach()})}
        sizes = true_sizes(batch)
        order = noise.uniform((len(lr), hr.shape[-2] * hr.shape[-1]), hr.device)  # smallest numbers first: pixels without replacement
        asked = [query(image, size, row, self.options.queries) for image, size, row in zip(hr, sizes, order, strict=True)]
        coordinates, colours = (torch.stack(part) for part in zip(*asked, strict=True))
        counts = None
        if batch.valid is not None:
            masks = zip(batch.valid, sizes, order, strict=True)
            counts = torch.stack([query(mask, size, row, self.options.queries)[1] for mask, size, row in masks])
        cells = to_device(torch.stack([cell_of(size) for size in sizes]), lr.device, lr.dtype)
        loss = masked_l1(self.answer(lr, self.network.prepare(self.encoder(lr), cells), coordinates, cells), colours, counts)
        return {"restorer": Losses(loss, {"l1": loss.detach()})}

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.restored(self.normalised(batch.need("lr")), batch.size) * self.span + self.centre

    def restored(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return `predict` of an image, whole or by parts."""
        return self.predict(lr, size) if self.by_parts is None else self.by_parts(self, lr, size)


def enlarged_at(image: Tensor, coordinates: Tensor) -> Tensor:
    """Return (B, Q, C), image (B, C, h, w) bilinearly at coordinates (B, Q, 2); its border goes on beyond it."""
    grid = coordinates.flip(-1)[:, None]
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0].mT


def cell_of(size: tuple[int, int]) -> Tensor:
    """Return height and width of a pixel of an image of `size` (H, W) in coordinates: (2 / H, 2 / W), (2,)."""
    return torch.tensor([2 / size[0], 2 / size[1]])


def true_sizes(batch: Batch) -> list[tuple[int, int]]:
    """Return the size (H, W) of every target before it was extended to the batch's size."""
    return batch.sizes or [batch.size] * len(batch)


def query(hr: Tensor, size: tuple[int, int], order: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return coordinates (count, 2) and colours (count, C) of pixels of the upper left `size` of hr (C, H, W).

    order  at least size[0] * size[1] numbers; the pixels of the smallest are taken
    Raises UserError when the image has fewer pixels than are asked for.
    """
    pixels = size[0] * size[1]
    if pixels < count:
        raise UserError(f"model.queries={count} and a target has {size[0]}x{size[1]} pixels; lower queries or raise trainer.patch.")
    chosen = order[:pixels].argsort()[:count]
    coordinates = pixel_centres(size, device=hr.device).flatten(0, 1)[chosen].to(hr.dtype)
    colours = hr[:, : size[0], : size[1]].flatten(1)[:, chosen].mT
    return coordinates, colours
