"""HSCNN+ (the dense variant, HSCNN-D): dense blocks of two like streams, for spectral super-resolution.

Source: caiyuanhao1998/MST-plus-plus, architecture/HSCNN_Plus.py. All convolutions lack biases and all but the last are followed by ReLU.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.restorers import RestorerConfig

STREAM, GROWTH = 32, 32
"""Channels of a 3x3 convolution, and channels that every block adds."""


class TwoStreams(nn.Module):
    """Concatenates [u, v(u)] of two streams, u = 3x3 to 32 channels, v = 1x1 to `narrow`; ReLU behind each; with weights of their own."""

    def __init__(self, in_channels: int, narrow: int) -> None:
        super().__init__()
        self.wide = nn.ModuleList(nn.Conv2d(in_channels, STREAM, 3, padding=1, bias=False) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Conv2d(STREAM, narrow, 1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            parts.append(F.relu(wide(x)))
            parts.append(F.relu(narrow(parts[-1])))
        return torch.cat(parts, dim=1)


class FusionBlock(nn.Module):
    """Concatenates x (B, D, H, W) and 32 channels: 1x1 to 128, two streams, 1x1 to 32."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, 4 * STREAM, 1, bias=False)
        self.streams = TwoStreams(4 * STREAM, STREAM // 2)
        self.fuse = nn.Conv2d(3 * STREAM, GROWTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, F.relu(self.fuse(self.streams(F.relu(self.reduce(x)))))], dim=1)


@config
class HSCNNPlusNetConfig(RestorerConfig):
    """HSCNN+. The defaults are the published network."""

    kind: ClassVar[str] = "hscnn_plus"

    blocks: int = 30
    """Dense blocks."""

    def __post_init__(self) -> None:
        if self.blocks < 0:
            raise UserError(f"blocks={self.blocks} was given; choose 0 or more.")

    def refuse_network(self, problem: Problem) -> str | None:
        return problem.refuse_other_scales(self.kind)

    def build_network(self, problem: Problem) -> HSCNNPlus:
        return HSCNNPlus(self, problem.lr_bands, problem.bands)


class HSCNNPlus(nn.Module):
    """forward(lr (B, in_bands, H, W)) -> (B, bands, H, W), unbounded."""

    def __init__(self, options: HSCNNPlusNetConfig, in_bands: int, bands: int) -> None:
        super().__init__()
        first, blocks = 4 * STREAM, options.blocks
        self.stem = TwoStreams(in_bands, STREAM)
        self.blocks = nn.Sequential(*(FusionBlock(first + i * GROWTH) for i in range(blocks)))
        self.leave = nn.Conv2d(first + blocks * GROWTH, bands, 1, bias=False)

    @property
    def last_layer(self) -> nn.Conv2d:
        """The layer that makes the bands."""
        return self.leave

    def forward(self, lr: Tensor) -> Tensor:
        return self.leave(self.blocks(self.stem(lr)))
