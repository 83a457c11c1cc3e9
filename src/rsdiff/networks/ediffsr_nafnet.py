"""EDiffSR's noise predictor: a U-shaped NAFNet whose blocks receive the time, with a residual channel attention block at its entrance.

Source: XY-boy/EDiffSR, DenoisingNAFNet_arch.py, ConditionalNAFNet. Means over all pixels weigh channels, so the result of a tile differs
from that of the whole image.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.layers import ChannelGate, ChannelNorm, SinusoidalEmbedding

EXPANSION = 8
"""The time code has half as many channels per channel of the first level."""


def gated(x: Tensor) -> Tensor:
    """Return the product of the two halves of x (B, 2 C, ...) along its channels: the simple gate, which is the only non-linearity."""
    first, second = x.chunk(2, dim=1)
    return first * second


class TimeCode(nn.Module):
    """Maps steps (B,), integers or between them, to a code (B, 4 width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = SinusoidalEmbedding(width, inclusive=True)
        self.expand = nn.Linear(width, EXPANSION * width)
        self.mix = nn.Linear(EXPANSION * width // 2, EXPANSION * width // 2)

    def forward(self, time: Tensor) -> Tensor:
        return self.mix(gated(self.expand(self.embedding(time))))


class NAFBlock(nn.Module):
    """Depthwise convolution and feed-forward part, both residual with learned weights (0 at first), shifted and scaled by the time code."""

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(code_channels // 2, 4 * channels)
        self.norm1 = ChannelNorm(channels, bias=False)
        self.enter = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.weigh = nn.Conv2d(channels, channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.norm2 = ChannelNorm(channels, bias=False)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        shift1, scale1, shift2, scale2 = self.modulation(gated(code))[:, :, None, None].chunk(4, dim=1)
        h = gated(self.depthwise(self.enter(self.norm1(x) * (1 + scale1) + shift1)))
        h = self.leave(h * self.weigh(h.mean((-2, -1), keepdim=True)))
        x = x + h * self.beta
        h = self.narrow(gated(self.widen(self.norm2(x) * (1 + scale2) + shift2)))
        return x + h * self.gamma


class Blocks(nn.ModuleList):
    """`count` blocks in a row, all told the same time."""

    def __init__(self, channels: int, code_channels: int, count: int) -> None:
        super().__init__(NAFBlock(channels, code_channels) for _ in range(count))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        for block in self:
            x = block(x, code)
        return x


class EntranceAttention(nn.Module):
    """x plus a residual channel attention block of x, that is 2 x + gate(conv(relu(conv(x)))): the paper's CPEM."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.gate = ChannelGate(width, pooling="Avg", bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + self.gate(self.conv2(F.relu(self.conv1(x))))


@config
class NAFNetConfig:
    """Sizes of the network. The defaults are the published ones."""

    width: int = 64
    """Channels of the first level; each further level has twice as many."""
    encoders: tuple[int, ...] = (14, 1, 1, 1)
    """Blocks of each level on the way down."""
    middle: int = 1
    """Blocks at the bottom."""
    decoders: tuple[int, ...] = (1, 1, 1, 1)
    """Blocks of each level on the way up, from the deepest."""

    def __post_init__(self) -> None:
        if self.width < 16 or self.width % 2:
            raise UserError(f"width={self.width} was given; choose an even number of at least 16.")
        counts = (*self.encoders, self.middle, *self.decoders)
        if not self.encoders or len(self.encoders) != len(self.decoders) or min(counts) < 0:
            raise UserError(
                f"encoders={list(self.encoders)}, middle={self.middle} and decoders={list(self.decoders)} make no network; "
                "give as many levels up as down, and counts of 0 or more."
            )


class ConditionalNAFNet(nn.Module):
    """Predicts the noise in an image from it, the image that it drifts to, and the time."""

    def __init__(self, options: NAFNetConfig, bands: int) -> None:
        super().__init__()
        width, encoders, decoders = options.width, options.encoders, options.decoders
        levels = len(encoders)
        self.size_multiple = 2**levels
        code = EXPANSION * width // 2
        widths = [width * 2**level for level in range(levels + 1)]
        self.time = TimeCode(width)
        self.enter = nn.Conv2d(2 * bands, width, 3, padding=1)
        self.entrance = EntranceAttention(width)
        self.encoders = nn.ModuleList(Blocks(channels, code, count) for channels, count in zip(widths, encoders, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths))
        self.middle = Blocks(widths[-1], code, options.middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1, bias=False), nn.PixelShuffle(2)) for coarse, fine in pairwise(reversed(widths))
        )
        self.decoders = nn.ModuleList(Blocks(channels, code, count) for channels, count in zip(widths[-2::-1], decoders, strict=True))
        self.leave = nn.Conv2d(width, bands, 3, padding=1)

    def forward(self, x: Tensor, mean: Tensor, time: Tensor) -> Tensor:
        """Return the noise (B, C, H, W) in x (B, C, H, W), whose drift ends at mean (B, C, H, W), at steps time (B,).

        Sizes that are no multiple of 2^levels are extended by zeros at the bottom and the right, and the result is cropped, as published.
        """
        H, W = x.shape[-2:]
        code = self.time(time)
        both = F.pad(torch.cat([x - mean, mean], dim=1), (0, -W % self.size_multiple, 0, -H % self.size_multiple))
        feature = self.entrance(self.enter(both))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(feature, code))
            feature = down(skips[-1])
        feature = self.middle(feature, code)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            feature = decoder(up(feature) + skips.pop(), code)
        return self.leave(feature)[..., :H, :W]
