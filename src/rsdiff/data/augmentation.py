"""The augmentation every published method uses: flips and a transpose."""

from __future__ import annotations

from torch import Tensor


def augment(images: Tensor, horizontal: bool, vertical: bool, transpose: bool) -> Tensor:
    """Return images (..., H, W) flipped left-right, then flipped up-down, then with H and W exchanged, each if asked for.

    Together the eight combinations are the symmetries of the square; the published codes call the last step "rot90". Each is drawn with
    probability 1/2, in this order.
    """
    if horizontal:
        images = images.flip(-1)
    if vertical:
        images = images.flip(-2)
    return images.transpose(-2, -1) if transpose else images
