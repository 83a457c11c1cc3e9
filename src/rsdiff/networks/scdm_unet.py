"""SCDM's noise predictor: a U-Net that encodes the noisy cube and the condition by the same weights and joins both on the way up.

Source: Mr-Bamboo/SCDM, ddpm/unet.py. The paper's figure draws an encoder of its own for the condition; the code shares it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.diffusion_unet import DiffusionUNet, SkeletonConfig, require_multiple
from rsdiff.networks.layers import ResidualBlock, SinusoidalEmbedding


@config
class SCDMUNetConfig(SkeletonConfig):
    """Sizes of the network. The defaults are the published ones."""

    width: int = 128
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2, 2, 2, 2)
    """Channels of each level in units of `width`; the image is halved between levels."""
    time_width: int = 512
    """Width of the time embedding."""
    dropout: float = 0.1
    """Dropout in the second half of every residual block."""
    attention_levels: tuple[int, ...] = (3,)
    """Levels with attention, counted from 0; the middle always has it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 <= level < len(self.multipliers) for level in self.attention_levels):
            raise UserError(f"attention_levels={list(self.attention_levels)} must be among 0 to {len(self.multipliers) - 1}.")

    @property
    def size_multiple(self) -> int:
        """What the networks need an image's height and width to be multiples of."""
        return 2 ** (len(self.multipliers) - 1)

    def build_network(self, bands: int, condition_bands: int) -> SCDMUNet:
        """Return the network of one stage with fresh weights."""
        return SCDMUNet(self, bands, condition_bands)


class SCDMUNet(DiffusionUNet):
    """forward(x (B, bands, H, W), condition (B, condition_bands, H, W), t (B,)) -> predicted noise (B, bands, H, W).

    Only the two stems differ between the streams; the condition enters by the skips alone, never in the middle. Weights are PyTorch's
    initial ones: nothing is zeroed.
    """

    def __init__(self, options: SCDMUNetConfig, bands: int, condition_bands: int) -> None:
        width, time_width = options.width, options.time_width
        super().__init__(
            in_channels=bands,
            out_channels=bands,
            attention_down=frozenset(options.attention_levels),
            attention_up=frozenset(options.attention_levels),
            make_block=partial(
                ResidualBlock,
                embedding_width=time_width,
                norm_groups=options.norm_groups,
                dropout=options.dropout,
                activate_time=True,
                attention_bias=True,
            ),
            skip_streams=2,
            **options.sizes(),
        )
        self.condition_stem = nn.Conv2d(condition_bands, width, 3, padding=1)
        self.time = nn.Sequential(SinusoidalEmbedding(width), nn.Linear(width, time_width), nn.SiLU(), nn.Linear(time_width, time_width))

    def forward(self, x: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        require_multiple(x, self.size_multiple)
        embedding = (self.time(t),)
        h, skips = self.down_pass(self.stem(x), embedding)
        _, condition_skips = self.down_pass(self.condition_stem(condition), embedding)
        joined = [torch.cat(pair, dim=1) for pair in zip(skips, condition_skips, strict=True)]
        return self.up_pass(self.middle_pass(h, embedding), joined, embedding)
