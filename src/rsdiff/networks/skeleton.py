"""Options of the U-Nets on SR3's skeleton."""

from __future__ import annotations

from rsdiff.config import UserError, config
from rsdiff.networks.diffusion_unet import UNetSizes


class Skeleton(UNetSizes):
    """Arguments of every network on SR3's skeleton, see `SkeletonConfig`."""

    dropout: float


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

    def skeleton(self) -> Skeleton:
        """Return the options as arguments of a network."""
        return Skeleton(
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            norm_groups=self.norm_groups,
            dropout=self.dropout,
            checkpointing=self.checkpointing,
        )
