"""Options of the network that looks, its training and its tables."""

from __future__ import annotations

from rsdiff.config import UserError, config


@config
class DownstreamOptions:
    """How the network is trained and what is told of it."""

    steps: int = 600
    """Optimiser steps of the network that finds the objects or recognises the scenes."""
    batch: int = 8
    """HR crops per step."""
    patch: int = 96
    """Side of the crops in HR pixels; smaller images are taken whole."""
    width: int = 16
    """Channels of the network at full size."""
    learning_rate: float = 0.003
    """Peak of the one-cycle schedule of AdamW."""
    sizes: tuple[int, ...] = (64, 256, 1024)
    """Bounds in HR pixels between the sizes of objects in the table."""
    tolerance: int = 2
    """Pixels that outlines may lie apart and still agree."""
    panels: int = 4
    """Test images of which a picture is written: bicubic, SR and HR with what was found."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch", "width"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} was given; give at least 1.")
        if list(self.sizes) != sorted(set(self.sizes)) or min(self.sizes, default=1) < 1:
            raise UserError(f"sizes={list(self.sizes)} were given; give rising numbers of pixels.")
