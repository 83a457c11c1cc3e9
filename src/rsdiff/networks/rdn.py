"""RDN as an encoder: LR image to LR feature map, without enlargement (LIIF, LTE, CiaoSR)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config


@config
class RDNConfig:
    """Residual dense network; the defaults are its configuration B."""

    width: int = 64
    """Channels between the dense blocks (G0), also of the result."""
    blocks: int = 16
    """Dense blocks (D)."""
    layers: int = 8
    """Convolutions per dense block (C)."""
    growth: int = 64
    """Channels that each of them adds (G)."""

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.layers, self.growth) < 1:
            raise UserError(
                f"width={self.width}, blocks={self.blocks}, layers={self.layers}, growth={self.growth} make no network; choose numbers "
                "of at least 1."
            )

    def build(self, in_channels: int) -> RDN:
        """Return the encoder with fresh weights."""
        return RDN(self, in_channels)


class ResidualDenseBlock(nn.Module):
    """Convolutions that each see everything before them, fused by a 1x1 convolution and added to the input."""

    def __init__(self, width: int, layers: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(layers))
        self.fuse = nn.Conv2d(width + layers * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        known = x
        for conv in self.convs:
            known = torch.cat([known, F.relu(conv(known))], dim=1)
        return x + self.fuse(known)


class RDN(nn.Module):
    """forward maps images (B, in_channels, h, w) to features (B, width, h, w). Source: yinboc/liif, models/rdn.py, no_upsampling."""

    def __init__(self, options: RDNConfig, in_channels: int) -> None:
        super().__init__()
        width, blocks = options.width, options.blocks
        self.out_channels = width
        self.shallow1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.shallow2 = nn.Conv2d(width, width, 3, padding=1)
        self.dense = nn.ModuleList(ResidualDenseBlock(width, options.layers, options.growth) for _ in range(blocks))
        self.fuse = nn.Sequential(nn.Conv2d(blocks * width, width, 1), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.shallow1(x)
        features, last = [], self.shallow2(first)
        for block in self.dense:
            last = block(last)
            features.append(last)
        return first + self.fuse(torch.cat(features, dim=1))
