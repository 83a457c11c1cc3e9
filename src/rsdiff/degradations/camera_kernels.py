"""Blur kernels of the practical degradations: shifted Gaussians, generalised Gaussians, plateaus and sinc filters; float64, sum 1.

Widths are standard deviations in pixels. Source: utils_blindsr.py of BSRGAN, degradations.py of BasicSR.
"""

from __future__ import annotations

from typing import Literal

import torch
from scipy.special import j1
from torch import Tensor

from rsdiff.degradations.kernels import covariances, gaussian_kernels, peak_index
from rsdiff.degradations.resizing import shift_pixels

KernelShape = Literal["gaussian", "generalised", "plateau"]


def gaussian_row(size: int, width: float) -> Tensor:
    """Return the (size,) weights whose outer product with themselves is the isotropic Gaussian of this width."""
    offsets = torch.arange(size, dtype=torch.float64) - peak_index(size)
    weights = torch.exp(-offsets.square() / (2 * max(width, NARROWEST_ROW) ** 2))
    return weights / weights.sum()


NARROWEST_ROW = 1e-2
"""Width that stands for 0: its kernel is a delta in float64."""


def oriented_gaussian(size: int, width: float, second_width: float, angle: float) -> Tensor:
    """Return the (size, size) Gaussian with `width` along `angle` (radians, from the x axis downwards) and second_width across."""
    covariance = covariances(*(torch.tensor([value], dtype=torch.float64) for value in (width, second_width, angle)))
    return gaussian_kernels(covariance, size, peak_index(size), dtype=torch.float64)[0]


def shifted_gaussian(size: int, width: float, shift: float) -> Tensor:
    """Return an isotropic Gaussian moved up and left by `shift` pixels, by bilinear interpolation, and normalised again.

    With shift (s - 1) / 2, pixels 0, s, 2s, ... of the (true) convolution lie at the centres of s x s cells.
    """
    row = gaussian_row(size, width)
    moved = shift_pixels(torch.outer(row, row)[None, None], shift)[0, 0]
    return moved / moved.sum()


def shaped_kernel(
    size: int, width: float, second_width: float, angle: float, shape: KernelShape = "gaussian", exponent: float = 1.0
) -> Tensor:
    """Return a (size, size) kernel of the quadratic form q of a Gaussian.

    shape     gaussian: exp(-q / 2); generalised: exp(-q^exponent / 2); plateau: 1 / (1 + q^exponent)
    width     along `angle` (radians, from the x axis downwards), second_width across it
    """
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    turn = torch.tensor(angle, dtype=torch.float64)
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    form = (along / width).square() + (across / second_width).square()
    match shape:
        case "gaussian":
            weights = torch.exp(-form / 2)
        case "generalised":
            weights = torch.exp(-(form**exponent) / 2)
        case "plateau":
            weights = 1 / (1 + form**exponent)
    return weights / weights.sum()


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """Return the (size, size) circular low-pass filter of a cutoff in radians per pixel; it has negative lobes."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    radius = torch.hypot(offsets[:, None], offsets)
    safe = torch.where(radius == 0, torch.ones_like(radius), radius)
    weights = cutoff * torch.from_numpy(j1((cutoff * safe).numpy())) / (2 * torch.pi * safe)
    weights = torch.where(radius == 0, torch.full_like(radius, cutoff**2 / (4 * torch.pi)), weights)
    return weights / weights.sum()


def padded_kernel(kernel: Tensor, size: int) -> Tensor:
    """Return the kernel (k, k) in the middle of a (size, size) one; size - k is even and not negative."""
    margin = (size - kernel.shape[-1]) // 2
    return torch.nn.functional.pad(kernel, (margin, margin, margin, margin))
