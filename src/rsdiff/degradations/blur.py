"""Blur by one kernel per image."""

from __future__ import annotations

import math
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

BlurBackend = Literal["auto", "opencv", "torch"]
"""Who blurs: `torch` by a grouped convolution (any device, differentiable), `opencv` on the CPU (separable and small kernels
by OpenCV, others by Fourier transforms; without gradient), `auto` opencv for float32 images on the CPU that need no gradient, else torch.
The two differ by at most 2e-6 of the range of the images."""

SAME = 1.2e-7
"""Relative to a kernel's largest weight: a difference of one float32 rounding."""

NEGLIGIBLE = 1e-9
"""Share of a kernel that may be left out: far below float32 rounding, which is 6e-8."""

DIRECT_TAPS = 130
"""OpenCV filters float images directly below this number of taps."""

FOURIER_VALUES = 1 << 18
"""Values of images that are transformed together: small images share the cost of a call, large ones stay in the cache."""

LARGEST_SPLIT = 330
"""Taps from which the Fourier transform is faster than several direct filters, at 288 x 288 pixels."""

SMALL = 1 << 12
"""Pixels of a plane up to which the Fourier transform is faster than several direct filters with any number of taps."""


@in_float32
def blur(images: Tensor, kernels: Tensor, border: BlurBorder = "reflect", backend: BlurBackend = "torch") -> Tensor:
    """Cross-correlate every band of image n with kernel n (the kernel is not flipped); output has the size of the input.

    images   (N, C, H, W), any number of bands
    kernels  (N, k, k), or (k, k) for all images
    border   "reflect" does not repeat the edge pixel (every published Gaussian degradation); "circular" wraps (BSRGAN's classical one)
    backend  see `BlurBackend`
    Even k takes one pixel more before (k // 2) than after (k // 2 - 1). With "torch" all images and bands go through one grouped
    convolution, on the device of `images`; differentiable in both arguments.
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
    if chosen_backend(backend, images, kernels) == "opencv":
        each = kernels.detach().cpu().expand(count, size, size)
        if border == "reflect":
            return blur_opencv(images, each)
        wrapped = F.pad(images, (before, after, before, after), mode="circular")
        return blur_opencv(wrapped, each)[..., before : before + height, before : before + width]
    padded = F.pad(images, (before, after, before, after), mode=border)
    weights = like(kernels, images).expand(count, size, size).repeat_interleave(bands, 0)[:, None]
    return F.conv2d(padded.flatten(0, 1)[None], weights, groups=count * bands).view_as(images)


def chosen_backend(backend: BlurBackend, images: Tensor, kernels: Tensor) -> Literal["opencv", "torch"]:
    """Return the back-end that blurs these images."""
    if backend != "auto":
        return backend
    differentiated = torch.is_grad_enabled() and (images.requires_grad or kernels.requires_grad)
    usable = images.device.type == "cpu" and images.dtype == torch.float32 and not differentiated
    return "opencv" if usable else "torch"


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


def blur_opencv(images: Tensor, kernels: Sequence[Tensor] | Tensor) -> Tensor:
    """`blur_mirrored` by OpenCV, large kernels by Fourier transforms, image by image on the CPU; faster there, and without gradient.

    kernels  one per image: (k, k), or (k,) for a separable one that is the same along both axes
    Outer taps whose weights sum to less than NEGLIGIBLE are left out, and a kernel that is an outer product is applied as its two rows.
    Even k takes one pixel more before than after.
    """
    if images.requires_grad and torch.is_grad_enabled():
        raise UserError("OpenCV's blur has no gradient; choose backend=torch.")
    values = images.detach().cpu().numpy()
    made = np.empty(images.shape, np.float32)
    large: dict[int, list[int]] = {}
    direct = DIRECT_TAPS - 1 if images.shape[-2] * images.shape[-1] <= SMALL else LARGEST_SPLIT
    for index, (image, kernel, blurred) in enumerate(zip(values, kernels, made, strict=True)):
        weights = trimmed(kernel.to(torch.float64).numpy())
        rows = (weights, weights) if weights.ndim == 1 else separated(weights)
        if rows is not None:
            across, down = rows
            anchor = (len(across) // 2, len(down) // 2)
            for plane, target in zip(image, blurred, strict=True):
                cv2.sepFilter2D(plane, -1, across, down, dst=target, anchor=anchor, borderType=cv2.BORDER_REFLECT_101)
        elif weights.size > direct and kernel.shape[-1] // 2 < min(image.shape[-2:]):
            large.setdefault(kernel.shape[-1], []).append(index)
        elif weights.size < DIRECT_TAPS or weights.size > LARGEST_SPLIT:
            anchor = (weights.shape[1] // 2, weights.shape[0] // 2)
            for plane, target in zip(image, blurred, strict=True):
                cv2.filter2D(plane, -1, weights, dst=target, anchor=anchor, borderType=cv2.BORDER_REFLECT_101)
        else:
            for plane, target in zip(image, blurred, strict=True):
                _filter_in_strips(plane, weights, target)
    together = max(1, FOURIER_VALUES // math.prod(images.shape[1:]))
    for chosen in (same[first : first + together] for same in large.values() for first in range(0, len(same), together)):
        made[chosen] = _filter_by_fourier(values[chosen], torch.stack([kernels[index] for index in chosen]))
    return torch.from_numpy(made).to(images.device)


def separated(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the rows (across, down) of which weights (k, l) are the outer product to float32 rounding, or None if they are not one."""
    sizes = np.abs(weights)
    total, allowed = weights.sum(), SAME * sizes.max()
    if abs(total) < 0.1 * sizes.sum():
        return None
    down, across = weights.sum(1), weights.sum(0) / total
    row = len(down) // 3
    if np.abs(down[row] * across - weights[row]).max() > allowed:  # one row tells of most kernels that they are none
        return None
    return (across, down) if np.abs(np.outer(down, across) - weights).max() <= allowed else None


def _filter_by_fourier(images: NDArray[np.float32], kernels: Tensor) -> NDArray[np.float32]:
    """Return the cross-correlation of images (N, C, H, W), mirrored at their border, with kernels (N, k, k) by float32 Fourier transforms.

    1e-6 from the sums themselves. OpenCV transforms the kernel anew for every band and block, which takes twice as long.
    """
    from scipy.fft import next_fast_len  # here and not above: SciPy takes long to import, and most blurs do without

    height, width = images.shape[-2:]
    before, after = kernels.shape[-1] // 2, (kernels.shape[-1] - 1) // 2
    padded = F.pad(torch.from_numpy(images), (before, after, before, after), mode="reflect")
    size = [next_fast_len(length) for length in padded.shape[-2:]]  # of factors up to 11: with those up to 5 alone, 84 would become 90
    response = torch.fft.rfft2(kernels.to(torch.float32), s=size)[:, None].conj()
    made: NDArray[np.float32] = torch.fft.irfft2(torch.fft.rfft2(padded, s=size).mul_(response), s=size)[..., :height, :width].numpy()
    return made


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
        if weights[0] + weights[-1] >= NEGLIGIBLE:
            continue
        outside = np.cumsum(weights + weights[::-1])[: len(weights) // 2]
        margin = int(np.count_nonzero(outside < NEGLIGIBLE))
        kernel = kernel[margin : len(weights) - margin] if axis == 0 else kernel[:, margin : len(weights) - margin]
    return np.ascontiguousarray(kernel)
