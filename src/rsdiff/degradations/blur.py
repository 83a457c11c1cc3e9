"""Blur by one kernel per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.precision import in_float32
from rsdiff.data.transfer import like

BlurBorder = Literal["reflect", "circular"]

NEGLIGIBLE = 1e-9
"""Share of a kernel that may be left out: far below float32 rounding, which is 6e-8."""

DIRECT_TAPS = 130
"""OpenCV filters float images directly below this number of taps, and by Fourier transforms from it on."""

LARGEST_SPLIT = 330
"""Taps from which the Fourier transform is faster than several direct filters, at 288 x 288 pixels."""


@in_float32
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
        raise UserError(f"kernels of shape {tuple(kernels.shape)} were given for {count} images; give ({count}, k, k) or (k, k).")
    if before >= min(height, width):
        raise UserError(
            f"a kernel of size {size} needs images larger than {before} pixels per side, this one is {height}x{width}; "
            f"choose a smaller kernel_size or larger crops."
        )
    padded = F.pad(images, (before, after, before, after), mode=border)
    weights = like(kernels, images).expand(count, size, size).repeat_interleave(bands, 0)[:, None]
    return F.conv2d(padded.flatten(0, 1)[None], weights, groups=count * bands).view_as(images)


@in_float32
def blur_mirrored(images: Tensor, kernels: Tensor) -> Tensor:
    """`blur` with border "reflect" for images of any size: where a kernel reaches beyond an image, it is mirrored repeatedly.

    images   (N, C, H, W)
    kernels  (N, k, k), k odd
    """
    before = kernels.shape[-1] // 2
    count, bands = images.shape[:2]
    weights = like(kernels, images).repeat_interleave(bands, 0)[:, None]
    padded = mirror_padded(images, before, before)
    return F.conv2d(padded.flatten(0, 1)[None], weights, groups=count * bands).view_as(images)


def mirror_padded(images: Tensor, before: int, after: int) -> Tensor:
    """Return images (N, C, H, W) extended on all sides by mirroring at the edge pixels, which are not repeated, as often as needed."""
    if max(before, after) < min(images.shape[-2:]):
        return F.pad(images, (before, after, before, after), mode="reflect")
    for axis in (-2, -1):
        last = images.shape[axis] - 1
        position = torch.arange(-before, last + 1 + after, device=images.device).remainder(max(1, 2 * last))
        images = images.index_select(axis, torch.minimum(position, 2 * last - position).clamp(0, last))
    return images


def blur_opencv(images: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """`blur_mirrored` by OpenCV, image by image on the CPU; several times faster there, and without gradient.

    kernels  one per image: (k, k), or (k,) for a separable one that is the same along both axes; odd k, float64
    Outer taps whose weights sum to less than NEGLIGIBLE are left out.
    """
    if images.requires_grad:
        raise UserError("OpenCV's blur has no gradient; choose backend=torch.")
    made = np.empty(images.shape, np.float32)
    for image, kernel, blurred in zip(images.detach().cpu().numpy(), kernels, made, strict=True):
        weights = trimmed(kernel.numpy())
        if weights.ndim == 1:
            for plane, target in zip(image, blurred, strict=True):
                cv2.sepFilter2D(plane, -1, weights, weights, dst=target, borderType=cv2.BORDER_REFLECT_101)
        elif weights.size < DIRECT_TAPS or weights.size > LARGEST_SPLIT:
            for plane, target in zip(image, blurred, strict=True):
                cv2.filter2D(plane, -1, weights, dst=target, borderType=cv2.BORDER_REFLECT_101)
        else:
            for plane, target in zip(image, blurred, strict=True):
                _filter_in_strips(plane, weights, target)
    return torch.from_numpy(made).to(images.device)


def _filter_in_strips(plane: NDArray[np.float32], weights: NDArray[np.float64], target: NDArray[np.float32]) -> None:
    """Write the cross-correlation of a plane (H, W) into `target`, as a sum over strips of kernel rows that OpenCV filters directly."""
    height, width = plane.shape
    down, across = weights.shape[0] // 2, weights.shape[1] // 2
    padded = cv2.copyMakeBorder(plane, down, down, across, across, cv2.BORDER_REFLECT_101)
    strip = max(1, (DIRECT_TAPS - 1) // weights.shape[1])
    target[:] = 0
    for first in range(0, len(weights), strip):
        rows = weights[first : first + strip]
        # The window of the padded plane that these rows meet: OpenCV's own border lies outside the part that is used.
        part = padded[first : first + height + len(rows) - 1]
        middle = len(rows) // 2
        filtered = cv2.filter2D(part, -1, rows, anchor=(across, middle), borderType=cv2.BORDER_CONSTANT)
        target += filtered[middle : middle + height, across : across + width]


def trimmed(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a kernel (k,) or (k, k) without the outer taps that sum to less than NEGLIGIBLE; its centre stays the centre."""
    for axis in range(kernel.ndim):
        weights = np.abs(kernel) if kernel.ndim == 1 else np.abs(kernel).sum(1 - axis)
        outside = np.cumsum(weights + weights[::-1])[: len(weights) // 2]
        margin = int(np.count_nonzero(outside < NEGLIGIBLE))
        kernel = kernel[margin : len(weights) - margin] if axis == 0 else kernel[:, margin : len(weights) - margin]
    return np.ascontiguousarray(kernel)
