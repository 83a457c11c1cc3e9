"""8-bit rounding of images in [0, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

GREY_LEVELS = 255.0
"""Largest 8-bit value; noise levels of the Gaussian family are stated in these units."""

Clamp = Literal["always", "with_noise", "never"]
"""When the LR is limited to [0, 1]: "with_noise" is DAN and DCLS, which keep the overshoot of the bicubic filter in noise-free training."""


def round_to_grey_levels(images: Tensor) -> Tensor:
    """Return `images` rounded to multiples of 1/255, half to even, without limiting them to [0, 1].

    Limiting before or after gives the same result, because 0 and 1 are multiples of 1/255. The gradient is 0.
    """
    return torch.round(images * GREY_LEVELS) / GREY_LEVELS


def to_uint8(images: Tensor, peak: float = 1.0) -> Tensor:
    """Return uint8 of images in [0, peak]: scaled to 0..255, limited, rounded half to even."""
    return torch.round((images * (GREY_LEVELS / peak)).clamp(0, GREY_LEVELS)).to(torch.uint8)
