"""The Ref-Diff network: a SongUNet whose decoder is modulated by the LR image, the reference and the change mask.

Source: Dong et al., "Building Bridges across Spatial and Temporal Resolutions: Reference-Based Super-Resolution via Change Priors and
Conditional Diffusion Model" (CVPR 2024, arXiv 2403.17460), and the authors' public code, which fixes what the paper leaves open.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.edm_unet import BlockStyle, Resample, UNetBlock, UNetDecoder, UNetEncoder
from rsdiff.networks.song_unet import SongEmbedding, SongUNetConfig


@config
class RefDiffUNetConfig:
    """Widths of the Ref-Diff network. The defaults are the published ones: 116,740,739 parameters for RGB."""

    trunk: SongUNetConfig = SongUNetConfig(channel_mult=(2, 2, 2), attention_levels=(), dropout=0.2)
    """The U-Net around the modulated decoder blocks."""
    modulation_width: int = 128
    """Hidden channels of every spatial feature transform."""

    def __post_init__(self) -> None:
        if self.trunk.class_labels or self.trunk.augment_labels:
            raise UserError("the Ref-Diff network takes no class or augmentation labels; set both of the trunk to 0.")

    def build(self, image_channels: int, lr_channels: int, mask_channels: int = 1) -> RefDiffUNet:
        """Return the network for images of `image_channels` bands (target and reference), LR images of `lr_channels` and such masks."""
        return RefDiffUNet(self, image_channels, lr_channels, mask_channels)


class SpatialFeatureTransform(nn.Module):
    """features * sigmoid(m) + a, where m and a are convolved from features and condition (Wang et al. 2018, concatenated form).

    m is near 0 at the start, so a fresh transform halves its features rather than passing them on.
    """

    def __init__(self, channels: int, condition_channels: int, hidden_width: int) -> None:
        super().__init__()
        self.mul_conv1 = nn.Conv2d(channels + condition_channels, hidden_width, 3, padding=1)
        self.mul_conv2 = nn.Conv2d(hidden_width, channels, 3, padding=1)
        self.add_conv1 = nn.Conv2d(channels + condition_channels, hidden_width, 3, padding=1)
        self.add_conv2 = nn.Conv2d(hidden_width, channels, 3, padding=1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Return (B, C, h, w) for features (B, C, h, w) and condition (B, c, H, W) of any size.

        The condition is resized by nearest neighbour (the top-left pixel of each cell), so that mask codes are never mixed.
        """
        joined = torch.cat([features, F.interpolate(condition, size=features.shape[-2:], mode="nearest")], dim=1)
        mul = self.mul_conv2(F.leaky_relu(self.mul_conv1(joined), 0.1, inplace=True)).sigmoid()
        return torch.addcmul(self.add_conv2(F.leaky_relu(self.add_conv1(joined), 0.1, inplace=True)), features, mul)


class ReferenceBlock(nn.Module):
    """A U-Net block modulated twice: by LR and mask after its first norm, by reference and mask after its second.

    Unlike in the plain block the noise embedding is added after the second norm, not before it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style: BlockStyle,
        lr_condition_channels: int,
        ref_condition_channels: int,
        modulation_width: int,
        resample: Resample = "none",
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.block = UNetBlock(in_channels, out_channels, style, resample, attention)
        self.sft_lr = SpatialFeatureTransform(in_channels, lr_condition_channels, modulation_width)
        self.sft_ref = SpatialFeatureTransform(out_channels, ref_condition_channels, modulation_width)

    def forward(self, x: Tensor, embedding: Tensor, lr_condition: Tensor, ref_condition: Tensor) -> Tensor:
        """Return (B, out_channels, H', W'); the conditions are an image and the mask, concatenated."""
        block = self.block
        h = block.conv0(F.silu(self.sft_lr(block.norm0(x), lr_condition)))
        h = self.sft_ref(block.norm1(h), ref_condition)
        return block.finish(F.silu(h + block.affine(embedding)[:, :, None, None]), x)


class RefDiffUNet(nn.Module):
    """SongUNet on [x, LR, reference, mask] with a decoder of `ReferenceBlock`s."""

    def __init__(self, options: RefDiffUNetConfig, image_channels: int, lr_channels: int, mask_channels: int) -> None:
        super().__init__()
        trunk = options.trunk
        style = trunk.block_style()
        self.embedding = SongEmbedding(trunk)
        self.encoder = UNetEncoder(
            2 * image_channels + lr_channels + mask_channels,
            trunk.model_channels,
            trunk.widths,
            trunk.num_blocks,
            trunk.attention_levels,
            style,
            trunk.pyramid,
        )
        self.decoder = UNetDecoder(
            self.encoder.skip_widths,
            trunk.widths,
            trunk.num_blocks,
            trunk.attention_levels,
            image_channels,
            style,
            make_block=partial(
                _reference_block, style, lr_channels + mask_channels, image_channels + mask_channels, options.modulation_width
            ),
            attends="last",
            heads=trunk.output_heads,
        )

    def forward(self, x: Tensor, noise_level: Tensor, lr: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
        """Return (B, C, H, W).

        x            (B, C, H, W) noisy image, scaled by the preconditioning
        noise_level  (B,) ln(sigma) / 4
        lr, ref      (B, c, H, W) LR image at target size, (B, C, H, W) reference; both in [-1, 1]
        mask         (B, m, H, W) in [0, 1]
        """
        embedding = self.embedding(noise_level)
        kept = self.encoder(torch.cat([x, lr, ref, mask], dim=1), embedding)
        return self.decoder(kept, embedding, torch.cat([lr, mask], dim=1), torch.cat([ref, mask], dim=1))


def _reference_block(
    style: BlockStyle,
    lr_condition_channels: int,
    ref_condition_channels: int,
    modulation_width: int,
    in_channels: int,
    out_channels: int,
    resample: Resample,
    attention: bool,
) -> ReferenceBlock:
    return ReferenceBlock(
        in_channels, out_channels, style, lr_condition_channels, ref_condition_channels, modulation_width, resample, attention
    )
