"""Enlarging the LR image to the target's size: the one place where it is done, whatever it is then used for."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Enlargement = Literal["nearest", "bilinear", "bicubic"]


def enlarge(image: Tensor, size: tuple[int, int], rule: Enlargement = "bicubic") -> Tensor:
    """Return image (B, c, h, w), of any range, at `size` (H, W); bicubic may exceed the range.

    nearest repeats pixels; bilinear and bicubic (a = -0.75) use half-pixel centres, repeat the border and do not antialias, like OpenCV.
    """
    return F.interpolate(image, size=size, mode=rule, align_corners=None if rule == "nearest" else False)


def enlarge_signed(lr: Tensor, size: tuple[int, int], rule: Enlargement = "bicubic", eight_bit: bool = False) -> Tensor:
    """Return lr (B, c, h, w) in [0, 1] at `size` (H, W), in [-1, 1] (bicubic may exceed it), as conditions of EDM-type methods are made.

    eight_bit  truncate to whole grey levels of 255, as a loader that stores the enlarged image in bytes does
    """
    large = enlarge(lr, size, rule)
    if eight_bit:
        # The small term is what the division of 8-bit values by 255 may have lost: without it 100 becomes 99.
        large = (large * 255 + 1e-3).clamp(0, 255).floor() / 255
    return 2 * large - 1
