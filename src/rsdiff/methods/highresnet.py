"""HighRes-net: several LR images of one place, fused pair by pair into one of the target's size.

Source: Deudon et al., arXiv 2002.06460, and WorldStrat (Cornebise et al., 2022), which trains it on Sentinel-2 series. Every image is
encoded beside the median of all; features are fused by halves until one is left, in which images (or pixels) that are missing count
nothing. Unlike the published code: no ShiftNet, which registers the target to the result, and the number of images is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.losses.images import ImageLossConfig
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_scale
from rsdiff.networks.layers import zeroed

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


@config
class HighResNetConfig(MethodConfig):
    """HighRes-net. The defaults are the published sizes."""

    samples: ClassVar[bool] = False

    width: int = 64
    """Channels of the features."""
    blocks: int = 2
    """Residual blocks of the encoder, which all images share."""
    loss: ImageLossConfig = ImageLossConfig(l1=0.0, mse=1.0)
    """Weights of the objective's terms."""
    base: Annotated[BaseConfig, Ours("weights")] = NoBaseConfig()
    """What the network's answer is added to (ours): the enlarged LR, the first of the images; none as published."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 0:
            raise UserError(f"width={self.width} and blocks={self.blocks} make no network; choose at least 1, and 0 or more.")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr", "looks"})

    def refuse(self, problem: Problem) -> str | None:
        return problem.refuse_fraction("highresnet") or self.base.refuse_base("highresnet", problem)

    def build(self, problem: Problem) -> HighResNet:
        return HighResNet(self, problem)


def layer(before: int, width: int) -> nn.Sequential:
    """Return a 3x3 convolution and its PReLU."""
    return nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.PReLU())


class Residual(nn.Module):
    """x plus two layers of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(layer(width, width), layer(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class FusionNetwork(nn.Module):
    """forward(looks (B, K, c, h, w), known (B, K, 1, h, w) of 0/1) -> (B, bands, h scale, w scale)."""

    def __init__(self, options: HighResNetConfig, lr_bands: int, bands: int, scale: int) -> None:
        super().__init__()
        width = options.width
        blocks = [Residual(width) for _ in range(options.blocks)]
        self.encode = nn.Sequential(layer(2 * lr_bands, width), *blocks, nn.Conv2d(width, width, 3, padding=1))
        self.fuse = nn.Sequential(Residual(2 * width), layer(2 * width, width))
        self.enlarge = nn.Sequential(nn.ConvTranspose2d(width, width, scale, stride=scale), nn.PReLU())
        self.last = nn.Conv2d(width, bands, 1)

    def forward(self, looks: Tensor, known: Tensor) -> Tensor:
        count = looks.shape[1]
        # The median is that of known values only; where nothing is known, that of what was filled in.
        seen = torch.where((known > 0.5) | (known.amax(1, keepdim=True) < 0.5), looks, torch.nan)
        middle = seen.nanmedian(1, keepdim=True).values.expand_as(looks)
        features = self.encode(torch.cat([looks, middle], dim=2).flatten(0, 1)).unflatten(0, (len(looks), count))
        padding = (1 << (count - 1).bit_length()) - count
        features, known = (F.pad(x, (0, 0, 0, 0, 0, 0, 0, padding)) for x in (features, known))
        while features.shape[1] > 1:
            half = features.shape[1] // 2
            first, second = features[:, :half], features[:, half:].flip(1)
            joined = self.fuse(torch.cat([first, second], dim=2).flatten(0, 1)).unflatten(0, (len(looks), half))
            features = first + known[:, half:].flip(1) * joined
            known = torch.maximum(known[:, :half], known[:, half:].flip(1))
        image: Tensor = self.last(self.enlarge(features[:, 0]))
        return image


class HighResNet(Method):
    """See the module."""

    def __init__(self, options: HighResNetConfig, problem: Problem) -> None:
        super().__init__()
        self.scale, self.loss = int(problem.scale), options.loss
        self.network = FusionNetwork(options, problem.lr_bands, problem.bands, self.scale)
        self.base = options.base.build_base(problem)
        if self.base.adds:
            zeroed(self.network.last)

    def estimate(self, batch: Batch) -> Tensor:
        """Return the image (B, C, H, W) of a batch's looks."""
        require_scale(batch, self.scale)
        looks = batch.modality("looks")
        known = torch.ones_like(looks.values[:, :, :1]) if looks.valid is None else looks.valid.amin(2, keepdim=True)
        return self.base.onto(self.network(looks.filled, known), batch.need("lr"))

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        if self.training and self.base.learns:
            self.base.observe(batch.need("lr"), batch.need("hr"), batch.whole_pixels)
        return {"restorer": Losses.weighted(self.loss.terms(self.estimate(batch), batch.need("hr"), batch.valid, stage.step))}

    def after_step(self, stage: Stage, step: int) -> None:
        self.base.settle()

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.estimate(batch)
