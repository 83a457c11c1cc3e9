"""The baseline that stands beside every method: bicubic interpolation of the LR image."""

from __future__ import annotations

from torch import Tensor

from rsdiff.degradations.resizing import resize


def bicubic(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return `lr` (C, h, w) enlarged to (C, H, W) as MATLAB's imresize does (a = -0.5, symmetric border); may leave [0, 1]."""
    return resize(lr[None].float(), size, "matlab")[0]
