"""SRDiff's U-Net as DiffBSR's ablation runs it: reflection-padded convolutions, Mish, a condition added once from RRDB features."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.diffusion_unet import require_multiple
from rsdiff.networks.layers import TimeEmbedding
from rsdiff.networks.rrdb import RRDBConfig, RRDBNet

EVERY = 3
"""Every third feature of the condition network is shown: of eight RRDBs and their global sum, the third, sixth and ninth."""


class MishConv(nn.Sequential):
    """Reflection padding, 3x3 convolution, Mish."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.ReflectionPad2d(1), nn.Conv2d(in_channels, out_channels, 3), nn.Mish())


class SRDiffBlock(nn.Module):
    """Two Mish convolutions, the step added after the first, a shortcut around both; no normalisation."""

    def __init__(self, in_channels: int, out_channels: int, embedding_width: int) -> None:
        super().__init__()
        self.first = MishConv(in_channels, out_channels)
        self.time = nn.Linear(embedding_width, out_channels)
        self.second = MishConv(out_channels, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(x) + self.time(F.mish(embedding))[:, :, None, None]
        return self.second(hidden) + self.shortcut(x)


class SRDiffLevel(nn.Module):
    """Two blocks at one resolution, then a change of resolution (or none)."""

    def __init__(self, in_channels: int, out_channels: int, embedding_width: int, leave: nn.Module) -> None:
        super().__init__()
        self.first = SRDiffBlock(in_channels, out_channels, embedding_width)
        self.second = SRDiffBlock(out_channels, out_channels, embedding_width)
        self.leave = leave

    def blocks(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Run the blocks without the change of resolution."""
        return self.second(self.first(x, embedding), embedding)


class SRDiffUNet(nn.Module):
    """Predicts the noise in a noisy residual, told the integer step and RRDB features of the LR image.

    forward(x (B, bands, H, W), step (B,), features (B, feature_channels, h, w)) -> (B, bands, H, W).

    H and W must be multiples of 2^(levels - 1). The features, concatenated, are enlarged by `scale`, H / h, in one transposed convolution
    and added after the first level's blocks.
    """

    def __init__(self, options: SRDiffUNetConfig, bands: int, scale: int) -> None:
        super().__init__()
        width, feature_channels = options.width, (options.condition_blocks + 1) // EVERY * options.condition_width
        widths = [width * multiplier for multiplier in options.multipliers]
        deepest = widths[-1]
        self.size_multiple = 2 ** (len(widths) - 1)
        self.condition = nn.ConvTranspose2d(feature_channels, width, 2 * scale, scale, scale // 2)
        self.step = TimeEmbedding(width, nn.Mish, inclusive=True)
        self.down = nn.ModuleList(
            SRDiffLevel(before, after, width, halve(after) if level < len(widths) - 1 else nn.Identity())
            for level, (before, after) in enumerate(pairwise([bands, *widths]))
        )
        self.middle = nn.ModuleList(SRDiffBlock(deepest, deepest, width) for _ in range(2))
        self.up = nn.ModuleList(
            SRDiffLevel(2 * after, before, width, nn.ConvTranspose2d(before, before, 4, 2, 1))
            for before, after in reversed(list(pairwise(widths)))
        )
        self.leave = nn.Sequential(MishConv(width, width), nn.Conv2d(width, bands, 1))

    def forward(self, x: Tensor, step: Tensor, features: Tensor) -> Tensor:
        """See the class; raises ValueError if H or W is not a multiple of `size_multiple`."""
        require_multiple(x, self.size_multiple)
        embedding = self.step(step)
        skips: list[Tensor] = []
        for number, level in enumerate(self.down):
            assert isinstance(level, SRDiffLevel)
            x = level.blocks(x, embedding)
            if number == 0:
                x = x + self.condition(features)
            skips.append(x)
            x = level.leave(x)
        for block in self.middle:
            x = block(x, embedding)
        for level in self.up:
            assert isinstance(level, SRDiffLevel)
            x = level.leave(level.blocks(torch.cat([x, skips.pop()], dim=1), embedding))
        return self.leave(x)


def halve(channels: int) -> nn.Sequential:
    """Reflection-padded 3x3 convolution of stride 2."""
    return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, stride=2))


@config
class SRDiffUNetConfig:
    """SRDiff's noise predictor and the small RRDB network that conditions it."""

    width: int = 64
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    """Channels of each level in units of `width`; the image is halved between levels."""
    condition_width: int = 32
    """Channels of the condition network."""
    condition_blocks: int = 8
    """RRDBs of the condition network; one less than a multiple of 3, because every third feature (and the last) is shown."""
    condition_growth: int = 16
    """Channels each dense convolution of the condition network adds."""

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 2 or not self.multipliers or min(self.multipliers) < 1:
            raise UserError(f"width={self.width}, multipliers={list(self.multipliers)}: choose an even width of 4 or more, and 1 or more.")
        if self.condition_blocks < 2 or (self.condition_blocks + 1) % EVERY or min(self.condition_width, self.condition_growth) < 1:
            raise UserError(f"condition_blocks={self.condition_blocks} is not 2, 5, 8, ...; choose one of these.")

    def build(self, problem: Problem) -> SRDiffUNet:
        """Return the U-Net with fresh weights."""
        return SRDiffUNet(self, problem.bands, int(problem.scale))

    def build_condition(self, problem: Problem) -> RRDBNet:
        """Return the condition network; its head is never used but belongs to the checkpoint."""
        sizes = RRDBConfig(width=self.condition_width, blocks=self.condition_blocks, growth=self.condition_growth)
        return RRDBNet(sizes, problem.lr_bands, problem.bands)
