"""Noise of the practical degradations (BSRGAN, Real-ESRGAN) for drawn fields: Gaussian in three correlations, speckle, Poisson.

Three bands are red, green and blue where a grey value is needed; for any other number it is their mean.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rsdiff.data.transfer import like
from rsdiff.degradations.rounding import GREY_LEVELS, round_to_grey_levels

NoiseKind = Literal["colour", "grey", "correlated"]
"""Independent values in every band; one value for all bands; correlated between bands."""

Luma = Literal["bsrgan", "real_esrgan"]
_LUMA: dict[Luma, tuple[float, float, float]] = {"bsrgan": (0.299, 0.587, 0.114), "real_esrgan": (0.2989, 0.587, 0.114)}


def correlated_covariance(spread: Tensor, mixing: Tensor, level: float = 25 / GREY_LEVELS) -> Tensor:
    """Return BSRGAN's covariance of noise between bands, (C, C) float64: the absolute values of level^2 U^T diag(spread) U.

    spread  (C,), uniform in [0, 1)
    mixing  (C, C), uniform in [0, 1); U is an orthonormal basis of its columns
    level   standard deviation in units of [0, 1]; the published code has 25/255 whatever level it drew
    """
    left = torch.linalg.svd(mixing.to(torch.float64))[0]
    return (level**2 * left.mT @ torch.diag(spread.to(torch.float64)) @ left).abs()


def correlated_field(covariance: Tensor, normals: Tensor) -> Tensor:
    """Return noise (C, H, W) of this covariance (C, C) between bands from standard normal numbers (C, H, W).

    Absolute values keep a covariance of up to three bands positive semidefinite; of more bands, negative eigenvalues count as 0.
    """
    values, vectors = torch.linalg.eigh(covariance)
    mix = vectors * values.clamp(min=0).sqrt()
    return torch.einsum("dc,chw->dhw", like(mix, normals), normals)


def add_clipped(images: Tensor, fields: Tensor) -> Tensor:
    """Return images (N, C, H, W) + fields (N, C or 1, H, W), limited to [0, 1]."""
    return (images + fields).clamp(0, 1)


def add_speckle(images: Tensor, fields: Tensor) -> Tensor:
    """Return images (N, C, H, W) + images * fields, both limited to [0, 1]; fields (N, C or 1, H, W)."""
    images = images.clamp(0, 1)
    return (images + images * fields).clamp(0, 1)


def grey_of(images: Tensor, luma: Luma) -> Tensor:
    """Return (N, 1, H, W): the luma of three bands, the mean of any other number."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(_LUMA[luma])[:, None, None]).sum(1, keepdim=True)


def photon_rate(images: Tensor, is_grey: bool, luma: Luma) -> Tensor:
    """Return what Poisson counts are drawn of: the image, or its grey value, rounded to 8 bits; (N, C or 1, H, W) in [0, 1]."""
    return round_to_grey_levels(grey_of(images, luma) if is_grey else images).clamp(0, 1)


def poisson_bsrgan(images: Tensor, photons: float, is_grey: bool, counts: Tensor) -> Tensor:
    """Return images (N, C, H, W) in which `photons` stand for 1, after counting them; limited to [0, 1].

    counts  (N, C, H, W), or (N, 1, H, W) for is_grey, Poisson draws of photons * photon_rate(round_to_grey_levels(images))
    """
    images = round_to_grey_levels(images).clamp(0, 1)
    counted = like(counts, images) / photons
    return (images + (counted - photon_rate(images, True, "bsrgan")) if is_grey else counted).clamp(0, 1)


def distinct_photons(rates: Tensor) -> Tensor:
    """Return (N,): 2 to the ceiled binary logarithm of the number of distinct values in every image; Real-ESRGAN's photons for 1."""
    return rates.new_tensor([2.0 ** math.ceil(math.log2(len(torch.unique(rate)))) for rate in rates])


def poisson_real_esrgan(images: Tensor, scales: Tensor, rates: Tensor, counts: Tensor) -> Tensor:
    """Return images (N, C, H, W) + scale * (counts / photons - rate), limited to [0, 1].

    scales  (N,), multiples of the physical noise
    rates   (N, C or 1, H, W) of `photon_rate`
    counts  of the shape of rates, Poisson draws of rates * distinct_photons(rates)
    The noise is computed from the image rounded to 8 bits and added to the unrounded one, as published.
    """
    photons = distinct_photons(rates)[:, None, None, None]
    return (images + like(scales, images)[:, None, None, None] * (like(counts, images) / photons - rates)).clamp(0, 1)


def counted(rates: Tensor, seed: int) -> Tensor:
    """Return Poisson draws of `rates` (the expected counts), on their device, that depend on the seed and the device type alone."""
    return torch.poisson(rates, generator=torch.Generator(rates.device).manual_seed(seed))
