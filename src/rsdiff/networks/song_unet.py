"""SongUNet: the DDPM++ and NCSN++ networks of Song et al. 2021 in EDM's form.

Source: arXiv 2206.00364, app. F.6 and table 1; `ddpmpp` is embedding=positional, pyramid=none, filter (1, 1); `ncsnpp` is
embedding=fourier, pyramid=residual, filter (1, 3, 3, 1), noise_width_factor 2.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.edm_unet import BlockStyle, Init, Resample, UNetBlock, UNetDecoder, UNetEncoder, fourier_embedding, linear, sine_first
from rsdiff.networks.layers import positional_embedding

XAVIER = Init("xavier_uniform")


@config
class SongUNetConfig:
    """Widths and variants of a SongUNet. The defaults are DDPM++ at 64 pixels."""

    model_channels: int = 128
    """Channels of the stem; all widths are multiples of it."""
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    """Width of each level, in model_channels, finest first."""
    embedding_mult: int = 4
    """Width of the noise embedding, in model_channels."""
    num_blocks: int = 4
    """Encoder blocks per level; the decoder has one more."""
    attention_levels: tuple[int, ...] = (2,)
    """Levels with attention in all encoder blocks and the last decoder block; the published 16-pixel level is 2 at 64 pixels, 1 at 32."""
    dropout: float = 0.1
    """Probability of dropping a feature inside each block while training."""
    embedding: Literal["positional", "fourier"] = "positional"
    """How the noise level enters: fixed sinusoids (DDPM++) or random frequencies (NCSN++)."""
    noise_width_factor: int = 1
    """Width of the sinusoids before the mapping layers, in model_channels; NCSN++ uses 2."""
    pyramid: Literal["none", "skip", "residual"] = "none"
    """How lower levels see the input again; NCSN++ uses residual."""
    output_heads: Literal["one", "sum"] = "one"
    """Whether the image comes from the finest level alone or is summed over levels."""
    resample_filter: tuple[int, ...] = (1, 1)
    """One-dimensional filter of the 2x resampling; NCSN++ uses 1,3,3,1."""
    class_labels: int = 0
    """Length of a one-hot class label, 0 for none."""
    augment_labels: int = 0
    """Length of the augmentation label, 0 for none; the published pipe has 9."""

    def __post_init__(self) -> None:
        check_levels(self.channel_mult, self.attention_levels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.model_channels * mult for mult in self.channel_mult)

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return int(2 ** (len(self.channel_mult) - 1))

    def block_style(self) -> BlockStyle:
        """Return what every block of a SongUNet has in common."""
        return BlockStyle(
            embedding_width=self.model_channels * self.embedding_mult,
            dropout=self.dropout,
            skip_scale=math.sqrt(0.5),
            epsilon=1e-6,
            resample_filter=self.resample_filter,
            resample_projection=True,
            adaptive_scale=False,
            head_channels=None,
            init=XAVIER,
            init_zero=Init("xavier_uniform", weight=1e-5),
            init_attention=Init("xavier_uniform", weight=math.sqrt(0.2)),
        )

    def build(self, in_channels: int, out_channels: int) -> SongUNet:
        """Return the network for the given numbers of input and output channels."""
        return SongUNet(self, in_channels, out_channels)


def check_levels(channel_mult: tuple[int, ...], attention_levels: tuple[int, ...]) -> None:
    """Raise ValueError when there is no level, or when attention is asked of a level that does not exist."""
    if not channel_mult:
        raise UserError("channel_mult is empty; give one multiple per level, for example [1,2,2,2].")
    beyond = [level for level in attention_levels if not 0 <= level < len(channel_mult)]
    if beyond:
        raise UserError(f"attention_levels holds {beyond[0]}, but the levels of channel_mult are 0 to {len(channel_mult) - 1}; remove it.")


class SongEmbedding(nn.Module):
    """Noise level, class label and augmentation label -> embedding of the blocks."""

    frequencies: Tensor

    def __init__(self, options: SongUNetConfig) -> None:
        super().__init__()
        noise_width = options.model_channels * options.noise_width_factor
        width = options.model_channels * options.embedding_mult
        self.kind = options.embedding
        self.noise_width = noise_width
        if options.embedding == "fourier":
            self.register_buffer("frequencies", torch.randn(noise_width // 2) * 16)
        self.label = linear(options.class_labels, noise_width, XAVIER) if options.class_labels else None
        self.augment = linear(options.augment_labels, noise_width, XAVIER, bias=False) if options.augment_labels else None
        self.layer0 = linear(noise_width, width, XAVIER)
        self.layer1 = linear(width, width, XAVIER)

    def forward(self, noise_level: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None) -> Tensor:
        """Return (B, width). noise_level (B,); labels (B, n), where None stands for all zero."""
        if self.kind == "fourier":
            embedding = sine_first(fourier_embedding(noise_level, self.frequencies))
        else:
            embedding = sine_first(positional_embedding(noise_level, self.noise_width, endpoint=True))
        if self.label is not None:
            if class_labels is None:
                class_labels = embedding.new_zeros(1, self.label.in_features)
            embedding = embedding + self.label(class_labels * math.sqrt(self.label.in_features))
        if self.augment is not None and augment_labels is not None:
            embedding = embedding + self.augment(augment_labels)
        return F.silu(self.layer1(F.silu(self.layer0(embedding))))


class SongUNet(nn.Module):
    """DDPM++ or NCSN++. Knows nothing of diffusion: see `rsdiff.diffusion.edm` for what it is asked to predict."""

    def __init__(self, options: SongUNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        style = options.block_style()
        self.embedding = SongEmbedding(options)
        self.encoder = UNetEncoder(
            in_channels, options.model_channels, options.widths, options.num_blocks, options.attention_levels, style, options.pyramid
        )
        self.decoder = UNetDecoder(
            self.encoder.skip_widths,
            options.widths,
            options.num_blocks,
            options.attention_levels,
            out_channels,
            style,
            make_block=partial(plain_block, style),
            attends="last",
            heads=options.output_heads,
        )

    def forward(self, x: Tensor, noise_level: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None) -> Tensor:
        """Return (B, out_channels, H, W) for x (B, in_channels, H, W) and noise_level (B,); H, W multiples of 2^(levels - 1)."""
        embedding = self.embedding(noise_level, class_labels, augment_labels)
        return self.decoder(self.encoder(x, embedding), embedding)


def plain_block(style: BlockStyle, in_channels: int, out_channels: int, resample: Resample, attention: bool) -> UNetBlock:
    """Return a decoder block that is conditioned on the noise embedding alone."""
    return UNetBlock(in_channels, out_channels, style, resample, attention)
