"""Additive noise of the Gaussian family."""

from __future__ import annotations

from torch import Tensor

from rsdiff.data.transfer import like
from rsdiff.degradations.rounding import GREY_LEVELS


def add_noise(images: Tensor, sigma_8bit: Tensor, field: Tensor) -> Tensor:
    """Return images + sigma * field; bands are independent and nothing is limited or rounded.

    images      (N, C, h, w) in [0, 1]
    sigma_8bit  (N,), standard deviation in 8-bit grey levels
    field       (N, C, h, w), standard normal
    """
    return images + like(sigma_8bit / GREY_LEVELS, images)[:, None, None, None] * like(field, images)
