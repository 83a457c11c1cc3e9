"""SR3's noise predictor (Janspiry's implementation; BlindSRSNF's `SR3VanillaUNet` is the same network)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack

from torch import Tensor

from rsdiff.networks.diffusion_unet import DiffusionUNet, UNetSizes, attention_levels
from rsdiff.networks.layers import ResidualBlock, TimeEmbedding, orthogonal_


class SR3UNet(DiffusionUNet):
    """Predicts the noise in x_t = level * x0 + sqrt(1 - level^2) * noise, told the continuous level = sqrt(alpha_bar) in (0, 1].

    forward(x (B, in_channels, H, W), level (B,)) -> (B, out_channels, H, W). x is concat(condition, x_t), or x_t alone.
    Arguments are those of `DiffusionUNet`; `nominal_size` and `attention_sizes` decide which levels have attention (the middle always
    has it). Unlike the paper: DDPM's residual blocks, and the level only shifts the features (no scale).
    """

    activate_time = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        dropout: float,
        nominal_size: int,
        attention_sizes: Sequence[int],
        **sizes: Unpack[UNetSizes],
    ) -> None:
        attention_down, attention_up = attention_levels(nominal_size, attention_sizes, len(sizes["multipliers"]))
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            attention_down=attention_down,
            attention_up=attention_up,
            make_block=partial(
                ResidualBlock,
                embedding_width=sizes["width"],
                norm_groups=sizes["norm_groups"],
                dropout=dropout,
                activate_time=self.activate_time,
            ),
            **sizes,
        )
        self.time = TimeEmbedding(sizes["width"])
        orthogonal_(self)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.run(x, self.time(time))
