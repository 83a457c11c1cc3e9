"""Blur kernels of the practical degradations: shifted Gaussians, generalised Gaussians, plateaus and sinc filters; float64, sum 1.

Widths are standard deviations in pixels. Source: utils_blindsr.py of BSRGAN, degradations.py of BasicSR.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rsdiff.degradations.resizing import shift_pixels

KernelShape = Literal["gaussian", "generalised", "plateau"]


NARROWEST = 1e-2
"""Width that stands for 0: its kernel is a delta in float64."""


def gaussian_row(size: int, width: float) -> Tensor:
    """Return the (size,) weights whose outer product with themselves is the isotropic Gaussian of this width."""
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(offsets.square() * (-0.5 / max(width, NARROWEST) ** 2))
    return weights / weights.sum()


def shifted_row(size: int, width: float, shift: float) -> Tensor:
    """Return `gaussian_row` moved towards its start by `shift` pixels, by linear interpolation, and normalised again.

    With shift (s - 1) / 2, pixels 0, s, 2s, ... of the (true) convolution lie at the centres of s x s cells. Where it leaves the row,
    the row's last value is repeated. Source: shift_pixel of BSRGAN.
    """
    moved = shift_pixels(gaussian_row(size, width)[None], shift)[0]
    return moved / moved.sum()


def shaped_kernel(
    size: int, width: float, second_width: float, angle: float, shape: KernelShape = "gaussian", exponent: float = 1.0
) -> Tensor:
    """Return a (size, size) kernel of the quadratic form q of a Gaussian; odd size.

    shape     gaussian: exp(-q / 2); generalised: exp(-q^exponent / 2); plateau: 1 / (1 + q^exponent)
    width     along `angle` (radians, from the x axis downwards), second_width across it; below NARROWEST they count as that
    """
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    x, y = offsets, offsets[:, None]
    cos, sin = math.cos(angle), math.sin(angle)
    first, second = max(width, NARROWEST), max(second_width, NARROWEST)
    form = ((x * cos + y * sin) / first).square() + ((y * cos - x * sin) / second).square()
    match shape:
        case "gaussian":
            weights = torch.exp(form * -0.5)
        case "generalised":
            weights = torch.exp(form**exponent * -0.5)
        case "plateau":
            weights = 1 / (1 + form**exponent)
    return weights / weights.sum()


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """Return the (size, size) circular low-pass filter of a cutoff in radians per pixel; it has negative lobes."""
    from scipy.special import j1  # SciPy takes long to import, and most commands draw no such kernel

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
