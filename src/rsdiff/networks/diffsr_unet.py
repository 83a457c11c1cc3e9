"""DiffSR_UNet, the noise predictor of DiffBSR."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.networks.degradation_aware import DegradationAwareUNet
from rsdiff.networks.layers import ChannelGate, PixelGate, orthogonal_


class BicubicUpsample(nn.Module):
    """Bicubic enlargement by 2 (coefficient -0.75, half-pixel centres), then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False))


class DiffSRUNet(DegradationAwareUNet):
    """Predicts the noise in a noisy residual, told the level sqrt(alpha_bar) and the degradation code.

    forward(x (B, in_channels, H, W), level (B,), code (B, code_channels)) -> (B, out_channels, H, W); x is concat(condition image, x_t).
    Instead of self-attention the middle has a channel and a pixel gate, without a residual connection; other levels have none.
    keep_unused  see DegradationAwareBlock; other arguments as in DegradationAwareUNet. The deepest level needs at least 16 channels.
    Initialisation: orthogonal.
    """

    def __init__(
        self,
        *,
        in_channels: int = 6,
        out_channels: int = 3,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        norm_groups: int = 32,
        dropout: float = 0.0,
        code_channels: int = 256,
        keep_unused: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            norm_groups=norm_groups,
            dropout=dropout,
            code_channels=code_channels,
            make_attention=lambda channels: nn.Sequential(ChannelGate(channels), PixelGate()),
            normalise_second=True,
            keep_unused=keep_unused,
            make_upsample=BicubicUpsample,
            checkpointing=checkpointing,
        )
        orthogonal_(self)

    def forward(self, x: Tensor, level: Tensor, code: Tensor) -> Tensor:
        return self.denoise(x, level, code)
