"""What objectives on images share: a network on a base, its training input, and restoration by tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig
from rsdiff.methods.base import Method, Problem, Stage, require_scale
from rsdiff.networks.halo_tiles import HaloTilesConfig
from rsdiff.networks.layers import zeroed
from rsdiff.networks.restorers import RestorerConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig

InitialWeights = Literal["kaiming", "orthogonal"]
ORTHOGONAL_GAIN = 0.2


class Restoring(Method):
    """A method that estimates the image in one evaluation; subclasses add the objective.

    network  maps (B, c, h, w) to (B, C, h scale, w scale)
    base     what the network's answer is added to
    """

    def __init__(
        self,
        restorer: RestorerConfig,
        base: BaseConfig,
        tiles: HaloTilesConfig,
        problem: Problem,
        initial: InitialWeights = "kaiming",
    ) -> None:
        super().__init__()
        self.scale, self.multiple, self.tiles = int(problem.scale), restorer.size_multiple(problem), tiles
        self.network = restorer.build_network(problem)
        self.base = base.build_base(problem)
        initialise(self.network, initial)
        if self.base.adds:
            zeroed(restorer.last_layer(self.network))

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
        if self.training and self.base.learns:
            self.base.observe(lr, batch.need("hr"), batch.whole_pixels)
        return lr

    def after_step(self, stage: Stage, step: int) -> None:
        self.base.settle()

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        return self.tiles.run(self.estimate, batch.need("lr"), self.scale, self.multiple)

    def pixel_multiple(self) -> int:
        return self.multiple


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
