"""The U-Net skeleton of DDPM as SR3 uses it; the published networks differ in the blocks they put in.

down   stem convolution; per level `blocks` blocks, then a strided convolution except at the last level; the stem's, every block's and
       every strided convolution's output is kept as a skip
middle a block with attention, a block without
up     per level, deepest first: `blocks` + 1 blocks, each fed concat(current, latest skip), then an enlargement except at level 0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NotRequired, Protocol, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rsdiff.config import UserError, config
from rsdiff.networks.layers import Upsample

Enlarger = Callable[[int, nn.Module, Tensor, Tensor], Tensor]


class BlockMaker(Protocol):
    """Makes a block from its channels, called as block(x, *conditions); `attention` says whether it has attention behind it."""

    def __call__(self, in_channels: int, out_channels: int, /, *, attention: bool) -> nn.Module: ...


class UNetSizes(TypedDict):
    """The arguments of `DiffusionUNet` that networks of this skeleton hand on as they are."""

    width: int
    multipliers: Sequence[int]
    blocks: int
    norm_groups: int
    checkpointing: NotRequired[bool]


class DownLevel(nn.Module):
    """Blocks of one resolution on the way down; `leave` halves the size (rounding up) and is the identity at the last level."""

    def __init__(self, blocks: Sequence[nn.Module], leave: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.leave = leave


class UpLevel(nn.Module):
    """Blocks of one resolution on the way up; `leave` doubles the size and is the identity at level 0."""

    def __init__(self, blocks: Sequence[nn.Module], leave: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.leave = leave


class DiffusionUNet(nn.Module):
    """The skeleton; subclasses embed the time and call `run`.

    in_channels      channels of the input, condition included
    width            channels at the first level; level i has width * multipliers[i]
    multipliers      one per level; input height and width must be multiples of 2^(levels - 1)
    blocks           blocks per level on the way down; one more on the way up
    attention_down   levels whose blocks on the way down have attention; `attention_up` likewise. See `attention_levels`.
    make_block       makes a block; `make_upsample` the enlargement behind a level of the given channels
    crop_to_skips    accept any image size: what comes up is cropped to the skip it joins (BlindSRSNF)
    skip_streams     passes of the way down whose skips are joined on the way up, see `up_pass`
    checkpointing    recompute block activations in the backward pass: less memory, about a third more time
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        norm_groups: int,
        attention_down: frozenset[int],
        attention_up: frozenset[int],
        make_block: BlockMaker,
        make_upsample: Callable[[int], nn.Module] = Upsample,
        crop_to_skips: bool = False,
        skip_streams: int = 1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.run_multiple = 1 if crop_to_skips else 2 ** (len(multipliers) - 1)
        self.size_multiple = self.run_multiple  # of what the network is given; a subclass that takes images apart needs more
        widths = [width * multiplier for multiplier in multipliers]
        last = len(widths) - 1

        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        skips, channels = [width], width
        down: list[DownLevel] = []
        for level, out in enumerate(widths):
            made = []
            for _ in range(blocks):
                made.append(make_block(channels, out, attention=level in attention_down))
                channels = out
                skips.append(channels)
            leave: nn.Module = nn.Identity()
            if level != last:
                leave = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
                skips.append(channels)
            down.append(DownLevel(made, leave))
        self.down = nn.ModuleList(down)
        self.middle = nn.ModuleList(make_block(channels, channels, attention=attention) for attention in (True, False))

        up: list[UpLevel] = []
        for level in reversed(range(len(widths))):
            made = []
            for _ in range(blocks + 1):
                made.append(make_block(channels + skip_streams * skips.pop(), widths[level], attention=level in attention_up))
                channels = widths[level]
            up.append(UpLevel(made, make_upsample(channels) if level else nn.Identity()))
        self.up = nn.ModuleList(reversed(up))  # up[i] works at the resolution of down[i]
        self.norm_out = nn.GroupNorm(norm_groups, channels)
        self.conv_out = nn.Conv2d(channels, out_channels, 3, padding=1)

    def run(self, x: Tensor, *conditions: Tensor) -> Tensor:
        """Return (B, out_channels, H, W) for x (B, in_channels, H, W); `conditions` are handed to every block.

        Raises UserError if H or W is not a multiple of `run_multiple`.
        """
        require_multiple(x, self.run_multiple)
        x, skips = self.down_pass(self.stem(x), conditions)
        return self.up_pass(self.middle_pass(x, conditions), skips, conditions)

    def down_pass(self, x: Tensor, conditions: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """Return (what leaves the last level, the skips) of what left a stem."""
        skips = [x]
        for level in self.down:
            assert isinstance(level, DownLevel)
            for block in level.blocks:
                x = self._run_block(block, x, conditions)
                skips.append(x)
            if not isinstance(level.leave, nn.Identity):
                x = level.leave(x)
                skips.append(x)
        return x, skips

    def middle_pass(self, x: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        """Return x after the blocks in the middle."""
        for block in self.middle:
            x = self._run_block(block, x, conditions)
        return x

    def up_pass(self, x: Tensor, skips: list[Tensor], conditions: tuple[Tensor, ...], enlarge: Enlarger | None = None) -> Tensor:
        """Return the output; `skips` are taken from the end, several streams joined along their channels, and the list is used up.

        enlarge  how a level is left, called as enlarge(its index, its enlargement, x, the skip that x joins next); None: enlargement(x)
        """
        for index, level in reversed(list(enumerate(self.up))):
            assert isinstance(level, UpLevel)
            for block in level.blocks:
                skip = skips.pop()
                joined = torch.cat([x[..., : skip.shape[-2], : skip.shape[-1]], skip], dim=1)
                x = self._run_block(block, joined, conditions)
            x = enlarge(index, level.leave, x, skips[-1]) if index and enlarge else level.leave(x)
        return self.conv_out(F.silu(self.norm_out(x)))

    def _run_block(self, block: nn.Module, x: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, *conditions, use_reentrant=False)
        return block(x, *conditions)


def require_multiple(x: Tensor, multiple: int) -> None:
    """Raise ValueError unless the height and width of x (B, C, H, W) are multiples of `multiple`."""
    height, width = x.shape[-2:]
    if height % multiple or width % multiple:
        raise UserError(f"an image of {height}x{width} was given to a U-Net that needs multiples of {multiple}; pad or crop it.")


def attention_levels(nominal_size: int, attention_sizes: Sequence[int], levels: int) -> tuple[frozenset[int], frozenset[int]]:
    """Return the levels with attention on the way down and on the way up.

    The published networks count resolutions from a nominal image size, whatever the size of the image: halved (rounding down) per level,
    then doubled again. Level i has attention if its count is in `attention_sizes`. The two ways differ where the nominal size is no
    multiple of 2^(levels - 1).
    """
    down = [nominal_size >> level for level in range(levels)]
    up = [down[-1] << (levels - 1 - level) for level in range(levels)]
    return (
        frozenset(level for level in range(levels) if down[level] in attention_sizes),
        frozenset(level for level in range(levels) if up[level] in attention_sizes),
    )


def nominal_sizes(attention_down: frozenset[int], attention_up: frozenset[int], levels: int) -> tuple[int, tuple[int, ...]]:
    """Return a (nominal_size, attention_sizes) that `attention_levels` turns into the given levels.

    For importing checkpoints that carry no settings. The last level's two sets must agree, as they do in every published network.
    """
    same = attention_down == attention_up
    size = 2 ** (levels - 1) if same else 2**levels - 1  # counts of 2^levels - 1 are odd going down and powers of 2 going up
    sizes = {size >> level for level in attention_down}
    sizes |= {(size >> (levels - 1)) << (levels - 1 - level) for level in attention_up}
    if attention_levels(size, tuple(sizes), levels) != (attention_down, attention_up):
        raise UserError(f"attention at levels {sorted(attention_down)} down and {sorted(attention_up)} up fits no nominal size.")
    return size, tuple(sorted(sizes))


@config
class SkeletonConfig:
    """What the U-Nets on SR3's skeleton have in common."""

    width: int = 64
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Channels of each level in units of `width`; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    norm_groups: int = 32
    """Groups of every GroupNorm."""
    dropout: float = 0.0
    """Dropout in the second half of every residual block."""
    checkpointing: bool = False
    """Recompute the activations of each block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        if not self.multipliers or min(self.multipliers) < 1 or self.blocks < 1:
            raise UserError(f"multipliers={list(self.multipliers)}, blocks={self.blocks} make no network; choose numbers of at least 1.")
        if self.norm_groups < 1 or self.width < 1 or self.width % 2 or self.width % self.norm_groups:
            raise UserError(f"width={self.width} must be even and a multiple of norm_groups={self.norm_groups}.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} was given; choose 0 or more and less than 1.")

    def sizes(self) -> UNetSizes:
        """Return the options as arguments of `DiffusionUNet`."""
        return UNetSizes(
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            norm_groups=self.norm_groups,
            checkpointing=self.checkpointing,
        )
