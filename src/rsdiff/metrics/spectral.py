"""Measures of spectra (C values of a pixel): float64; images (C, H, W) in units of the peak, which must be proportional to physical values.

`valid` is (C, H, W) bool, or (1, H, W) for all bands: values that do not count may hold anything, NaN included.
Sources: the definitions that hyperspectral papers share (SSPSR, R2HGAN, NTIRE 2022); where they differ, arguments choose.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.metrics.psnr import band_mse, masked_mean, mse
from rsdiff.metrics.ssim import band_average, ssim, whole_windows

Window = Literal["gaussian11", "uniform7"]


def mpsnr(sr: Tensor, hr: Tensor, peak: float, valid: Tensor | None = None) -> float:
    """Return the mean over bands of 10 log10(peak^2 / mean squared error) in dB, infinite if a band is identical.

    Bands whose reference is constant (see `flat_bands`) hold nothing to restore and are left out; NaN where all are. Of the same bands,
    never below the PSNR of the error pooled over bands, which `psnr` is.
    """
    return float(torch.where(flat_bands(hr, valid), math.nan, band_psnr(sr, hr, peak, valid)).nanmean())


def flat_bands(hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return (C,) bool: the bands of a reference that have one value at all valid pixels, or none."""
    counts = torch.ones_like(hr, dtype=torch.bool) if valid is None else valid.expand_as(hr)
    low = torch.where(counts, hr.double(), math.inf).amin((-2, -1))
    high = torch.where(counts, hr.double(), -math.inf).amax((-2, -1))
    return ~(low < high)


def band_psnr(sr: Tensor, hr: Tensor, peak: float, valid: Tensor | None = None) -> Tensor:
    """Return the (C,) PSNR of every band in dB."""
    return 10 * (peak**2 / band_mse(sr, hr, valid)).log10()


def mssim(sr: Tensor, hr: Tensor, peak: float, valid: Tensor | None = None, window: Window = "gaussian11") -> float:
    """Return the mean over bands of the structural similarity.

    gaussian11  `ssim`: Gaussian window, population moments (R2HGAN)
    uniform7    7x7 uniform window, sample covariance, windows inside the image: scikit-image's default (SSPSR); all pixels must be valid
    """
    if window == "gaussian11":
        return ssim(sr, hr, peak, valid)
    if valid is not None and not bool(valid.all()):
        raise UserError("the uniform window has no rule for invalid pixels; choose window gaussian11.")
    x, y = sr.double(), hr.double()
    side, c1, c2 = 7, (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_x, mean_y, square_x, square_y, product = block_means(torch.stack((x, y, x * x, y * y, x * y)), side).unbind()
    sample = side**2 / (side**2 - 1)
    variances = sample * (square_x - mean_x.square() + square_y - mean_y.square())
    covariance = sample * (product - mean_x * mean_y)
    values = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x.square() + mean_y.square() + c1) * (variances + c2))
    return float(values.mean())


def spectral_angles(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the (H, W) angles in radians between the spectra of two images; NaN where either is zero or not finite."""
    products, own, true = (torch.zeros(sr.shape[-2:], dtype=torch.float64, device=sr.device) for _ in range(3))
    for a, b in zip(sr, hr, strict=True):  # band by band: float64 copies of a whole cube leave the cache
        a, b = a.double(), b.double()
        products.addcmul_(a, b)
        own.addcmul_(a, a)
        true.addcmul_(b, b)
    norms = own.sqrt() * true.sqrt()
    angles = (products / norms).clamp(-1, 1).arccos()
    return torch.where(norms > 0, angles, torch.nan)


def sam(sr: Tensor, hr: Tensor, valid: Tensor | None = None, zero: Literal["skip", "half_pi"] = "skip") -> float:
    """Return the mean spectral angle in degrees; NaN if no pixel has one.

    zero  pixels without a direction are left out, or count as 90 degrees (R2HGAN, NTIRE)
    """
    angles = spectral_angles(sr, hr)
    if valid is not None:
        angles = angles[valid.all(0)]
    if zero == "half_pi":
        angles = angles.nan_to_num(nan=math.pi / 2)
    return math.degrees(float(angles.nanmean()))


def rmse(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> float:
    """Return the root of the mean squared error over bands and pixels, in units of the peak."""
    return math.sqrt(mse(sr, hr, valid))


def mrae(sr: Tensor, hr: Tensor, valid: Tensor | None = None, offset: float = 0.0) -> float:
    """Return the mean of |sr - hr| / (hr + offset) over the values where the divisor is positive; NaN if there is none.

    offset  R2HGAN adds 1 to digital numbers; SSPSR's MARE adds 1 to values on [0, 1], which is another measure altogether
    """
    target = hr.double() + offset
    counts = target > 0 if valid is None else (target > 0) & valid
    return float(((sr.double() - hr.double()).abs() / target)[counts].mean())


def cc(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> float:
    """Return the mean over bands of Pearson's correlation over pixels; bands that are constant in either image are left out."""
    return float(band_cc(sr, hr, valid).nanmean())


def band_cc(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the (C,) correlation of every band; NaN where it is constant."""
    counts = torch.ones_like(sr[:1], dtype=torch.bool) if valid is None else valid
    x, y = (image - masked_mean(image, counts)[:, None, None] for image in (sr.double(), hr.double()))
    return masked_mean(x * y, counts) / (masked_mean(x * x, counts) * masked_mean(y * y, counts)).sqrt()


def uiqi(sr: Tensor, hr: Tensor, block: int = 8, valid: Tensor | None = None) -> float:
    """Return Wang and Bovik's quality index: the mean over bands and all positions of a uniform block, stride 1.

    Q = 4 s12 m1 m2 / ((s1 + s2)(m1^2 + m2^2)); 2 m1 m2 / (m1^2 + m2^2) where both blocks are flat, 1 where both are 0.
    valid  blocks that touch an invalid pixel do not count
    Raises UserError for images smaller than a block.
    """
    if min(sr.shape[-2:]) < block:
        raise UserError(f"UIQI needs {block}x{block} pixels and the image has {sr.shape[-2]}x{sr.shape[-1]} after the border crop.")
    x, y = sr.double(), hr.double()
    mean_x, mean_y, square_x, square_y, product = block_means(torch.stack((x, y, x * x, y * y, x * y)), block).unbind()
    squares = mean_x.square() + mean_y.square()
    variances = square_x + square_y - squares
    # The difference of two large sums: what is left of a flat block is rounding.
    flat = variances <= 1e-12 * (square_x + square_y)
    luminance = torch.where(squares > 0, 2 * mean_x * mean_y / squares, 1.0)
    values = luminance * torch.where(flat, 1.0, 2 * (product - mean_x * mean_y) / variances)
    if valid is None:
        return float(values.mean())
    return band_average(values, whole_windows(valid, block))


def block_means(image: Tensor, side: int) -> Tensor:
    """Return the means of all side x side blocks of (..., H, W), stride 1: (..., H-side+1, W-side+1); NaN spoils only its own blocks."""
    return image.unfold(-2, side, 1).mean(-1).unfold(-1, side, 1).mean(-1)


def back_projection_mrae(sr: Tensor, hr: Tensor, response: Tensor) -> float:
    """Return `mrae` between what a camera of `response` (C, m) sees of two images (NTIRE 2022)."""
    seen = [torch.einsum("chw,cm->mhw", image.double(), response.double()) for image in (sr, hr)]
    return mrae(seen[0], seen[1])
