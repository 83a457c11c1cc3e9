"""SR3's noise predictor (Janspiry's implementation; BlindSRSNF's `SR3VanillaUNet` is the same network)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rsdiff.networks.diffusion_unet import DiffusionUNet, attention_levels
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
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        norm_groups: int,
        dropout: float,
        nominal_size: int,
        attention_sizes: Sequence[int],
        checkpointing: bool = False,
    ) -> None:
        attention_down, attention_up = attention_levels(nominal_size, attention_sizes, len(multipliers))

        def make_block(in_channels: int, out_channels: int, attention: bool) -> ResidualBlock:
            return ResidualBlock(
                in_channels,
                out_channels,
                embedding_width=width,
                norm_groups=norm_groups,
                dropout=dropout,
                attention=attention,
                activate_time=self.activate_time,
            )

        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            norm_groups=norm_groups,
            attention_down=attention_down,
            attention_up=attention_up,
            make_block=make_block,
            checkpointing=checkpointing,
        )
        self.time = TimeEmbedding(width)
        orthogonal_(self)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.run(x, self.time(time))
