"""Residual blocks that carry depthwise kernels made from a degradation code: DASR's idea inside the U-Nets of DiffBSR and BlindSRSNF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.networks.diffusion_unet import DiffusionUNet, UNetSizes
from rsdiff.networks.layers import TimeEmbedding, Upsample, filter_each

SLOPE = 0.1
COMPRESSED = 64  # width of the code inside the blocks, as in DASR


class DegradationAwareConv(nn.Module):
    """A 3x3 convolution plus a depthwise one whose kernels are predicted for every image (DASR's, without its channel branch)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Linear(COMPRESSED, COMPRESSED, bias=False),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Linear(COMPRESSED, 9 * channels, bias=False),
        )
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map x (B, C, H, W) to its shape; code is (B, 64)."""
        kernels = self.kernel(code).view(len(x), -1, 3, 3)
        return F.leaky_relu(filter_each(x, kernels), SLOPE) + self.conv(x)


class DegradationAwareBlock(nn.Module):
    """SR3's residual block with a degradation-aware second convolution.

    h = conv(swish(norm1(x))) + time(embedding);  h = aware(dropout(swish(norm2(h))), code);  returns attention(h + shortcut(x)).

    attention         what follows the block; nn.Identity() for none
    normalise_second  apply norm2, Swish and dropout (DiffBSR). BlindSRSNF's code computes them and throws the result away: its released
                      weights need False, and norm2 then exists only to carry them (no gradient, not applied)
    keep_unused       own the 1x1 convolution that DiffBSR's checkpoints list in every block but its code never applies
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        *,
        norm_groups: int,
        dropout: float,
        attention: nn.Module,
        normalise_second: bool,
        keep_unused: bool = False,
    ) -> None:
        super().__init__()
        self.normalise_second = normalise_second
        self.norm1 = nn.GroupNorm(norm_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(embedding_width, out_channels)
        self.norm2 = nn.GroupNorm(norm_groups, out_channels).requires_grad_(normalise_second)
        self.dropout = nn.Dropout(dropout)
        self.aware = DegradationAwareConv(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.attention = attention
        self.unused = nn.Conv2d(out_channels, out_channels, 1).requires_grad_(False) if keep_unused else None

    def forward(self, x: Tensor, embedding: Tensor, code: Tensor) -> Tensor:
        """Map x (B, in, H, W) to (B, out, H, W); embedding is (B, embedding_width), code (B, 64)."""
        h = self.conv1(F.silu(self.norm1(x))) + self.time(embedding)[:, :, None, None]
        if self.normalise_second:
            h = self.dropout(F.silu(self.norm2(h)))
        return self.attention(self.aware(h, code) + self.shortcut(x))


class CodeCompression(nn.Sequential):
    """Degradation code (B, code_channels) -> (B, 64), shared by all blocks of a network."""

    def __init__(self, code_channels: int) -> None:
        super().__init__(nn.Linear(code_channels, COMPRESSED, bias=False), nn.LeakyReLU(SLOPE, inplace=True))


class DegradationAwareUNet(DiffusionUNet):
    """SR3's skeleton with degradation-aware blocks, told the level sqrt(alpha_bar) and a degradation code.

    make_attention    makes what follows the block in the middle and the blocks of `attention_levels`, for so many channels
    code_channels     length of the degradation code
    normalise_second  see DegradationAwareBlock, as for `keep_unused`; other arguments as in DiffusionUNet
    Subclasses draw the initial weights when all their layers are there.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        dropout: float,
        code_channels: int,
        make_attention: Callable[[int], nn.Module],
        normalise_second: bool,
        keep_unused: bool = False,
        attention_levels: Sequence[int] = (),
        make_upsample: Callable[[int], nn.Module] = Upsample,
        crop_to_skips: bool = False,
        **sizes: Unpack[UNetSizes],
    ) -> None:
        width = sizes["width"]

        def make_block(in_channels: int, out_channels: int, *, attention: bool) -> nn.Module:
            return DegradationAwareBlock(
                in_channels,
                out_channels,
                width,
                norm_groups=sizes["norm_groups"],
                dropout=dropout,
                attention=make_attention(out_channels) if attention else nn.Identity(),
                normalise_second=normalise_second,
                keep_unused=keep_unused,
            )

        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            attention_down=frozenset(attention_levels),
            attention_up=frozenset(attention_levels),
            make_block=make_block,
            make_upsample=make_upsample,
            crop_to_skips=crop_to_skips,
            **sizes,
        )
        self.level = TimeEmbedding(width)
        self.compress = CodeCompression(code_channels)

    def denoise(self, x: Tensor, level: Tensor, code: Tensor) -> Tensor:
        """Return (B, out_channels, H, W) for x (B, in_channels, H, W), level (B,) and code (B, code_channels)."""
        return self.run(x, self.level(level), self.compress(code))
