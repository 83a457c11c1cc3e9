"""Networks that enlarge by one whole number and are trained for pixels: the mean absolute error, and restoration by tiles."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.losses.masked import masked_l1
from rsdiff.methods.base import Losses, Method, Stage
from rsdiff.methods.whole_scale import require_scale
from rsdiff.networks.halo_tiles import HaloTilesConfig


class PixelRegression(Method):
    """A network and how it is trained and used.

    network   maps (B, c, h, w) to (B, C, h scale, w scale)
    multiple  the network restores images whose sides are multiples of so many LR pixels; others are extended by reflection and cropped
    """

    def __init__(self, network: nn.Module, scale: int, multiple: int, tiles: HaloTilesConfig) -> None:
        super().__init__()
        self.scale, self.multiple, self.tiles = scale, multiple, tiles
        self.network = network

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_scale(batch, self.scale)
        loss = masked_l1(self.network(batch.need("lr")), batch.need("hr"), batch.valid)
        return {"restorer": Losses(loss, {"l1": loss.detach()})}

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        return self.tiles.run(self.network, batch.need("lr"), self.scale, self.multiple)

    def pixel_multiple(self) -> int:
        return self.multiple
