"""U-Nets whose residual blocks carry depthwise kernels made from a degradation code, DASR's idea.

DiffSR_UNet is the noise predictor of DiffBSR, DiffUNetSR3Atom the clean-image predictor of BlindSRSNF.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.networks.diffusion_unet import DiffusionUNet, SkeletonConfig, UNetSizes, require_multiple
from rsdiff.networks.layers import ChannelGate, PixelGate, SelfAttention, TimeEmbedding, Upsample, filter_each, orthogonal_

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


class BlindSRSNFUNet(DegradationAwareUNet):
    """Predicts x0 from x_t, the level sqrt(alpha_bar), a feature map at LR resolution and the degradation code.

    forward(x (B, bands, H, W), level (B,), feature (B, feature_channels, h, w), code (B, code_channels)) -> (B, bands, H, W), not clamped.

    The image is taken apart into cells of `fold` x `fold` pixels first, so the U-Net runs at H / fold; H and W must be multiples of it,
    and any such size works: the way up is cropped to the skips. The condition is resized bilinearly to H / fold. Initialisation:
    orthogonal.
    """

    def __init__(self, options: BlindSRSNFUNetConfig, bands: int, feature_channels: int, code_channels: int) -> None:
        width, folded = options.width, bands * options.fold**2
        super().__init__(
            in_channels=2 * width,
            out_channels=folded,
            code_channels=code_channels,
            make_attention=lambda channels: SelfAttention(channels, options.norm_groups),
            normalise_second=options.normalise_second,
            attention_levels=options.attention_levels,
            crop_to_skips=True,
            dropout=options.dropout,
            **options.sizes(),
        )
        self.fold = self.size_multiple = options.fold
        self.enter_image = nn.Conv2d(folded, width, 3, padding=1)
        self.enter_feature = nn.Conv2d(feature_channels, width, 3, padding=1)
        orthogonal_(self)

    def forward(self, x: Tensor, level: Tensor, feature: Tensor, code: Tensor) -> Tensor:
        """See the class; raises ValueError if H or W is not a multiple of `fold`."""
        require_multiple(x, self.fold)
        folded = F.pixel_unshuffle(x, self.fold)
        resized = F.interpolate(feature, size=folded.shape[-2:], mode="bilinear", align_corners=False)
        entered = torch.cat([self.enter_image(folded), self.enter_feature(resized)], dim=1)
        return F.pixel_shuffle(self.denoise(entered, level, code), self.fold)


@config
class BlindSRSNFUNetConfig(SkeletonConfig):
    """The clean-image predictor; dropout is without effect in the published network (see normalise_second)."""

    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """Channels of each level in units of `width`; the image is halved between levels."""
    attention_levels: tuple[int, ...] = ()
    """Levels with self-attention, from 0; the middle always has it."""
    fold: int = 2
    """Blocks of fold x fold pixels become channels, so that the U-Net runs at a fraction of the size."""
    normalise_second: Annotated[bool, Ours("weights")] = False
    """Normalise before the degradation-aware convolution. The published code computes that and throws the result away (False)."""

    def __post_init__(self) -> None:
        SkeletonConfig.__post_init__(self)
        if self.fold < 1:
            raise UserError(f"fold={self.fold} was given; choose at least 1, which leaves the image whole.")
        if any(not 0 <= level < len(self.multipliers) for level in self.attention_levels):
            raise UserError(f"attention_levels={list(self.attention_levels)}: the levels are 0 to {len(self.multipliers) - 1}.")
        if self.dropout and not self.normalise_second:
            raise UserError(f"dropout={self.dropout} has no effect with normalise_second=false; set one of them.")

    def build(self, bands: int, feature_channels: int, code_channels: int) -> BlindSRSNFUNet:
        """Return the network with fresh weights."""
        return BlindSRSNFUNet(self, bands, feature_channels, code_channels)


class BicubicUpsample(nn.Module):
    """Bicubic enlargement by 2 (coefficient -0.75, half-pixel centres), then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False))


class DiffSRUNet(DegradationAwareUNet):
    """Predicts the noise in a noisy residual, told the level sqrt(alpha_bar) and the degradation code.

    forward(x (B, 2 bands, H, W), level (B,), code (B, code_channels)) -> (B, bands, H, W); x is concat(condition image, x_t).
    Instead of self-attention the middle has a channel and a pixel gate, without a residual connection; other levels have none.
    The deepest level needs at least 16 channels.
    Initialisation: orthogonal.
    """

    def __init__(self, options: DiffSRUNetConfig, bands: int, code_channels: int) -> None:
        super().__init__(
            in_channels=2 * bands,
            out_channels=bands,
            code_channels=code_channels,
            make_attention=lambda channels: nn.Sequential(ChannelGate(channels), PixelGate()),
            normalise_second=True,
            keep_unused=options.keep_unused,
            make_upsample=BicubicUpsample,
            dropout=options.dropout,
            **options.sizes(),
        )
        orthogonal_(self)

    def forward(self, x: Tensor, level: Tensor, code: Tensor) -> Tensor:
        return self.denoise(x, level, code)


@config
class DiffSRUNetConfig(SkeletonConfig):
    """DiffBSR's noise predictor; the UC Merced recipe has dropout 0.2."""

    keep_unused: bool = False
    """Keep the convolutions that published checkpoints contain but never apply, so that an exported file equals theirs."""

    def __post_init__(self) -> None:
        SkeletonConfig.__post_init__(self)
        if self.width * self.multipliers[-1] < 16:
            raise UserError(f"the deepest level has {self.width * self.multipliers[-1]} channels; its gates need 16: raise width.")

    def build(self, bands: int, code_channels: int) -> DiffSRUNet:
        """Return the network with fresh weights."""
        return DiffSRUNet(self, bands, code_channels)
