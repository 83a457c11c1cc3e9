"""Missing pixels: filled before anything looks beyond a pixel, and how far they reach through what mixes pixels.

Validity is 0 or 1 (float or bool) per band and pixel, (..., C, H, W); None means that nothing is missing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FILL_REACH = 8
"""Pixels over which missing values are filled from their neighbours, as in scenes; beyond them stands the mean of the image's band."""
UNKNOWN = 0.5
"""What a band without any known pixel is filled with, in [0, 1]."""


def fill_missing(images: Tensor, valid: Tensor | None) -> Tensor:
    """Return images (N, C, H, W) whose missing pixels are filled from the known ones; what stood there does not matter, NaN included.

    valid  (N, C or 1, H, W)
    Ring by ring, a missing pixel becomes the mean of its known neighbours (3 x 3), up to FILL_REACH rings; what lies deeper becomes the
    mean of the known pixels of its image and band. Works on the images' device without waiting for it.
    """
    if valid is None:
        return images
    known = (valid > 0.5).expand_as(images)
    result = torch.where(known, images, 0.0)
    count = known.sum((-2, -1), keepdim=True)
    mean = torch.where(count > 0, result.sum((-2, -1), keepdim=True) / count.clamp(min=1), UNKNOWN).to(images.dtype)
    for _ in range(FILL_REACH):
        share = F.avg_pool2d(known.to(images.dtype), 3, stride=1, padding=1)
        ring = ~known & (share > 0)
        result = torch.where(ring, F.avg_pool2d(result, 3, stride=1, padding=1) / share.clamp(min=1 / 9), result)
        known = known | ring
    return torch.where(known, result, mean)


def eroded(valid: Tensor, reach: int) -> Tensor:
    """Return where no pixel within `reach` pixels, in rows and columns, is missing: (..., C, H, W) of 0 and 1, float32."""
    missing = (valid <= 0.5).float()
    if reach > 0:
        shape = missing.shape
        planes = missing.flatten(0, -4) if missing.dim() > 4 else missing
        side = 2 * reach + 1
        planes = F.max_pool2d(planes, (side, 1), stride=1, padding=(reach, 0))
        missing = F.max_pool2d(planes, (1, side), stride=1, padding=(0, reach)).view(shape)
    return 1 - missing


def validity_at(valid: Tensor, size: tuple[int, int]) -> Tensor:
    """Return validity (N, C, H, W) on a grid of `size` that covers the same ground: 1 where every pixel under a cell is known."""
    return 1 - F.adaptive_max_pool2d((valid <= 0.5).float(), size)
