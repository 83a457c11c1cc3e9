"""Gaussian blur kernels from explicit widths and angles: batched, computed in float64, normalised to sum 1 and cast once.

Rows of a kernel are y (down), columns x (right). Widths are standard deviations in HR pixels, although two of the published codes call them
eigenvalues of the covariance (they square them). Nothing here is random: drawn values are arguments.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import UserError

KernelPeak = Literal["upper", "lower"]

NARROWEST = 1e-2
"""Width that stands for 0: already the nearest neighbour weighs exp(-5000), which is exactly 0 in float64, so the kernel is a delta."""


def peak_index(size: int, peak: KernelPeak = "upper") -> int:
    """Return the row and column at which a `size` x `size` kernel is largest.

    The published families agree on odd sizes (the centre) and differ on even ones: "upper" is size // 2 (BlindSRSNF, DiffBSR, DASR, DRSR),
    "lower" is size // 2 - 1 (DAN, DCLS, BlindDiff).
    """
    return size // 2 if peak == "upper" else (size - 1) // 2


def shifted_mean(size: int, scale: int) -> float:
    """Return the kernel mean for which direct `scale`-fold subsampling leaves the LR grid centred on the HR grid.

    Subsampling keeps the top-left pixel of every cell, whose centre lies (scale - 1) / 2 pixels further down and right. Bicubic resizing
    needs no shift. Source: gen_kernel of BSRGAN and BlindSRSNF.
    """
    return size // 2 - (scale - 1) / 2


def covariances(width: Tensor, second_width: Tensor, angle: Tensor) -> Tensor:
    """Return U diag(width^2, second_width^2) U^T as (N, 2, 2) float64, in the order (x, y), with U the rotation by `angle`.

    width, second_width  (N,), standard deviations in pixels, >= 0; 0 is replaced by a width whose kernel is a delta
    angle                (N,), radians from the x axis towards the y axis
    """
    angle = angle.to(torch.float64)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    variances = torch.stack([width, second_width], -1).to(torch.float64).clamp(min=NARROWEST).square()
    return rotation @ (variances[..., None] * rotation.mT)


def gaussian_kernels(
    covariance: Tensor,
    size: int,
    mean: float,
    disturbance: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return kernels (N, size, size), exp(-0.5 p^T covariance^-1 p) around `mean`, normalised to sum 1.

    covariance   (N, 2, 2), order (x, y)
    mean         row and column of the peak, see `peak_index` and `shifted_mean`
    disturbance  (N, size, size), multiplied onto the kernel before it is normalised ("setting 2": 1 + 0.25 u with uniform u), or None
    """
    if size < 1:
        raise UserError(f"a kernel of size {size} was asked for, sizes are 1 or more; set kernel_size=21, for example.")
    xx, xy, yy = (covariance[:, i, j].to(torch.float64) for i, j in ((0, 0), (0, 1), (1, 1)))
    coefficients = torch.stack([yy, -2 * xy, xx], 1) * (-0.5 / (xx * yy - xy.square()))[:, None]
    exponent = coefficients @ _squares(size, mean, covariance.device)
    # Relative to the largest value: with a fractional mean and a narrow kernel every weight would underflow to 0 otherwise.
    kernels = torch.exp(exponent - exponent.amax(1, keepdim=True)).reshape(-1, size, size)
    if disturbance is not None:
        kernels = kernels * disturbance.to(kernels)
    return (kernels / kernels.sum((1, 2), keepdim=True)).to(dtype)


@functools.lru_cache(maxsize=64)
def _squares(size: int, mean: float, device: torch.device) -> Tensor:
    """Return x^2, x y and y^2 of every weight as (3, size^2) float64, x and y counted from `mean`."""
    offsets = torch.arange(size, dtype=torch.float64, device=device) - mean
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    return torch.stack([x.square(), x * y, y.square()]).flatten(1)


def isotropic_kernels(width: Tensor, size: int, peak: KernelPeak = "upper", dtype: torch.dtype = torch.float32) -> Tensor:
    """Return kernels (N, size, size), exp(-(x^2 + y^2) / (2 width^2)) normalised; `width` is (N,) in pixels, 0 gives a delta."""
    return gaussian_kernels(covariances(width, width, torch.zeros_like(width)), size, peak_index(size, peak), dtype=dtype)


def anisotropic_kernels(
    width: Tensor,
    second_width: Tensor,
    angle: Tensor,
    size: int,
    peak: KernelPeak = "upper",
    disturbance: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return kernels (N, size, size) of two widths (N,), the first along `angle` (N,) in radians; see `gaussian_kernels`."""
    return gaussian_kernels(covariances(width, second_width, angle), size, peak_index(size, peak), disturbance, dtype)
