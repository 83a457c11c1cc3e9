"""SRDSRAN_Net, the CNN that gives DiffBSR its first estimate: residual groups with local gates, global attention, PixelShuffle."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.layers import ChannelGate, PixelGate, Pooling, attended

Gates = Literal["CA", "SA", "CA-SA", "SA-CA", "CA|SA"]
"""CA: channel attention, SA: spatial attention; '-' one after the other, '|' both at once and mixed by a 1x1 convolution."""


class AttentionPair(nn.Module):
    """Channel attention, spatial attention, or both in the order `gates` says.

    mix  follow a chain ('-') by a 1x1 convolution; '|' always has one
    """

    def __init__(self, width: int, gates: Gates, channel: nn.Module, spatial: nn.Module, mix: bool) -> None:
        super().__init__()
        self.gates = gates
        self.channel = channel if "CA" in gates else None
        self.spatial = spatial if "SA" in gates else None
        inputs = 2 * width if "|" in gates else width
        self.mix = nn.Conv2d(inputs, width, 1) if "|" in gates or ("-" in gates and mix) else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        parts = {"CA": self.channel, "SA": self.spatial}
        if "|" in self.gates:
            x = torch.cat([parts["CA"](x), parts["SA"](x)], dim=1)  # type: ignore[misc]
        else:
            for name in self.gates.split("-"):
                x = parts[name](x)  # type: ignore[misc]
        return x if self.mix is None else self.mix(x)


class ResidualAttentionBlock(nn.Module):
    """Two 3x3 convolutions (width -> 4 width -> width), then gates; plus the input."""

    def __init__(self, width: int, gates: Gates, pooling: Pooling, mix: bool) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.reduce = nn.Conv2d(4 * width, width, 3, padding=1)
        self.attention = AttentionPair(width, gates, ChannelGate(width, pooling=pooling), PixelGate(pooling), mix)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.reduce(F.leaky_relu(self.expand(x), 0.2, inplace=True)))


class ResidualGroup(nn.Module):
    """Blocks in a row, then gates; plus the input."""

    def __init__(self, width: int, blocks: int, group_gates: Gates, block_gates: Gates, pooling: Pooling, mix: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualAttentionBlock(width, block_gates, pooling, mix) for _ in range(blocks)))
        self.attention = AttentionPair(width, group_gates, ChannelGate(width, pooling=pooling), PixelGate(pooling), mix)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.blocks(x))


class ChannelAttention(nn.Module):
    """Every channel as a mixture of all, weighted by how little they resemble it: softmax(rowmax(E) - E), E = X X^T (the paper's CGAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        energy = pixels @ pixels.mT
        weights = (energy.amax(dim=-1, keepdim=True) - energy).softmax(dim=-1)
        return self.gamma * (weights @ pixels).view_as(x) + x


class SpatialAttention(nn.Module):
    """Every pixel as a mixture of all, softmax of unscaled query-key products (the paper's SGAM)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, width // 8, 1)
        self.key = nn.Conv2d(width, width // 8, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).flatten(2).mT[:, None] for layer in (self.query, self.key, self.value))
        mixed = attended(query, key, value, scale=1.0)[:, 0]
        return self.gamma * mixed.mT.reshape(x.shape) + x


class MultiScaleBlock(nn.Module):
    """Three views of the LR image (3x3; 1x1 then 3x3; 1x1), mixed by a 1x1 convolution."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(bands, width, 3, padding=1)
        self.deep = nn.Sequential(nn.Conv2d(bands, width, 1), nn.Conv2d(width, width, 3, padding=1))
        self.point = nn.Conv2d(bands, width, 1)
        self.mix = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.mix(torch.cat([self.wide(x), self.deep(x), self.point(x)], dim=1)), 0.2, inplace=True)


class SRDSRAN(nn.Module):
    """Enlarges an image by a power of 2 or of 3; forward maps (B, in_channels, h, w) to (B, out_channels, H, W), unbounded.

    scale  2, 3, 4, 8 or 9. All stages of the enlargement are the same convolution, used again: the published code lists one module several
           times, and its checkpoints hold it twice at x4.
    """

    size_multiple: ClassVar[int] = 1

    def __init__(self, options: SRDSRANConfig, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        width, gates = options.width, (options.group_gates, options.block_gates, options.pooling, options.mix)
        self.factor, self.stages = enlargement(scale)
        self.enter = nn.Conv2d(in_channels, width, 3, padding=1)
        self.multi_scale = MultiScaleBlock(in_channels, width)
        self.groups = nn.ModuleList(ResidualGroup(width, options.blocks, *gates) for _ in range(options.groups))
        self.attention = AttentionPair(width, options.global_gates, ChannelAttention(), SpatialAttention(width), options.mix)
        self.enlarge = nn.Conv2d(width, width * self.factor**2, 3, padding=1)
        self.leave = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        feature = F.leaky_relu(self.enter(x), 0.01, inplace=True)
        total = self.multi_scale(x) + feature
        for group in self.groups:
            feature = group(feature)
            total = total + feature
        total = self.attention(total)
        for _ in range(self.stages):
            total = F.leaky_relu(F.pixel_shuffle(self.enlarge(total), self.factor), 0.01, inplace=True)
        return self.leave(total)


def enlargement(scale: int) -> tuple[int, int]:
    """Return (factor, stages) with factor^stages = scale; raises UserError unless scale is 2, 3, 4, 8 or 9."""
    for factor, stages in ((2, 1), (2, 2), (2, 3), (3, 1), (3, 2)):
        if factor**stages == scale:
            return factor, stages
    raise UserError(f"SRDSRAN was asked for scale {scale}; it enlarges by 2, 3, 4, 8 or 9: set scale to one of them.")


@config
class SRDSRANConfig:
    """The CNN that makes the first estimate."""

    width: int = 64
    """Channels of the trunk (the published code hard-codes 64); at least 16, for the channel gates."""
    groups: int = 12
    """Residual groups."""
    blocks: int = 3
    """Residual attention blocks per group."""
    group_gates: Gates = "CA-SA"
    """Channel (CA) and spatial (SA) gates at the end of a group: one, one after the other (-), or both at once (|)."""
    block_gates: Gates = "CA-SA"
    """Gates at the end of a block."""
    global_gates: Gates = "CA-SA"
    """Channel and spatial self-attention before the enlargement."""
    pooling: Pooling = "Avg|Max"
    """What the gates look at: means, maxima, or both."""
    mix: bool = True
    """Follow gates in a chain by a 1x1 convolution."""

    def __post_init__(self) -> None:
        if self.width < 16 or self.groups < 1 or self.blocks < 1:
            raise UserError(f"width={self.width}, groups={self.groups}, blocks={self.blocks}: choose at least 16, 1 and 1.")

    def refuse(self, model: str, problem: Problem) -> str | None:
        """Return a sentence where the network cannot enlarge by the problem's scale, else None."""
        try:
            if problem.scale == int(problem.scale):
                enlargement(int(problem.scale))
                return None
        except ValueError:
            pass
        return f"model {model} enlarges by 2, 3, 4, 8 or 9 and the scale is {problem.scale:g}; set scale to one of them."

    def build(self, problem: Problem) -> SRDSRAN:
        """Return the network with fresh weights."""
        return SRDSRAN(self, problem.lr_bands, problem.bands, int(problem.scale))
