"""Blur by one kernel per image."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

BlurBorder = Literal["reflect", "circular"]


def blur(images: Tensor, kernels: Tensor, border: BlurBorder = "reflect") -> Tensor:
    """Cross-correlate every band of image n with kernel n (the kernel is not flipped); output has the size of the input.

    images   (N, C, H, W), any number of bands
    kernels  (N, k, k), or (k, k) for all images
    border   "reflect" does not repeat the edge pixel (every published Gaussian degradation); "circular" wraps (BSRGAN's classical one)
    Even k takes one pixel more before (k // 2) than after (k // 2 - 1). All images and bands go through one grouped convolution, on the
    device of `images`; differentiable in both arguments.
    """
    count, bands, height, width = images.shape
    size = kernels.shape[-1]
    before, after = size // 2, (size - 1) // 2
    if kernels.shape[-2] != size or kernels.ndim not in (2, 3) or (kernels.ndim == 3 and kernels.shape[0] != count):
        raise ValueError(f"kernels of shape {tuple(kernels.shape)} were given for {count} images; give ({count}, k, k) or (k, k).")
    if before >= min(height, width):
        raise ValueError(
            f"a kernel of size {size} needs images larger than {before} pixels per side, this one is {height}x{width}; "
            f"choose a smaller kernel_size or larger crops."
        )
    padded = F.pad(images, (before, after, before, after), mode=border)
    weights = kernels.to(images).expand(count, size, size).repeat_interleave(bands, 0)[:, None]
    return F.conv2d(padded.flatten(0, 1)[None], weights, groups=count * bands).view_as(images)
