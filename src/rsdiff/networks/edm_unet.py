"""What the U-Nets of EDM and of Ref-Diff have in common: layers, then the encoder and decoder as walks over named entries.

Layers are resampling convolutions, the residual block, its attention and its initialisation. Levels are counted from the finest (0); an
entry is called `level<n>_<what>`. The published code names levels by the training resolution instead (`32x32_block0`), although no weight
depends on it; `rsdiff.weights.keymaps` translates.
Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv 2206.00364), sec. 5 and app. F.6-F.7.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.networks.layers import attended

Resample = Literal["none", "up", "down"]


@dataclass(frozen=True)
class Init:
    """How a layer's weight and bias are drawn: the named distribution times a factor.

    mode    xavier_uniform: U(+-sqrt(6 / (fan_in + fan_out))); kaiming_uniform: U(+-sqrt(3 / fan_in)); kaiming_normal: N(0, 1 / fan_in)
    weight  factor of the weight
    bias    factor of the bias, drawn from the same distribution as the weight
    """

    mode: Literal["xavier_uniform", "kaiming_uniform", "kaiming_normal"]
    weight: float = 1.0
    bias: float = 0.0

    @torch.no_grad()
    def __call__(self, layer: nn.Module) -> None:
        """Draw the parameters `weight` and, where there is one, `bias` of `layer` in place."""
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
        for parameter, factor in ((weight, self.weight), (bias, self.bias)):
            if not isinstance(parameter, Tensor):
                continue
            if self.mode == "xavier_uniform":
                bound = math.sqrt(6 / (fan_in + fan_out))
                parameter.uniform_(-bound, bound)
            elif self.mode == "kaiming_uniform":
                bound = math.sqrt(3 / fan_in)
                parameter.uniform_(-bound, bound)
            else:
                parameter.normal_(std=math.sqrt(1 / fan_in))
            parameter.mul_(factor)


@dataclass(frozen=True)
class BlockStyle:
    """What all residual blocks of one network have in common.

    embedding_width      length of the noise embedding that every block receives
    dropout              probability, before the second convolution
    skip_scale           factor of every residual sum (sqrt(0.5) keeps the variance, 1 does not)
    epsilon              of the group norms
    resample_filter      one-dimensional filter of 2x resampling; (1, 1) is nearest up and mean down
    resample_projection  a 1x1 convolution in every resampling skip, even where the width stays
    adaptive_scale       the embedding scales and shifts the second norm's output; otherwise it is added before that norm
    head_channels        channels per attention head; None means one head. As published, a block narrower than one head does not attend
    """

    embedding_width: int
    dropout: float
    skip_scale: float
    epsilon: float
    resample_filter: tuple[int, ...]
    resample_projection: bool
    adaptive_scale: bool
    head_channels: int | None
    init: Init
    init_zero: Init
    init_attention: Init


def linear(in_features: int, out_features: int, init: Init, bias: bool = True) -> nn.Linear:
    """Return a linear layer drawn from `init`."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    init(layer)
    return layer


def convolution(in_channels: int, out_channels: int, kernel_size: int, init: Init) -> nn.Conv2d:
    """Return a size-preserving convolution drawn from `init`."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    init(layer)
    return layer


def group_norm(channels: int, epsilon: float) -> nn.GroupNorm:
    """Return a group norm of at most 32 groups of at least four channels; raises UserError if the channels do not divide."""
    groups = min(32, channels // 4)
    if groups == 0 or channels % groups:
        raise UserError(
            f"{channels} channels cannot be normalised in min(32, channels / 4) equal groups; "
            "choose widths that are multiples of 4, and of 32 from 128 channels on."
        )
    return nn.GroupNorm(groups, channels, eps=epsilon)


class ResampledConv2d(nn.Module):
    """2x up- or downsampling with a fixed filter, joined with a convolution; kernel_size 0 only resamples.

    fused pads once for filter and convolution together, which gives other values at the border than resampling first.
    Source: EDM, app. F.6 ("Resampling filter"); the fused form is the one of its residual encoder.
    """

    kernel: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        resample: Literal["up", "down"],
        resample_filter: Sequence[int],
        init: Init | None = None,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.fused = fused
        self.filter_pad = (len(resample_filter) - 1) // 2
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if kernel_size:
            self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel_size, kernel_size))
            self.bias = nn.Parameter(torch.zeros(out_channels))
            if init is not None:
                init(self)
        elif in_channels != out_channels:
            raise UserError(
                f"resampling alone cannot turn {in_channels} channels into {out_channels}; give it a kernel_size of at least 1."
            )
        self.register_buffer("kernel", separable_kernel(resample_filter), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, 2H, 2W) or (B, out_channels, H/2, W/2) for x (B, in_channels, H, W)."""
        convolution_pad = 0 if self.weight is None else self.weight.shape[-1] // 2
        if not self.fused or self.weight is None:
            x = self._up(x, self.filter_pad) if self.resample == "up" else self._down(x, self.filter_pad)
            return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=convolution_pad)
        if self.resample == "up":
            x = self._up(x, max(self.filter_pad - convolution_pad, 0))
            return F.conv2d(x, self.weight, self.bias, padding=max(convolution_pad - self.filter_pad, 0))
        # The filter sums to 1, so the bias may be added before it.
        x = F.conv2d(x, self.weight, self.bias, padding=convolution_pad + self.filter_pad)
        return self._down(x, 0)

    def _up(self, x: Tensor, padding: int) -> Tensor:
        channels = x.shape[1]
        kernel = (4 * self.kernel).to(x.dtype).expand(channels, 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=padding, groups=channels)

    def _down(self, x: Tensor, padding: int) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.to(x.dtype).expand(channels, 1, -1, -1), stride=2, padding=padding, groups=channels)


def separable_kernel(resample_filter: Sequence[int]) -> Tensor:
    """Return the (n, n) outer product of a one-dimensional filter with itself, of sum 1."""
    taps = torch.tensor(resample_filter, dtype=torch.float32)
    return taps.outer(taps) / taps.sum().square()


def attention_heads(channels: int, style: BlockStyle) -> int:
    """Return the number of attention heads for a width; 0 where the width is less than one head."""
    return 1 if style.head_channels is None else channels // style.head_channels


class SelfAttention(nn.Module):
    """Attention over all pixels, added to its input and scaled.

    Query, key and value of a channel are neighbours in the projection: channel = head * 3 width + 3 c + {0, 1, 2}.
    """

    def __init__(self, channels: int, style: BlockStyle) -> None:
        super().__init__()
        self.heads = attention_heads(channels, style)
        self.skip_scale = style.skip_scale
        self.norm = group_norm(channels, style.epsilon)
        self.qkv = convolution(channels, 3 * channels, 1, style.init_attention)
        self.proj = convolution(channels, channels, 1, style.init_zero)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, self.heads, channels // self.heads, 3, height * width)
        query, key, value = (part.transpose(-1, -2) for part in qkv.unbind(3))
        mixed = attended(query, key, value)
        return (self.proj(mixed.transpose(-1, -2).reshape(x.shape)) + x) * self.skip_scale


class UNetBlock(nn.Module):
    """Residual block under a noise embedding, with optional 2x resampling and attention (EDM, fig. 8 left and table 8)."""

    def __init__(
        self, in_channels: int, out_channels: int, style: BlockStyle, resample: Resample = "none", attention: bool = False
    ) -> None:
        super().__init__()
        self.skip_scale = style.skip_scale
        self.adaptive_scale = style.adaptive_scale
        self.norm0 = group_norm(in_channels, style.epsilon)
        self.conv0 = _maybe_resampled(in_channels, out_channels, 3, resample, style)
        self.affine = linear(style.embedding_width, out_channels * (2 if style.adaptive_scale else 1), style.init)
        self.norm1 = group_norm(out_channels, style.epsilon)
        self.dropout = nn.Dropout(style.dropout)
        self.conv1 = convolution(out_channels, out_channels, 3, style.init_zero)
        self.skip: nn.Module = nn.Identity()
        if out_channels != in_channels or resample != "none":
            projected = out_channels != in_channels or style.resample_projection
            self.skip = _maybe_resampled(in_channels, out_channels, 1 if projected else 0, resample, style)
        attends = attention and attention_heads(out_channels, style) > 0
        self.attention = SelfAttention(out_channels, style) if attends else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return (B, out_channels, H', W') for x (B, in_channels, H, W) and embedding (B, embedding_width)."""
        h = self.conv0(F.silu(self.norm0(x)))
        shift = self.affine(embedding)[:, :, None, None]
        if self.adaptive_scale:
            scale, shift = shift.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h + shift)
        return self.finish(F.silu(h), x)

    def finish(self, h: Tensor, x: Tensor) -> Tensor:
        """Return the block's output from the activated inner features h and the block's input x."""
        return self.attention((self.conv1(self.dropout(h)) + self.skip(x)) * self.skip_scale)


def _maybe_resampled(in_channels: int, out_channels: int, kernel_size: int, resample: Resample, style: BlockStyle) -> nn.Module:
    if resample == "none":
        return convolution(in_channels, out_channels, kernel_size, style.init)
    return ResampledConv2d(in_channels, out_channels, kernel_size, resample, style.resample_filter, style.init)


def fourier_embedding(noise_level: Tensor, frequencies: Tensor) -> Tensor:
    """Return (B, 2 n) [cos, sin] of 2 pi noise_level (B,) times n random frequencies (NCSN++)."""
    angles = noise_level.outer((2 * math.pi * frequencies).to(noise_level.dtype))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def sine_first(embedding: Tensor) -> Tensor:
    """Return [sin, cos] for an embedding [cos, sin]: the order that DDPM++ and NCSN++ were trained with."""
    cosine, sine = embedding.chunk(2, dim=1)
    return torch.cat([sine, cosine], dim=1)


class BlockMaker(Protocol):
    """Makes one decoder block."""

    def __call__(self, in_channels: int, out_channels: int, resample: Resample, attention: bool) -> nn.Module: ...


class UNetEncoder(nn.Module):
    """Stem convolution, then per level (a downsampling block and) `num_blocks` blocks; every output is kept for the decoder.

    stem_width        channels after the first convolution
    widths            channels of each level
    attention_levels  levels whose blocks attend
    pyramid           how lower levels see the input again: `none`; `skip`: the resampled input through a 1x1 convolution is added;
                      `residual`: features and input pyramid are one (Song et al. 2021; EDM, app. F.6)
    """

    def __init__(
        self,
        in_channels: int,
        stem_width: int,
        widths: Sequence[int],
        num_blocks: int,
        attention_levels: Collection[int],
        style: BlockStyle,
        pyramid: Literal["none", "skip", "residual"] = "none",
    ) -> None:
        super().__init__()
        self.entries = nn.ModuleDict()
        self.skip_widths: list[int] = []
        current, pyramid_width = stem_width, in_channels
        for level, width in enumerate(widths):
            if level == 0:
                self.entries["level0_conv"] = convolution(in_channels, stem_width, 3, style.init)
            else:
                self.entries[f"level{level}_down"] = UNetBlock(current, current, style, resample="down")
                if pyramid == "skip":
                    self.entries[f"level{level}_aux_down"] = ResampledConv2d(pyramid_width, pyramid_width, 0, "down", style.resample_filter)
                    self.entries[f"level{level}_aux_skip"] = convolution(pyramid_width, current, 1, style.init)
                elif pyramid == "residual":
                    self.entries[f"level{level}_aux_residual"] = ResampledConv2d(
                        pyramid_width, current, 3, "down", style.resample_filter, style.init, fused=True
                    )
                    pyramid_width = current
            self.skip_widths.append(current)
            for index in range(num_blocks):
                self.entries[f"level{level}_block{index}"] = UNetBlock(current, width, style, attention=level in attention_levels)
                current = width
                self.skip_widths.append(current)

    def forward(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Return all kept features, the bottom last, for x (B, in_channels, H, W) and embedding (B, embedding_width)."""
        kept: list[Tensor] = []
        pyramid = x
        for name, entry in self.entries.items():
            if name.endswith("_aux_down"):
                pyramid = entry(pyramid)
            elif name.endswith("_aux_skip"):
                x = kept[-1] = x + entry(pyramid)
            elif name.endswith("_aux_residual"):
                x = kept[-1] = pyramid = (x + entry(pyramid)) * math.sqrt(0.5)
            else:
                x = entry(x, embedding) if isinstance(entry, UNetBlock) else entry(x)
                kept.append(x)
        return kept


class UNetDecoder(nn.Module):
    """Two blocks at the bottom (the first attends), then per level (an upsampling block and) `num_blocks` + 1 blocks on the kept features.

    skip_widths  channels of the encoder's kept features
    make_block   makes each block, so that a network may condition its decoder
    attends      blocks of an attention level that attend: `all` or the `last`
    heads        norm, SiLU and a 3x3 convolution to the image: `none`, at the finest level (`one`), or at every level and summed (`sum`)
    """

    def __init__(
        self,
        skip_widths: Sequence[int],
        widths: Sequence[int],
        num_blocks: int,
        attention_levels: Collection[int],
        out_channels: int,
        style: BlockStyle,
        make_block: BlockMaker,
        attends: Literal["all", "last"],
        heads: Literal["none", "one", "sum"],
    ) -> None:
        super().__init__()
        self.entries = nn.ModuleDict()
        waiting = list(skip_widths)
        current = waiting[-1]
        for level, width in reversed(list(enumerate(widths))):
            if level == len(widths) - 1:
                self.entries[f"level{level}_in0"] = make_block(current, current, "none", True)
                self.entries[f"level{level}_in1"] = make_block(current, current, "none", False)
            else:
                self.entries[f"level{level}_up"] = make_block(current, current, "up", False)
            for index in range(num_blocks + 1):
                attention = level in attention_levels and (attends == "all" or index == num_blocks)
                self.entries[f"level{level}_block{index}"] = make_block(current + waiting.pop(), width, "none", attention)
                current = width
            if heads == "sum" or (heads == "one" and level == 0):
                if level < len(widths) - 1 and heads == "sum":
                    self.entries[f"level{level}_aux_up"] = ResampledConv2d(out_channels, out_channels, 0, "up", style.resample_filter)
                self.entries[f"level{level}_aux_norm"] = group_norm(current, style.epsilon)
                self.entries[f"level{level}_aux_conv"] = convolution(current, out_channels, 3, style.init_zero)
        self.out_width = current

    def forward(self, kept: Sequence[Tensor], *conditions: Tensor) -> Tensor:
        """Return the image (with heads) or the finest features (without) from the encoder's kept features.

        conditions are handed to every block after the features.
        """
        waiting = list(kept)
        x = waiting[-1]
        head, image = x, None
        for name, entry in self.entries.items():
            if name.endswith("_aux_up"):
                image = entry(image)
            elif name.endswith("_aux_norm"):
                head = entry(x)
            elif name.endswith("_aux_conv"):
                image = entry(F.silu(head)) if image is None else entry(F.silu(head)) + image
            else:
                if "_block" in name:
                    x = torch.cat([x, waiting.pop()], dim=1)
                x = entry(x, *conditions)
        return x if image is None else image
