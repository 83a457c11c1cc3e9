"""EDSR-baseline as an encoder: LR image to LR feature map, without enlargement (LIIF, MetaSR, LTE, CiaoSR)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config


@config
class EDSRConfig:
    """EDSR-baseline."""

    width: int = 64
    """Channels, also of the result."""
    blocks: int = 16
    """Residual blocks."""
    residual_scale: float = 1.0
    """Factor of what a residual block adds (`res_scale` of published files)."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 1:
            raise UserError(f"width={self.width} and blocks={self.blocks} make no network; choose numbers of at least 1.")

    def build(self, in_channels: int) -> EDSR:
        """Return the encoder with fresh weights."""
        return EDSR(self, in_channels)


class EDSRBlock(nn.Module):
    """x + residual_scale * convolution(ReLU(convolution(x))), without normalisation."""

    def __init__(self, width: int, residual_scale: float) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        added = self.conv2(F.relu(self.conv1(x)))
        return x + (added if self.residual_scale == 1 else self.residual_scale * added)


class EDSR(nn.Module):
    """forward maps images (B, in_channels, h, w) to features (B, width, h, w).

    Source: EDSR-baseline of yinboc/liif, models/edsr.py, no_upsampling. Its mean shifts exist there but are never applied: left out.
    """

    def __init__(self, options: EDSRConfig, in_channels: int) -> None:
        super().__init__()
        width = options.width
        self.out_channels = width
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.body = nn.Sequential(*(EDSRBlock(width, options.residual_scale) for _ in range(options.blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return x + self.tail(self.body(x))
