"""DhariwalUNet: the ADM network of Dhariwal and Nichol 2021 in EDM's form (arXiv 2206.00364, app. F.7 and table 1)."""

from __future__ import annotations

import math
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.networks.edm_unet import BlockStyle, Init, UNetDecoder, UNetEncoder, convolution, group_norm, linear
from rsdiff.networks.layers import positional_embedding
from rsdiff.networks.song_unet import check_levels, plain_block

KAIMING = Init("kaiming_uniform", weight=math.sqrt(1 / 3), bias=math.sqrt(1 / 3))
ZERO = Init("kaiming_uniform", weight=0.0, bias=0.0)


@config
class DhariwalUNetConfig:
    """Widths of an ADM network. The defaults are ImageNet at 64 pixels."""

    model_channels: int = 192
    """All widths are multiples of it."""
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    """Width of each level, in model_channels, finest first."""
    embedding_mult: int = 4
    """Width of the noise embedding, in model_channels."""
    num_blocks: int = 3
    """Encoder blocks per level; the decoder has one more."""
    attention_levels: tuple[int, ...] = (1, 2, 3)
    """Levels with attention in all blocks; the published 32, 16 and 8 pixels are levels 1 to 3 at 64 pixels."""
    dropout: float = 0.1
    """Probability of dropping a feature inside each block while training."""
    class_labels: int = 0
    """Length of a one-hot class label, 0 for none."""
    augment_labels: int = 0
    """Length of the augmentation label, 0 for none."""

    def __post_init__(self) -> None:
        check_levels(self.channel_mult, self.attention_levels)

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return int(2 ** (len(self.channel_mult) - 1))

    def build(self, in_channels: int, out_channels: int) -> DhariwalUNet:
        """Return the network for the given numbers of input and output channels."""
        return DhariwalUNet(self, in_channels, out_channels)


class DhariwalEmbedding(nn.Module):
    """Noise level, augmentation label and class label -> embedding of the blocks; the class joins after the mapping layers."""

    def __init__(self, options: DhariwalUNetConfig) -> None:
        super().__init__()
        self.noise_width = options.model_channels
        width = options.model_channels * options.embedding_mult
        self.augment = linear(options.augment_labels, self.noise_width, ZERO, bias=False) if options.augment_labels else None
        self.layer0 = linear(self.noise_width, width, KAIMING)
        self.layer1 = linear(width, width, KAIMING)
        label_init = Init("kaiming_normal", weight=math.sqrt(options.class_labels))
        self.label = linear(options.class_labels, width, label_init, bias=False) if options.class_labels else None

    def forward(self, noise_level: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None) -> Tensor:
        """Return (B, width). noise_level (B,); labels (B, n), where None stands for all zero."""
        embedding = positional_embedding(noise_level, self.noise_width, endpoint=False)
        if self.augment is not None and augment_labels is not None:
            embedding = embedding + self.augment(augment_labels)
        embedding = self.layer1(F.silu(self.layer0(embedding)))
        if self.label is not None and class_labels is not None:
            embedding = embedding + self.label(class_labels)
        return F.silu(embedding)


class DhariwalUNet(nn.Module):
    """ADM. Knows nothing of diffusion: see `rsdiff.diffusion.edm` for what it is asked to predict."""

    def __init__(self, options: DhariwalUNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        style = BlockStyle(
            embedding_width=options.model_channels * options.embedding_mult,
            dropout=options.dropout,
            skip_scale=1.0,
            epsilon=1e-5,
            resample_filter=(1, 1),
            resample_projection=False,
            adaptive_scale=True,
            head_channels=64,
            init=KAIMING,
            init_zero=ZERO,
            init_attention=KAIMING,
        )
        widths = [options.model_channels * mult for mult in options.channel_mult]
        self.embedding = DhariwalEmbedding(options)
        self.encoder = UNetEncoder(in_channels, widths[0], widths, options.num_blocks, options.attention_levels, style)
        self.decoder = UNetDecoder(
            self.encoder.skip_widths,
            widths,
            options.num_blocks,
            options.attention_levels,
            out_channels,
            style,
            make_block=partial(plain_block, style),
            attends="all",
            heads="none",
        )
        self.out_norm = group_norm(self.decoder.out_width, style.epsilon)
        self.out_conv = convolution(self.decoder.out_width, out_channels, 3, style.init_zero)

    def forward(self, x: Tensor, noise_level: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None) -> Tensor:
        """Return (B, out_channels, H, W) for x (B, in_channels, H, W) and noise_level (B,); H, W multiples of 2^(levels - 1)."""
        embedding = self.embedding(noise_level, class_labels, augment_labels)
        features = self.decoder(self.encoder(x, embedding), embedding)
        return self.out_conv(F.silu(self.out_norm(features)))
