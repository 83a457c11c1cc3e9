"""DiffUNetSR3Atom, the clean-image predictor of BlindSRSNF: SR3's skeleton with degradation-aware blocks, on a folded image."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.networks.degradation_aware import DegradationAwareUNet
from rsdiff.networks.diffusion_unet import SkeletonConfig, require_multiple
from rsdiff.networks.layers import SelfAttention, orthogonal_


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
