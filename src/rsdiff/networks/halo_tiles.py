"""Restoring an image by pieces, as Real-ESRGAN and HAT do: tiles with a halo of real pixels, whose centres are put side by side.

It bounds the memory of networks that need much of it per pixel. Whole scenes are the business of rsdiff.inference.scenes, which blends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError, config


@config
class HaloTilesConfig:
    """How an image is given to the network; in LR pixels."""

    tile: int = 0
    """Side of the tiles; 0 restores the image whole."""
    halo: int = 10
    """Pixels around a tile that the network sees besides, as far as the image reaches."""
    margin: int = 0
    """Pixels appended at the bottom and right by reflection and cut off after (Real-ESRGAN's pre_pad)."""

    def __post_init__(self) -> None:
        if min(self.tile, self.halo, self.margin) < 0:
            raise UserError(f"tile={self.tile}, halo={self.halo}, margin={self.margin} were given; choose numbers of 0 or more.")

    def run(self, network: Callable[[Tensor], Tensor], images: Tensor, scale: int, multiple: int = 1) -> Tensor:
        """Return the enlarged images (B, C', h scale, w scale) of images (B, C, h, w).

        network   maps (B, C, y, x) to (B, C', y scale, x scale) where y and x are multiples of `multiple`
        Raises UserError for tiles that would break the multiple, and for images too small to be extended by reflection.
        """
        if self.tile and (self.tile % multiple or self.halo % multiple):
            raise UserError(
                f"tiles of {self.tile} with a halo of {self.halo} do not fit a network that works on multiples of {multiple} pixels; "
                f"choose multiples of {multiple}."
            )
        h, w = int(images.shape[-2]), int(images.shape[-1])
        extended = _extend(images, self.margin, self.margin)
        extended = _extend(extended, -extended.shape[-2] % multiple, -extended.shape[-1] % multiple)
        made = _by_tiles(network, extended, scale, self.tile, self.halo) if self.tile else network(extended)
        return made[..., : h * scale, : w * scale]


def _extend(images: Tensor, rows: int, columns: int) -> Tensor:
    if rows >= images.shape[-2] or columns >= images.shape[-1]:
        raise UserError(
            f"an image of {images.shape[-2]}x{images.shape[-1]} is too small to be extended by {rows} rows and {columns} columns by "
            "reflection; lower the margin or give larger images."
        )
    return F.pad(images, (0, columns, 0, rows), mode="reflect") if rows or columns else images


def _by_tiles(network: Callable[[Tensor], Tensor], images: Tensor, scale: int, tile: int, halo: int) -> Tensor:
    h, w = int(images.shape[-2]), int(images.shape[-1])
    result: Tensor | None = None
    for row in range(math.ceil(h / tile)):
        for column in range(math.ceil(w / tile)):
            top, left = row * tile, column * tile
            bottom, right = min(top + tile, h), min(left + tile, w)
            first_row, first_column = max(top - halo, 0), max(left - halo, 0)
            made = network(images[..., first_row : min(bottom + halo, h), first_column : min(right + halo, w)])
            if result is None:
                result = made.new_empty((*made.shape[:2], h * scale, w * scale))
            own_top, own_left = (top - first_row) * scale, (left - first_column) * scale
            height, width = (bottom - top) * scale, (right - left) * scale
            result[..., top * scale : bottom * scale, left * scale : right * scale] = made[
                ..., own_top : own_top + height, own_left : own_left + width
            ]
    assert result is not None
    return result
