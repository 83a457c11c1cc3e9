"""The noise predictor of LDCSR: latent diffusion's U-Net, told the step, the scale and the height of the target.

Source: MoooJianG/LDCSR, modules/diffusionmodules/openaimodel.py, UNetModel (CompVis/latent-diffusion's with two more embeddings).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.networks.diffusion_unet import DiffusionUNet
from rsdiff.networks.edm_layers import positional_embedding
from rsdiff.networks.layers import ResidualBlock, attended, reflect_to, zeroed

NORM_GROUPS = 32


class HeadedAttention(nn.Module):
    """x plus multi-head attention of every pixel of the normalised x to every other; the last projection starts at zero.

    The channels of query, key and value are stored head by head ([head][query, key, value]), as published.
    """

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        if channels % head_channels:
            raise UserError(f"{channels} channels do not split into heads of {head_channels}; choose a divisor.")
        self.heads = channels // head_channels
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)
        self.query_key_value = nn.Conv1d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        parts = self.query_key_value(self.norm(x).flatten(2)).unflatten(1, (self.heads, -1)).mT  # (B, heads, pixels, 3 head_channels)
        mixed = attended(*parts.chunk(3, dim=-1))
        return x + self.out(mixed.mT.flatten(1, 2)).unflatten(2, (height, width))


class LatentBlock(ResidualBlock):
    """DDPM's residual block, its last convolution starting at zero, with multi-head attention behind it where asked for."""

    def __init__(self, in_channels: int, out_channels: int, embedding_width: int, head_channels: int, attention: bool) -> None:
        super().__init__(
            in_channels,
            out_channels,
            embedding_width,
            norm_groups=NORM_GROUPS,
            dropout=0.0,
            attention=False,
            activate_time=True,
        )
        zeroed(self.conv2)
        if attention:
            self.attention = HeadedAttention(out_channels, head_channels)


class LatentUNet(DiffusionUNet):
    """forward(x (B, in_channels, y, x), step (B,), scale (B,), height (B,)) -> (B, out_channels, y, x), for latents of any size.

    attention_levels  levels with attention, 0 the finest; the middle always has it
    Other arguments as in DiffusionUNet. Sizes that cannot be halved often enough are extended at the bottom and right by reflection.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_levels: Sequence[int],
        head_channels: int,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            norm_groups=NORM_GROUPS,
            attention_down=frozenset(attention_levels),
            attention_up=frozenset(attention_levels),
            make_block=partial(LatentBlock, embedding_width=4 * width, head_channels=head_channels),
            checkpointing=checkpointing,
        )
        zeroed(self.conv_out)
        self.width = width
        self.step = embedding_mlp(width)
        self.scale = embedding_mlp(width)
        self.height = embedding_mlp(width)

    def forward(self, x: Tensor, step: Tensor, scale: Tensor, height: Tensor) -> Tensor:
        told = zip((self.step, self.scale, self.height), (step, scale, height), strict=True)
        embedding = torch.stack([mlp(positional_embedding(v.float(), self.width, endpoint=False).to(x.dtype)) for mlp, v in told]).sum(0)
        rows, columns = x.shape[-2:]
        multiple = self.size_multiple
        extended = reflect_to(x, -(-rows // multiple) * multiple, -(-columns // multiple) * multiple)
        return self.run(extended, embedding)[..., :rows, :columns]


def embedding_mlp(width: int) -> nn.Sequential:
    """Return Linear width -> 4 width, Swish, Linear."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
