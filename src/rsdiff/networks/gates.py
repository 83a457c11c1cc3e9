"""CBAM's attention gates, which SRDSRAN, DiffBSR's U-Net and DCLS share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError

Pooling = Literal["Avg", "Max", "Avg|Max"]


class ChannelGate(nn.Module):
    """Multiply each channel by a weight in (0, 1) made from its mean and maximum over the image (the paper's CLAM).

    forward maps (B, C, H, W) to the same shape; C must be at least `ratio`. DCLS's channel attention is the mean's half, with biases.
    """

    def __init__(self, channels: int, ratio: int = 16, pooling: Pooling = "Avg|Max", bias: bool = False) -> None:
        super().__init__()
        if channels < ratio:
            raise UserError(
                f"a channel gate of ratio {ratio} was asked for {channels} channels; it needs at least {ratio}: widen the network."
            )
        self.pooling = pooling
        self.squeeze = nn.Conv2d(channels, channels // ratio, 1, bias=bias)
        self.excite = nn.Conv2d(channels // ratio, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.zeros((), dtype=x.dtype, device=x.device)
        if "Avg" in self.pooling:
            weights = weights + self.excite(F.relu(self.squeeze(x.mean(dim=(-2, -1), keepdim=True))))
        if "Max" in self.pooling:
            weights = weights + self.excite(F.relu(self.squeeze(x.amax(dim=(-2, -1), keepdim=True))))
        return x * weights.sigmoid()


class PixelGate(nn.Module):
    """Multiply each pixel by a weight in (0, 1) made from the mean and maximum over its channels (the paper's SLAM)."""

    def __init__(self, pooling: Pooling = "Avg|Max") -> None:
        super().__init__()
        self.pooling = pooling
        self.conv = nn.Conv2d(len(pooling.split("|")), 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        if "Avg" in self.pooling:
            maps.append(x.mean(dim=1, keepdim=True))
        if "Max" in self.pooling:
            maps.append(x.amax(dim=1, keepdim=True))
        return x * self.conv(torch.cat(maps, dim=1)).sigmoid()
