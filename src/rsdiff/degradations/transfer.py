"""Blur kernels in the Fourier domain, for periodic images: transfer functions, their kernels, and inverse filters.

Spectra are those of `torch.fft.rfft2`: (..., H, W // 2 + 1), unnormalised. Kernels are odd; tap (k // 2, k // 2) lies on the origin.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError


def transfer_function(kernels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the spectra of convolving periodic images of `size` (H, W) with kernels (..., k, k); k may not exceed H or W."""
    taps = kernels.shape[-1]
    if taps > min(size):
        raise UserError(f"a kernel of {taps} x {taps} pixels does not fit into an image of {size[0]}x{size[1]}; use larger images.")
    placed = F.pad(kernels, (0, size[1] - taps, 0, size[0] - taps))
    return torch.fft.rfft2(placed.roll((-(taps // 2), -(taps // 2)), dims=(-2, -1)))


def kernel_of(transfer: Tensor, size: tuple[int, int], taps: int) -> Tensor:
    """Return the (..., taps, taps) part around the origin of what has the spectrum `transfer` on a grid of `size` (H, W)."""
    impulse = torch.fft.irfft2(transfer, s=size)
    return impulse.roll((taps // 2, taps // 2), dims=(-2, -1))[..., :taps, :taps]


def least_squares_inverse(kernel: Tensor, smoother: Tensor) -> Tensor:
    """Return conj(K) / (|K|^2 + |P|^2): the filter that undoes blur K and keeps what P measures small.

    kernel, smoother  transfer functions K and P; both must not vanish at one frequency, since nothing is added to the denominator
    """
    return kernel.conj() / (kernel.abs().square() + smoother.abs().square())


def apply_transfer(images: Tensor, transfer: Tensor) -> Tensor:
    """Return periodic images (..., H, W) filtered by `transfer`."""
    return torch.fft.irfft2(transfer * torch.fft.rfft2(images), s=images.shape[-2:])
