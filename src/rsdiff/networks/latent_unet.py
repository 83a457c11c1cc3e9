"""The noise predictor of LDCSR: latent diffusion's U-Net, told the step, the scale and the height of the target.

Source: MoooJianG/LDCSR, modules/diffusionmodules/openaimodel.py, UNetModel (CompVis/latent-diffusion's with two more embeddings).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.diffusion_unet import DiffusionUNet
from rsdiff.networks.layers import ResidualBlock, attended, positional_embedding, reflect_to_multiple, zeroed

if TYPE_CHECKING:
    from rsdiff.networks.sr3_unet import UNetAtom

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
    """forward(x (B, 2 channels, y, x), step (B,), scale (B,), height (B,)) -> (B, channels, y, x), for latents of any size.

    Sizes that cannot be halved often enough are extended at the bottom and right by reflection.
    """

    def __init__(self, options: LatentUNetConfig, channels: int) -> None:
        width = options.width
        super().__init__(
            in_channels=2 * channels,
            out_channels=channels,
            width=width,
            multipliers=options.multipliers,
            blocks=options.blocks,
            norm_groups=NORM_GROUPS,
            attention_down=frozenset(options.attention_levels),
            attention_up=frozenset(options.attention_levels),
            make_block=partial(LatentBlock, embedding_width=4 * width, head_channels=options.head_channels),
            checkpointing=options.checkpointing,
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
        extended = reflect_to_multiple(x, self.size_multiple)
        return self.run(extended, embedding)[..., :rows, :columns]


def embedding_mlp(width: int) -> nn.Sequential:
    """Return Linear width -> 4 width, Swish, Linear."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))


@config
class LatentUNetConfig:
    """The noise predictor."""

    width: int = 64
    """Channels of the first level; a multiple of 32."""
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    """Channels of each level in units of `width`; the latent is halved between levels."""
    blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    attention_levels: tuple[int, ...] = (3,)
    """Levels with attention, 0 the finest; the middle always has it."""
    head_channels: int = 32
    """Channels of each attention head."""
    checkpointing: bool = False
    """Recompute the activations of each block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        if not self.multipliers or min(self.multipliers) < 1 or self.blocks < 1 or self.width < 32 or self.width % 32:
            raise UserError(
                f"width={self.width}, multipliers={list(self.multipliers)}, blocks={self.blocks} make no network; choose a multiple of 32 "
                "and numbers of at least 1."
            )
        if any(not 0 <= level < len(self.multipliers) for level in self.attention_levels):
            raise UserError(f"attention_levels={list(self.attention_levels)} must lie between 0 and {len(self.multipliers) - 1}.")

    def build(self, latent_channels: int) -> LatentUNet:
        """Return the network with fresh weights for a noisy latent and a condition of `latent_channels` each."""
        return LatentUNet(self, latent_channels)

    def build_atom(self, latent_channels: int, norm_groups: int = 32) -> UNetAtom:
        """Return the older network of the same sizes, see `LDCSRConfig.architecture`."""
        from rsdiff.networks.sr3_unet import SR3UNetConfig, UNetAtom

        nominal = 2 ** (len(self.multipliers) - 1)  # level i counts nominal / 2^i pixels
        sizes = SR3UNetConfig(
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            norm_groups=norm_groups,
            nominal_size=nominal,
            attention_sizes=tuple(nominal >> level for level in self.attention_levels),
            checkpointing=self.checkpointing,
        )
        return UNetAtom(sizes, latent_channels)
