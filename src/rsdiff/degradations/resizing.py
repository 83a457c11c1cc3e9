"""Resizing by named back-ends: they differ at borders and in antialiasing by up to 0.025 of the range, and published results depend on it.

"matlab"            bicubic (a = -0.5), antialiased, symmetric border that repeats the edge pixel; MATLAB's imresize; differentiable
"clamped"           the same weights, taps beyond the border read the edge pixel (BlindSRSNF, DiffBSR, DASR, DRSR); differentiable
"dasr"              "clamped" with the published defect: taps that weigh 0 for the first pixel are dropped for every pixel. Identical to
                    "clamped" at the scales 2, 3, 4, 5, 6, 8, 9, 12, wrong by about 0.01 at 7 and at 1.6 (ratio 0.625)
"torch"             torch's antialiased bicubic (a = -0.5, weights renormalised at the border); differentiable
"opencv"            cv2.INTER_CUBIC (a = -0.75, no antialiasing); CPU
"pillow"            Pillow's antialiased bicubic on images rounded to uint8; the result is 8-bit; CPU
"pillow_truncated"  the same on images truncated to uint8 (IKC's test sets); CPU
"direct"            keeps the top-left pixel of every cell (s-fold subsampling); integer factors; differentiable
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.precision import in_float32
from rsdiff.data.transfer import to_device
from rsdiff.degradations.rounding import GREY_LEVELS, to_uint8

ResizeBackend = Literal["matlab", "clamped", "dasr", "torch", "opencv", "pillow", "pillow_truncated", "direct"]
CPU_BACKENDS: frozenset[ResizeBackend] = frozenset({"opencv", "pillow", "pillow_truncated"})
"""Those of libraries that know only the CPU."""
Border = Literal["symmetric", "clamped"]

BLOCK = 32
"""Output rows (columns) computed by one matrix product: large enough for the product to be fast, small enough to skip most zero weights."""


def resize(images: Tensor, size: tuple[int, int], backend: ResizeBackend) -> Tensor:
    """Return images (N, C, H, W) resized to `size` (h, w) by the named back-end; float32, not limited to [0, 1] (bicubic overshoots).

    The ratio of each axis is size / input size. Where a published code rounds the size, see `resize_cubic` for giving the ratio itself.
    """
    match backend:
        case "matlab":
            return resize_cubic(images, size, "symmetric")
        case "clamped":
            return resize_cubic(images, size, "clamped")
        case "dasr":
            return resize_cubic(images, size, "clamped", drop_first_pixel_zeros=True)
        case "torch":
            return F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)
        case "opencv":
            return resize_opencv(images, size)
        case "pillow":
            return resize_pillow(images, size)
        case "pillow_truncated":
            return resize_pillow(images, size, truncate=True)
        case "direct":
            return subsample(images, _integer_factor(images, size))


def resize_reach(backend: ResizeBackend, scale: float) -> int:
    """Return how many target pixels lie between a pixel under an LR pixel and the farthest one that `resize` makes the LR pixel of.

    Antialiased filters see 2 LR pixels around their centre; OpenCV's 2 target pixels; `direct` the first pixel of the cell.
    """
    match backend:
        case "direct":
            return math.ceil(scale) - 1
        case "opencv":
            return math.ceil(scale / 2) + 2
        case _:
            return math.ceil(2.5 * max(scale, 1.0))


def _integer_factor(images: Tensor, size: tuple[int, int]) -> int:
    height, width = images.shape[-2:]
    factor = height // size[0]
    if (size[0] * factor, size[1] * factor) != (height, width) or factor < 1:
        raise UserError(
            f"resize=direct keeps every s-th pixel, but {height}x{width} is no multiple of {size[0]}x{size[1]}; "
            f"choose an integer scale and crops that are multiples of it, or another resize."
        )
    return factor


def resize_cubic(
    images: Tensor,
    size: tuple[int, int],
    border: Border,
    ratio: float | None = None,
    antialias: bool = True,
    drop_first_pixel_zeros: bool = False,
) -> Tensor:
    """Return images (..., H, W) resized to `size` with Keys' cubic (a = -0.5), first rows, then columns; differentiable.

    ratio      output pixels per input pixel of both axes, or None for size / input size. The two differ when the size was rounded
               (27 -> 7 at 1/4): the sampling positions follow the ratio.
    antialias  widen the filter by 1 / ratio when shrinking
    drop_first_pixel_zeros  reproduce the defect of "dasr", see the module
    Weights are computed in float64 and cast once. Source: MATLAB imresize; verified against it by the published Python ports.
    """
    for axis in (-2, -1):
        length, out = images.shape[axis], size[axis]
        if out < 1:
            raise UserError(f"an image of {tuple(images.shape[-2:])} pixels cannot be resized to {size}; choose a smaller scale.")
        axis_ratio = out / length if ratio is None else ratio
        blocks = _cubic_blocks(length, out, axis_ratio, border, antialias, drop_first_pixel_zeros, images.device, images.dtype)
        images = _applied(images, blocks, axis)
    return images


def cubic_taps(
    length: int, out: int, ratio: float, border: Border, antialias: bool = True, drop_first_pixel_zeros: bool = False
) -> tuple[Tensor, Tensor]:
    """Return input indices (out, taps) int64 and weights (out, taps) float64, each row of weights summing to 1, for one axis.

    Output pixel i (1-based) lies at u = i / ratio + (1 - 1 / ratio) / 2; tap j weighs cubic(filter_ratio * (u - j)).
    With drop_first_pixel_zeros the positions are float32 as in the published code: at 1/7, 1/13 and 1/15 their rounding moves the first
    tap of some pixels and not of others, so that a dropped tap is one they needed.
    """
    filter_ratio = ratio if antialias and ratio < 1 else 1.0
    support = 4 / filter_ratio
    dtype = torch.float32 if drop_first_pixel_zeros else torch.float64
    centre = torch.arange(1, out + 1, dtype=dtype) / ratio + 0.5 * (1 - 1 / ratio)
    left = torch.floor(centre - support / 2)
    taps = left[:, None] + torch.arange(math.ceil(support) + 2, dtype=dtype)
    weights = _cubic(filter_ratio * (centre[:, None] - taps))
    weights = weights / weights.sum(1, keepdim=True)
    if drop_first_pixel_zeros:
        kept = weights[0] != 0
        taps, weights = taps[:, kept], weights[:, kept]
    weights = weights.to(torch.float64)
    indices = taps.long() - 1
    if border == "clamped":
        return indices.clamp(0, length - 1), weights
    period = indices.remainder(2 * length)
    return torch.where(period < length, period, 2 * length - 1 - period), weights


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))


def _combine(images: Tensor, indices: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Return the weighted taps along `axis` (-2 or -1), see `_blocks`."""
    return _applied(images, [(first, to_device(matrix, images.device, images.dtype)) for first, matrix in _blocks(indices, weights)], axis)


@in_float32
def _applied(images: Tensor, blocks: Sequence[tuple[int, Tensor]], axis: int) -> Tensor:
    """Return the products of blocks (first input pixel, matrix) with images (..., H, W) along `axis`."""
    pieces = []
    for first, matrix in blocks:
        piece = images.narrow(axis, first, matrix.shape[1])
        pieces.append(matrix @ piece if axis == -2 else piece @ matrix.mT)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=axis)


def _blocks(indices: Tensor, weights: Tensor) -> list[tuple[int, Tensor]]:
    """Return the taps as one small dense matrix (float64, CPU) per block of output pixels, and the first input pixel it takes."""
    blocks = []
    for rows, row_weights in zip(indices.split(BLOCK), weights.split(BLOCK), strict=True):
        first, last = int(rows.min()), int(rows.max())
        matrix = torch.zeros(len(rows), last - first + 1, dtype=torch.float64).scatter_add_(1, rows - first, row_weights)
        blocks.append((first, matrix))
    return blocks


@functools.lru_cache(maxsize=64)
def _cubic_blocks(
    length: int,
    out: int,
    ratio: float,
    border: Border,
    antialias: bool,
    drop_first_pixel_zeros: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[tuple[int, Tensor], ...]:
    """Return the blocks of `cubic_taps` on a device: crops of a training and tiles of a scene have one size."""
    found = _blocks(*cubic_taps(length, out, ratio, border, antialias, drop_first_pixel_zeros))
    return tuple((first, to_device(matrix, device, dtype)) for first, matrix in found)


def resize_opencv(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (N, C, H, W) resized by cv2.INTER_CUBIC; on the CPU, without gradient."""
    planes = _planes(images, "opencv")
    resized = [cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_CUBIC) for plane in planes.numpy()]
    return torch.from_numpy(np.stack(resized)).view(*images.shape[:2], *size).to(images)


def resize_pillow(images: Tensor, size: tuple[int, int], truncate: bool = False) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] resized by Pillow's bicubic as 8-bit images: multiples of 1/255; without gradient.

    truncate  values become uint8 by dropping the fraction instead of rounding
    """
    planes = _planes(images, "pillow")
    grey = (planes * GREY_LEVELS).clamp(0, GREY_LEVELS).to(torch.uint8) if truncate else to_uint8(planes)
    resized = [np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BICUBIC)) for plane in grey.numpy()]
    return (torch.from_numpy(np.stack(resized)).view(*images.shape[:2], *size).to(torch.float32) / GREY_LEVELS).to(images)


def _planes(images: Tensor, backend: str) -> Tensor:
    """Return the bands of all images as (N * C, H, W) on the CPU; refuses images that need a gradient."""
    if images.requires_grad:
        raise UserError(f"resize={backend} has no gradient; choose matlab, clamped, torch or direct.")
    return images.flatten(0, 1).cpu().contiguous()


def subsample(images: Tensor, factor: int) -> Tensor:
    """Return pixel (0, 0) of every factor x factor cell of images (..., H, W), incomplete cells at the end included.

    Nothing is recentred: the LR grid lies (factor - 1) / 2 HR pixels up and left, which `kernels.shifted_mean` undoes.
    """
    return images[..., ::factor, ::factor]


def shift_pixels(images: Tensor, offset: float) -> Tensor:
    """Return images (..., H, W) sampled bilinearly at (row + offset, column + offset), positions limited to the image.

    offset (s - 1) / 2 moves an image whose LR grid lies at the upper left pixel of every cell to the cell's centre; negative undoes it.
    Source: shift_pixel of BSRGAN and BlindSRSNF.
    """
    for axis in (-2, -1):
        length = images.shape[axis]
        position = (torch.arange(length, dtype=torch.float64) + offset).clamp(0, length - 1)
        lower = position.floor().clamp(max=max(length - 2, 0))
        share = position - lower
        indices = torch.stack([lower, (lower + 1).clamp(max=length - 1)], 1).long()
        images = _combine(images, indices, torch.stack([1 - share, share], 1), axis)
    return images
