"""Enlarging the LR image to the target's size, as conditions and start images of EDM-type methods are made."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Enlargement = Literal["nearest", "bilinear", "bicubic"]


def enlarge(lr: Tensor, size: tuple[int, int], rule: Enlargement, eight_bit: bool = False) -> Tensor:
    """Return lr (B, c, h, w) in [0, 1] at `size` (H, W), in [-1, 1] (bicubic may exceed it).

    rule       nearest repeats pixels; bilinear and bicubic (a = -0.75) use half-pixel centres, repeat the border and do not antialias,
               like OpenCV
    eight_bit  truncate to whole grey levels of 255, as a loader that stores the enlarged image in bytes does
    """
    large = F.interpolate(lr, size=size, mode=rule, align_corners=None if rule == "nearest" else False)
    if eight_bit:
        # The small term is what the division of 8-bit values by 255 may have lost: without it 100 becomes 99.
        large = (large * 255 + 1e-3).clamp(0, 255).floor() / 255
    return 2 * large - 1
