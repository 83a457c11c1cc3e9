"""Measures of the squared error of one image: MSE, PSNR, cPSNR, ERGAS. Float64; images (C, H, W) in units of the peak.

`valid` is (C, H, W) bool, or (1, H, W) for all bands: values that do not count may hold anything, NaN included. Bands without any valid
pixel are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rsdiff.config import UserError

EMPTY = 1e-6


def band_mse(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the (C,) mean squared error of every band over its valid pixels; NaN where none is."""
    error = (sr.double() - hr.double()).square()
    if valid is None:
        return error.mean((-2, -1))
    return masked_mean(error, valid)


def mse(sr: Tensor, hr: Tensor, valid: Tensor | None = None) -> float:
    """Return the mean squared error over all valid values of bands and pixels, in units of the peak squared; NaN where none is."""
    error = (sr.double() - hr.double()).square()
    if valid is None:
        return float(error.mean((-2, -1)).mean())
    counts = valid.expand_as(error)
    shares = counts.double().sum((-2, -1))
    bands = masked_mean(error, valid)
    return float((bands.nan_to_num() * shares).sum() / shares.sum())


def psnr(
    sr: Tensor, hr: Tensor, peak: float = 255.0, valid: Tensor | None = None, epsilon: float = 0.0, identical: float = math.inf
) -> float:
    """Return 10 log10(peak^2 / mean squared error over bands and pixels) in dB.

    epsilon    added to the error of the image on [0, 1]; pyiqa and the tensor version of BasicSR use 1e-8, which caps the value at 80 dB
    identical  value for identical images (DRSR returns 100)
    """
    error = mse(sr, hr, valid) / peak**2 + epsilon
    if math.isnan(error):
        return math.nan
    return identical if error == 0 else -10 * math.log10(error)


def pooled_psnr(values: Sequence[float]) -> float:
    """Return the PSNR of the error pooled over images of one size, from their PSNRs (torchmetrics' default class; 31.24 becomes 25.64 dB).

    Literature reports the mean of the values instead; this exists to reproduce tables that did not.
    """
    return -10 * math.log10(sum(10 ** (-value / 10) for value in values) / len(values))


def cpsnr(sr: Tensor, hr: Tensor, peak: float = 255.0, max_offset: int = 8, valid: Tensor | None = None) -> float:
    """Return the best PSNR over 81 translations and a brightness offset per band, for real (not simulated) LR-HR pairs.

    The SR window starts at (r, c), the HR window at (8-r, 8-c), r, c in 0..8, so relative shifts are -8..8 in steps of 2 and odd shifts
    are never tried, as in satlas-super-resolution (ssr/metrics/cpsnr.py). Raises UserError if the image is not larger than 8 px.
    """
    height, width = sr.shape[-2] - max_offset, sr.shape[-1] - max_offset
    if min(height, width) <= 0:
        raise UserError(f"cPSNR shifts by up to {max_offset} px and the image has {sr.shape[-2]}x{sr.shape[-1]}; use larger images.")
    sr, hr = sr.double(), hr.double()
    errors = []
    for row in range(max_offset + 1):
        for column in range(max_offset + 1):
            top, left = max_offset - row, max_offset - column
            window = (..., slice(row, row + height), slice(column, column + width))
            shifted = (..., slice(top, top + height), slice(left, left + width))
            difference = sr[window] - hr[shifted]
            if valid is None:
                errors.append((difference - difference.mean((-2, -1), keepdim=True)).square().mean())
                continue
            counts = valid[window] & valid[shifted]
            centred = difference - masked_mean(difference, counts)[:, None, None]
            errors.append(masked_mean(centred.square(), counts).nanmean())
    # One transfer for all shifts; those without a valid pixel are NaN.
    best = float(torch.stack(errors).nan_to_num(nan=math.inf).min())
    if math.isinf(best):
        return math.nan
    return math.inf if best == 0 else 10 * math.log10(peak**2 / best)


def ergas(sr: Tensor, hr: Tensor, scale: float, valid: Tensor | None = None) -> float:
    """Return 100/scale * sqrt(mean over bands of MSE_b / mean(HR_b)^2), lower is better (Wald 2000).

    scale  HR pixels per LR pixel along a side; for spectral super-resolution 1
    Bands whose reference has a mean of 0 (see `empty_bands`) have no relative error and are left out; NaN where all are.
    """
    hr_mean = band_means(hr, valid)
    relative = torch.where(empty_bands(hr, valid), math.nan, band_mse(sr, hr, valid) / hr_mean.square())
    return float(100 / scale * relative.nanmean().sqrt())


def band_means(image: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the (C,) means of the bands over their valid pixels."""
    return image.double().mean((-2, -1)) if valid is None else masked_mean(image.double(), valid)


def empty_bands(hr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return (C,) bool: the bands of a reference whose mean is 0 beside the other bands' (below 1e-6 of the largest), or unknown."""
    means = band_means(hr, valid).abs()
    return ~(means > EMPTY * means.nan_to_num().max())


def ergas_diffbsr(sr: Tensor, hr: Tensor, scale: float, valid: Tensor | None = None) -> float:
    """Return what DiffBSR's tables call ERGAS: 100/scale * sqrt(MSE / mean(SR)^2 / 3), with one mean over the SR image and a further 1/3.

    Not comparable with `ergas` (1.45 where that gives 2.52); here to reproduce those tables.
    """
    sr_mean = sr.double().mean() if valid is None else masked_mean(sr.double(), valid).nanmean()
    return float(100 / scale * math.sqrt(mse(sr, hr, valid) / float(sr_mean) ** 2 / 3))


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the (C,) mean of `values` (C, H, W) where `valid` (C or 1, H, W), NaN where nothing is; the others may hold anything."""
    counts = valid.expand_as(values)
    # where, not a product: NaN times 0 is NaN. 0 / 0 is NaN.
    total = torch.where(counts, values, torch.zeros((), dtype=values.dtype, device=values.device)).sum((-2, -1))
    return total / counts.sum((-2, -1))
