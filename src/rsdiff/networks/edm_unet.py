"""The encoder and decoder that the U-Nets of EDM and of Ref-Diff have in common, as walks over named entries.

Levels are counted from the finest (0); an entry is called `level<n>_<what>`. The published code names levels by the training resolution
instead (`32x32_block0`), although no weight depends on it; `rsdiff.weights.keymaps` translates.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.networks.edm_layers import BlockStyle, Resample, ResampledConv2d, UNetBlock, convolution, group_norm


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
