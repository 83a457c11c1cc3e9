"""The two value ranges of images: [0, 1] at every boundary, [-1, 1] inside most diffusion models."""

from __future__ import annotations

from torch import Tensor


def to_signed_range(images: Tensor) -> Tensor:
    """Return images of [0, 1] in [-1, 1]; nothing is limited."""
    return (images - 0.5) / 0.5


def to_unit_range(images: Tensor) -> Tensor:
    """Return images of [-1, 1] in [0, 1]; nothing is limited."""
    return images * 0.5 + 0.5
