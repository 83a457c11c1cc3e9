"""The baseline that stands beside every method: bicubic interpolation of the LR image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bicubic(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return `lr` (C, h, w) enlarged to (C, H, W) with the cubic kernel of a = -0.5 (MATLAB, Pillow); may leave [0, 1]."""
    # With antialias=True torch uses a = -0.5; without it a = -0.75, which is OpenCV's bicubic and another baseline.
    return F.interpolate(lr[None].float(), size=size, mode="bicubic", antialias=True)[0]
