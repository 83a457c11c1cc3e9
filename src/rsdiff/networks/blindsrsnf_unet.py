"""DiffUNetSR3Atom, the clean-image predictor of BlindSRSNF."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.networks.degradation_aware import DegradationAwareUNet
from rsdiff.networks.diffusion_unet import require_multiple
from rsdiff.networks.layers import SelfAttention, orthogonal_


class BlindSRSNFUNet(DegradationAwareUNet):
    """Predicts x0 from x_t, the level sqrt(alpha_bar), a feature map at LR resolution and the degradation code.

    forward(x (B, bands, H, W), level (B,), feature (B, feature_channels, h, w), code (B, code_channels)) -> (B, bands, H, W), not clamped.

    fold              the image is taken apart into cells of fold x fold pixels first, so the U-Net runs at H / fold; H and W must be
                      multiples of fold, and any such size works: the way up is cropped to the skips
    feature_channels  channels of the condition, which is resized bilinearly to H / fold
    attention_levels  levels with self-attention; the middle always has it
    normalise_second  see DegradationAwareBlock; the published network has False
    Other arguments as in DegradationAwareUNet. Initialisation: orthogonal.
    """

    def __init__(
        self,
        *,
        bands: int = 3,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        norm_groups: int = 32,
        dropout: float = 0.0,
        attention_levels: Sequence[int] = (),
        fold: int = 2,
        feature_channels: int = 64,
        code_channels: int = 256,
        normalise_second: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            in_channels=2 * width,
            out_channels=bands * fold**2,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            norm_groups=norm_groups,
            dropout=dropout,
            code_channels=code_channels,
            make_attention=lambda channels: SelfAttention(channels, norm_groups),
            normalise_second=normalise_second,
            attention_levels=attention_levels,
            crop_to_skips=True,
            checkpointing=checkpointing,
        )
        self.fold = fold
        self.enter_image = nn.Conv2d(bands * fold**2, width, 3, padding=1)
        self.enter_feature = nn.Conv2d(feature_channels, width, 3, padding=1)
        orthogonal_(self)

    def forward(self, x: Tensor, level: Tensor, feature: Tensor, code: Tensor) -> Tensor:
        """See the class; raises ValueError if H or W is not a multiple of `fold`."""
        require_multiple(x, self.fold)
        folded = F.pixel_unshuffle(x, self.fold)
        resized = F.interpolate(feature, size=folded.shape[-2:], mode="bilinear", align_corners=False)
        entered = torch.cat([self.enter_image(folded), self.enter_feature(resized)], dim=1)
        return F.pixel_shuffle(self.denoise(entered, level, code), self.fold)
