"""What objectives on images have in common: a network on a base, its training input, and restoration whole or by tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import Base, BaseConfig
from rsdiff.methods.base import Method, Problem, Stage, require_scale
from rsdiff.networks.restorers import RestorerConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


@config
class HaloTilesConfig:
    """How an image is given to the network; in LR pixels."""

    read_with: ClassVar[ReadWith] = {"halo": ("tile", (ABOVE_0,))}

    tile: int = 0
    """Side of the tiles; 0 restores the image whole."""
    halo: int = 10
    """Pixels around a tile that the network sees besides, as far as the image reaches."""
    margin: int = 0
    """Pixels appended at the bottom and right by reflection and cut off after (Real-ESRGAN's pre_pad)."""

    def __post_init__(self) -> None:
        if min(self.tile, self.halo, self.margin) < 0:
            raise UserError(f"tile={self.tile}, halo={self.halo}, margin={self.margin} were given; choose numbers of 0 or more.")

    def run(self, network: Callable[[Tensor], Tensor], images: Tensor, scale: int, multiple: int = 1) -> Tensor:
        """Return the enlarged images (B, C', h scale, w scale) of images (B, C, h, w).

        network   maps (B, C, y, x) to (B, C', y scale, x scale) where y and x are multiples of `multiple`
        Raises UserError for tiles that would break the multiple, and for images too small to be extended by reflection.
        """
        if self.tile and (self.tile % multiple or self.halo % multiple):
            raise UserError(
                f"tiles of {self.tile} with a halo of {self.halo} do not fit a network that works on multiples of {multiple} pixels; "
                f"choose multiples of {multiple}."
            )
        h, w = int(images.shape[-2]), int(images.shape[-1])
        extended = _extend(images, self.margin, self.margin)
        extended = _extend(extended, -extended.shape[-2] % multiple, -extended.shape[-1] % multiple)
        made = _by_tiles(network, extended, scale, self.tile, self.halo) if self.tile else network(extended)
        return made[..., : h * scale, : w * scale]


def _extend(images: Tensor, rows: int, columns: int) -> Tensor:
    if rows >= images.shape[-2] or columns >= images.shape[-1]:
        raise UserError(
            f"an image of {images.shape[-2]}x{images.shape[-1]} is too small to be extended by {rows} rows and {columns} columns by "
            "reflection; lower the margin or give larger images."
        )
    return F.pad(images, (0, columns, 0, rows), mode="reflect") if rows or columns else images


def _by_tiles(network: Callable[[Tensor], Tensor], images: Tensor, scale: int, tile: int, halo: int) -> Tensor:
    h, w = int(images.shape[-2]), int(images.shape[-1])
    result: Tensor | None = None
    for row in range(math.ceil(h / tile)):
        for column in range(math.ceil(w / tile)):
            top, left = row * tile, column * tile
            bottom, right = min(top + tile, h), min(left + tile, w)
            first_row, first_column = max(top - halo, 0), max(left - halo, 0)
            made = network(images[..., first_row : min(bottom + halo, h), first_column : min(right + halo, w)])
            if result is None:
                result = made.new_empty((*made.shape[:2], h * scale, w * scale))
            own_top, own_left = (top - first_row) * scale, (left - first_column) * scale
            height, width = (bottom - top) * scale, (right - left) * scale
            result[..., top * scale : bottom * scale, left * scale : right * scale] = made[
                ..., own_top : own_top + height, own_left : own_left + width
            ]
    assert result is not None
    return result


InitialWeights = Literal["kaiming", "orthogonal"]
ORTHOGONAL_GAIN = 0.2


class ImageNetwork:
    """A network on a base: what it is shown in training, what it estimates in one evaluation, and restoration whole or by tiles.

    network  maps (B, c, h, w) to (B, C, h scale, w scale)
    base     what the network's answer is added to
    Not a module: the method `owner` gets and owns both, and what is put in their place there is used here.
    """

    def __init__(
        self,
        owner: nn.Module,
        restorer: RestorerConfig,
        base: BaseConfig,
        tiles: HaloTilesConfig,
        problem: Problem,
        initial: InitialWeights = "kaiming",
    ) -> None:
        self.scale, self.multiple, self.tiles = int(problem.scale), restorer.size_multiple(problem), tiles
        self._owner = owner
        owner.add_module("network", restorer.build_network(problem))
        owner.add_module("base", base.build_base(problem))
        initialise(self.network, initial)
        if self.base.adds:
            restorer.answer_zero(self.network)

    @property
    def network(self) -> nn.Module:
        """The owner's network."""
        return self._owner.get_submodule("network")

    @property
    def base(self) -> Base:
        """The owner's base."""
        return cast(Base, self._owner.get_submodule("base"))

    def estimate(self, lr: Tensor) -> Tensor:
        """Return the image (B, C, H, W) of lr (B, c, h, w), not clamped; sides are multiples of `multiple`."""
        return self.base.onto(self.network(lr), lr)

    def training_input(self, batch: Batch) -> Tensor:
        """Return the LR images of a training batch, after showing them to the base; raises UserError for sizes the network has not."""
        require_scale(batch, self.scale)
        h, w = batch.lr_size
        if h % self.multiple or w % self.multiple:
            raise UserError(
                f"training inputs of {h}x{w} pixels were given to a network that needs multiples of {self.multiple}; choose trainer.patch "
                f"as a multiple of {self.multiple * self.scale}."
            )
        lr = batch.need("lr")
        if self.network.training and self.base.learns:
            self.base.observe(lr, batch.need("hr"), batch.whole_pixels)
        return lr

    def restore(self, batch: Batch, answer: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return (B, C, H, W) in [0, 1], not clamped: `estimate`, or another answer of this size."""
        require_scale(batch, self.scale)
        return self.tiles.run(answer or self.estimate, batch.need("lr"), self.scale, self.multiple)


class ImageMethod(Method):
    """What objectives on one image network share: restoration, and the base that settles after every step."""

    images: ImageNetwork
    network: nn.Module
    base: Base

    def after_step(self, stage: Stage, step: int) -> None:
        self.base.settle()

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.images.restore(batch)

    def pixel_multiple(self) -> int:
        return self.images.multiple


def initialise(network: nn.Module, rule: InitialWeights) -> None:
    """Replace the weights of every convolution as KAIR's training does: orthogonal rows of length 0.2, biases 0; 'kaiming' leaves them.

    Source: KAIR's define_weights with init_type orthogonal and init_gain 0.2.
    """
    if rule == "kaiming":
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, gain=ORTHOGONAL_GAIN)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
