"""MST++ and MST-L: U-shaped transformers whose attention is between the channels of an image, for spectral super-resolution.

Source: caiyuanhao1998/MST-plus-plus, architecture/MST_Plus_Plus.py and MST.py, where a network is as wide as the cube has bands (31) and
its first features are added to its result. Of another width, it adds nothing to what its last convolution makes of the features.
Attention sees all pixels, so the result of a tile differs from that of the whole image. Heights and widths must be multiples of
2^(levels - 1); the published networks extend any image to multiples of 8 by reflection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.layers import channel_attention
from rsdiff.networks.restorers import RestorerConfig

SLOPE = 0.1


class MaskGate(nn.Module):
    """Factor of attention's values, made of a mask feature (B, C, h, w): a + a * sigmoid(depthwise 5x5 of 1x1 of a), a = 1x1 of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.spread = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)

    def forward(self, mask: Tensor) -> Tensor:
        entered = self.enter(mask)
        return entered + entered * self.spread(self.mix(entered)).sigmoid()


class SpectralAttention(nn.Module):
    """Attention between the channels of every head, plus what two depthwise convolutions make of the values as an image.

    masked  the values that attention mixes are multiplied by a `MaskGate` of the mask, those that are convolved are not
    """

    def __init__(self, channels: int, heads: int, masked: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.position = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        )
        self.gate = MaskGate(channels) if masked else None

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        last = x.movedim(1, -1)
        query, key, value = (layer(last).movedim(-1, 1) for layer in (self.query, self.key, self.value))
        mixed = value
        if self.gate is not None:
            assert mask is not None
            mixed = value * self.gate(mask)
        query, key, mixed = (part.unflatten(1, (self.heads, -1)).flatten(3) for part in (query, key, mixed))
        # Rows of the published attention are the keys' channels, its columns the queries': what others call the query is their key.
        attended = channel_attention(key, query, mixed, self.temperature).flatten(1, 2).unflatten(2, x.shape[-2:])
        return self.out(attended.movedim(1, -1)).movedim(-1, 1) + self.position(value)


class SpectralFeedForward(nn.Sequential):
    """1x1 convolution to 4 C channels, depthwise 3x3, 1x1 back to C, GELU between them; no biases."""

    def __init__(self, channels: int) -> None:
        wide = 4 * channels
        super().__init__(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.GELU(),
            nn.Conv2d(wide, channels, 1, bias=False),
        )


class SpectralBlock(nn.Module):
    """x plus attention of x, which is not normalised, then x plus a feed-forward part of the normalised x."""

    def __init__(self, channels: int, heads: int, masked: bool) -> None:
        super().__init__()
        self.attention = SpectralAttention(channels, heads, masked)
        self.norm = nn.LayerNorm(channels)
        self.feed_forward = SpectralFeedForward(channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(x, mask)
        return x + self.feed_forward(self.norm(x.movedim(1, -1)).movedim(-1, 1))


class SpectralStack(nn.ModuleList):
    """`blocks` spectral blocks in a row, all told the same mask."""

    def __init__(self, channels: int, heads: int, blocks: int, masked: bool) -> None:
        super().__init__(SpectralBlock(channels, heads, masked) for _ in range(blocks))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for block in self:
            x = block(x, mask)
        return x


class SpectralUNet(nn.Module):
    """Stacks of spectral blocks on an image that is halved, and doubled in width, between levels.

    width   channels of the first level, and of every head of every level
    blocks  blocks of each level, the last being the bottom; the way up has as many as the way down
    masked  see `SpectralAttention`; the mask is halved like the image, and every level of the way up sees that of the way down
    """

    def __init__(self, width: int, blocks: Sequence[int], masked: bool = False) -> None:
        super().__init__()
        *upper, bottom = blocks
        heads_of = [2**level for level in range(len(upper))]
        widths = [width * heads for heads in heads_of]

        def halve(channels: int) -> nn.Conv2d:
            return nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1, bias=False)

        def stacks() -> nn.ModuleList:
            return nn.ModuleList(SpectralStack(width * heads, heads, count, masked) for heads, count in zip(heads_of, upper, strict=True))

        self.encoders = stacks()
        self.downs = nn.ModuleList(halve(channels) for channels in widths)
        self.mask_downs = nn.ModuleList(halve(channels) for channels in widths) if masked else None
        self.bottom = SpectralStack(width * 2 ** len(upper), 2 ** len(upper), bottom, masked)
        # Index i of what follows belongs to the step from level i + 1 up to level i.
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * channels, channels, 2, stride=2) for channels in widths)
        self.fusions = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1, bias=False) for channels in widths)
        self.decoders = stacks()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, width, h, w) of x and, where the network is masked, mask of that shape (or of batch size 1)."""
        skips, masks = [], []
        for level, encoder in enumerate(self.encoders):
            x = encoder(x, mask)
            skips.append(x)
            masks.append(mask)
            x = self.downs[level](x)
            if self.mask_downs is not None:
                mask = self.mask_downs[level](mask)
        x = self.bottom(x, mask)
        for level in reversed(range(len(self.decoders))):
            joined = torch.cat([self.ups[level](x), skips[level]], dim=1)
            x = self.decoders[level](self.fusions[level](joined), masks[level])
        return x


class HalvingNetConfig(RestorerConfig):
    """What MST++ and MST-L have in common: levels between which the image is halved."""

    width: int | None
    blocks: tuple[int, ...]

    def check(self) -> None:
        """Raise UserError for options that make no network."""
        if self.width is not None and self.width < 1:
            raise UserError(f"width={self.width} was given; choose at least 1 channel, or null for as many as there are bands.")
        if len(self.blocks) < 1 or min(self.blocks) < 0:
            raise UserError(f"blocks={list(self.blocks)} make no network; give a number of blocks, 0 or more, for every level.")

    def refuse_network(self, problem: Problem) -> str | None:
        return problem.refuse_other_scales(self.kind)

    def size_multiple(self, problem: Problem) -> int:
        # 8 as published, though these networks halve twice: attention sees the pixels that an image is extended by.
        return max(8, 2 ** (len(self.blocks) - 1))


@config
class MSTPlusPlusNetConfig(HalvingNetConfig):
    """MST++. The defaults are the published network."""

    kind: ClassVar[str] = "mstpp"

    width: int | None = None
    """Channels of the first level; null: as many as there are bands, as published."""
    stages: int = 3
    """U-Nets in a row."""
    blocks: tuple[int, ...] = (1, 1, 1)
    """Blocks of every level of a U-Net on the way down; the way up has as many."""

    def __post_init__(self) -> None:
        self.check()

    def build_network(self, problem: Problem) -> MSTPlusPlus:
        return MSTPlusPlus(self, problem.lr_bands, problem.bands)


@config
class MSTLNetConfig(HalvingNetConfig):
    """MST-L. The defaults are the published network."""

    kind: ClassVar[str] = "mst_l"

    width: int | None = None
    """Channels of the first level; null: as many as there are bands, as published."""
    blocks: tuple[int, ...] = (4, 7, 5)
    """Blocks of every level on the way down; the way up has as many."""
    mask_of_first: Annotated[bool, Ours("sampling", published=(True,))] = False
    """The mask of a batch's first image serves all its images, as published, so that results depend on the batch."""

    def __post_init__(self) -> None:
        self.check()

    def build_network(self, problem: Problem) -> MSTL:
        return MSTL(self, problem.lr_bands, problem.bands)


class SpectralStage(nn.Module):
    """z plus a U-Net of z between two 3x3 convolutions: one stage of MST++."""

    def __init__(self, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.unet = SpectralUNet(width, blocks)
        self.leave = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return z + self.leave(self.unet(self.enter(z)))


class MSTPlusPlus(nn.Module):
    """forward(lr (B, in_bands, H, W)) -> (B, bands, H, W), unbounded: `stages` U-Nets in a row.

    Features are added to the result where they are as many as the bands. H and W are multiples of 2^(len(blocks) - 1).
    """

    def __init__(self, options: MSTPlusPlusNetConfig, in_bands: int, bands: int) -> None:
        super().__init__()
        width, blocks = options.width or bands, options.blocks
        self.adds = width == bands
        self.enter = nn.Conv2d(in_bands, width, 3, padding=1, bias=False)
        self.stages = nn.Sequential(*(SpectralStage(width, blocks) for _ in range(options.stages)))
        self.leave = nn.Conv2d(width, bands, 3, padding=1, bias=False)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    @property
    def last_layer(self) -> nn.Conv2d:
        """The layer that makes the bands."""
        return self.leave

    def forward(self, lr: Tensor) -> Tensor:
        entered = self.enter(lr)
        result = self.leave(self.stages(entered))
        return entered + result if self.adds else result


class MSTL(nn.Module):
    """forward(lr (B, in_bands, H, W)) -> (B, bands, H, W), unbounded: one U-Net whose attention is masked by a second feature of the input.

    See `MSTPlusPlus`.
    """

    def __init__(self, options: MSTLNetConfig, in_bands: int, bands: int) -> None:
        super().__init__()
        width, blocks = options.width or bands, options.blocks
        self.adds = width == bands
        self.mask_of_first = options.mask_of_first
        self.enter_mask = nn.Conv2d(in_bands, width, 3, padding=1, bias=False)
        self.enter = nn.Conv2d(in_bands, width, 3, padding=1, bias=False)
        self.unet = SpectralUNet(width, blocks, masked=True)
        self.leave = nn.Conv2d(width, bands, 3, padding=1, bias=False)

    @property
    def last_layer(self) -> nn.Conv2d:
        """The layer that makes the bands."""
        return self.leave

    def forward(self, lr: Tensor) -> Tensor:
        entered = F.leaky_relu(self.enter(lr), SLOPE, inplace=True)
        mask = F.leaky_relu(self.enter_mask(lr[:1] if self.mask_of_first else lr), SLOPE, inplace=True)
        result = self.leave(self.unet(entered, mask))
        return entered + result if self.adds else result
