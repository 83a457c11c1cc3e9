"""HSCNN+ (the dense variant, HSCNN-D): dense blocks of two like streams, for spectral super-resolution.

Source: caiyuanhao1998/MST-plus-plus, architecture/HSCNN_Plus.py. All convolutions lack biases and all but the last are followed by ReLU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class HSCNNPlus(nn.Module):
    """forward(lr (B, in_bands, H, W)) -> (B, bands, H, W), unbounded; `blocks` fusion blocks (30 published)."""

    def __init__(self, *, in_bands: int, bands: int, blocks: int) -> None:
        super().__init__()
        first = 4 * STREAM
        self.stem = TwoStreams(in_bands, STREAM)
        self.blocks = nn.Sequential(*(FusionBlock(first + i * GROWTH) for i in range(blocks)))
        self.leave = nn.Conv2d(first + blocks * GROWTH, bands, 1, bias=False)

    def forward(self, lr: Tensor) -> Tensor:
        return self.leave(self.blocks(self.stem(lr)))
