"""Unsharp masking as Real-ESRGAN sharpens its targets, by three named back-ends.

"opencv"     cv2.GaussianBlur, as BSRGAN's extended degradation uses it; CPU, without gradient
"separable"  two one-dimensional convolutions in torch, on any device
"dense"      one two-dimensional convolution in torch: the published Real-ESRGAN, 4 to 5 times slower. A reordered sum flips single pixels
             of the mask, so it differs from the other two by up to 4e-4
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.data.transfer import to_device
from rsdiff.degradations.blur import blur_mirrored, mirror_padded
from rsdiff.degradations.rounding import GREY_LEVELS

SharpeningBackend = Literal["opencv", "separable", "dense"]


def sharpen(
    images: Tensor, weight: float = 0.5, radius: int = 50, threshold: float = 10.0, backend: SharpeningBackend = "separable"
) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] with their edges enhanced, where they differ from their surroundings.

    weight     how much of the difference from the blurred image is added
    radius     side of the Gaussian window in pixels; even numbers are raised by 1
    threshold  8-bit grey levels that a pixel must differ by
    x + weight (x - blurred), limited to [0, 1], is blended in by the blurred mask of differing pixels. Source: add_sharpening of BSRGAN,
    USMSharp of BasicSR.
    """
    window = gaussian_window(radius + 1 - radius % 2)
    residual = images - _smooth(images, window, backend)
    mask = ((residual.abs() * GREY_LEVELS) > threshold).to(images)
    share = _smooth(mask, window, backend)
    return share * (images + weight * residual).clamp(0, 1) + (1 - share) * images


def gaussian_window(size: int) -> Tensor:
    """Return OpenCV's Gaussian of `size` taps, whose width follows from the size: 0.3 ((size - 1) / 2 - 1) + 0.8; float64, sum 1."""
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return weights / weights.sum()


def _smooth(images: Tensor, window: Tensor, backend: SharpeningBackend) -> Tensor:
    match backend:
        case "opencv":
            planes = images.detach().cpu().flatten(0, 1).numpy()
            size = (len(window), len(window))
            made = [cv2.GaussianBlur(plane, size, 0, borderType=cv2.BORDER_REFLECT_101) for plane in planes]
            return torch.from_numpy(np.stack(made)).view_as(images).to(images.device)
        case "separable":
            before = len(window) // 2
            weights = to_device(window, images.device, images.dtype)
            padded = mirror_padded(images, before, before).flatten(0, 1)[:, None]
            return F.conv2d(F.conv2d(padded, weights[None, None, :, None]), weights[None, None, None]).view_as(images)
        case "dense":
            row = to_device(window, images.device, images.dtype)
            return blur_mirrored(images, torch.outer(row, row).expand(len(images), -1, -1))
