"""Blocks that the encoder and the decoder of LDCSR's autoencoder share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError

NORM_GROUPS, NORM_EPSILON = 32, 1e-6


class GAPBlock(nn.Module):
    """Residual block of latent diffusion's autoencoders: twice GroupNorm, Swish, 3x3 convolution; no time, no attention.

    Maps (B, in_channels, H, W) to (B, out_channels, H, W), both multiples of 32; the shortcut is a 1x1 convolution where they differ.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = gap_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = gap_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(h))) + self.shortcut(x)


def gap_norm(channels: int) -> nn.GroupNorm:
    """Return the normalisation of these networks; raises UserError for widths that do not split into its groups."""
    if channels % NORM_GROUPS:
        raise UserError(f"{channels} channels do not split into {NORM_GROUPS} groups; choose widths that are multiples of {NORM_GROUPS}.")
    return nn.GroupNorm(NORM_GROUPS, channels, NORM_EPSILON)
