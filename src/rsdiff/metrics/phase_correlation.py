"""Subpixel shift between two images by phase correlation (Guizar-Sicairos, Thurman and Fienup 2008)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

UPSAMPLING = 50
"""The peak is located on a grid of 1/50 pixel."""


def subpixel_shift(reference: Tensor, moving: Tensor) -> tuple[float, float]:
    """Return the (rows, columns) by which `moving` (H, W) has to be shifted to register with `reference` (H, W).

    The cross-power spectrum is normalised to unit modulus, its peak found to a pixel by an FFT and then to 1/50 pixel by a matrix product
    around it. Images are taken as periodic: borders that differ bias the estimate on small tiles.
    """
    product = torch.fft.fft2(reference.double()) * torch.fft.fft2(moving.double()).conj()
    # 100 eps keeps frequencies that hold nothing from voting with a random phase.
    product = product / product.abs().clamp(min=100 * torch.finfo(torch.float64).eps)
    coarse = torch.fft.ifft2(product).abs()
    peak = divmod(int(coarse.argmax()), coarse.shape[1])
    shift = [float(at - length if at > length // 2 else at) for at, length in zip(peak, coarse.shape, strict=True)]
    region = math.ceil(1.5 * UPSAMPLING)
    centre = region // 2
    fine = _transform_around(product.conj(), [centre - at * UPSAMPLING for at in shift], region).abs()
    row, column = divmod(int(fine.argmax()), region)
    return shift[0] + (row - centre) / UPSAMPLING, shift[1] + (column - centre) / UPSAMPLING


def _transform_around(spectrum: Tensor, offsets: list[float], region: int) -> Tensor:
    """Return `region` x `region` samples of the Fourier transform of `spectrum`, spaced 1/50 pixel, from `offsets` on."""
    steps = torch.arange(region, dtype=torch.float64, device=spectrum.device)
    kernels = [
        torch.exp(
            -2j * math.pi * (steps - offset)[:, None] * torch.fft.fftfreq(length, UPSAMPLING, dtype=torch.float64, device=spectrum.device)
        )
        for offset, length in zip(offsets, spectrum.shape, strict=True)
    ]
    return kernels[0] @ spectrum @ kernels[1].mT
