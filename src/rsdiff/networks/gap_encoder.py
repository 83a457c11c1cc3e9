"""GAPEncoder of LDCSR: what HR has and enlarged LR lacks, at an eighth of the size; alone, the condition encoder of the second stage.

Source: MoooJianG/LDCSR, modules/e2sr/s1_v6.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.networks.gap_layers import GAPBlock, gap_norm


class GAPEncoder(nn.Module):
    """Convolutional encoder without attention.

    in_channels   bands of the input: enlarged LR and HR, concatenated in this order, or one of them
    width         channels of the first level; level i has width * multipliers[i]
    multipliers   one per level; the image is halved (rounding down) between levels
    blocks        residual blocks per level
    out_channels  channels of the result: mean and log-variance of a latent, or the latent
    forward maps (B, in_channels, H, W) to (B, out_channels, floor(H / 2^(levels - 1)), ...), halving level by level.
    """

    def __init__(self, in_channels: int, width: int, multipliers: Sequence[int], blocks: int, out_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        channels, last = width, len(multipliers) - 1
        for level, multiplier in enumerate(multipliers):
            made: list[nn.Module] = []
            for _ in range(blocks):
                made.append(GAPBlock(channels, width * multiplier))
                channels = width * multiplier
            self.down.append(nn.ModuleDict({"blocks": nn.Sequential(*made), **({"halve": Halve(channels)} if level < last else {})}))
        self.middle = nn.Sequential(GAPBlock(channels, channels), GAPBlock(channels, channels))
        self.norm_out = gap_norm(channels)
        self.conv_out = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            for part in level.children():
                x = part(x)
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))


class Halve(nn.Module):
    """3x3 convolution of stride 2 on an image extended by zeros at the right and bottom only: the result has floor(side / 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))
