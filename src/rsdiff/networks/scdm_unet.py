"""SCDM's noise predictor: a U-Net that encodes the noisy cube and the condition by the same weights and joins both on the way up.

Source: Mr-Bamboo/SCDM, ddpm/unet.py. The paper's figure draws an encoder of its own for the condition; the code shares it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from rsdiff.networks.diffusion_unet import DiffusionUNet, UNetSizes, require_multiple
from rsdiff.networks.layers import ResidualBlock, SinusoidalEmbedding


class SCDMUNet(DiffusionUNet):
    """forward(x (B, bands, H, W), condition (B, condition_bands, H, W), t (B,)) -> predicted noise (B, bands, H, W).

    time_width        width of the time embedding
    attention_levels  levels whose blocks have attention (indices into `multipliers`); the first middle block always has it
    Other arguments as in DiffusionUNet. Only the two stems differ between the streams; the condition enters by the skips alone, never
    in the middle. Weights are PyTorch's initial ones: nothing is zeroed.
    """

    def __init__(
        self,
        *,
        bands: int,
        condition_bands: int,
        time_width: int,
        dropout: float,
        attention_levels: Sequence[int],
        **sizes: Unpack[UNetSizes],
    ) -> None:
        width = sizes["width"]
        super().__init__(
            in_channels=bands,
            out_channels=bands,
            attention_down=frozenset(attention_levels),
            attention_up=frozenset(attention_levels),
            make_block=partial(
                ResidualBlock,
                embedding_width=time_width,
                norm_groups=sizes["norm_groups"],
                dropout=dropout,
                activate_time=True,
                attention_bias=True,
            ),
            skip_streams=2,
            **sizes,
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
