"""Consistency with the input: degrade the restored image by the operator that made the LR, and compare the two LR images."""

from __future__ import annotations

import math

from torch import Tensor

from rsdiff.metrics.colour import quantise
from rsdiff.metrics.metric import View
from rsdiff.metrics.psnr import psnr


def lr_pair(view: View) -> tuple[Tensor, Tensor] | None:
    """Return (D(image), lr) on [0, 1], float64, D(image) neither rounded nor clipped; None where D gives another size than the LR has.

    The image is the 8-bit one that would be delivered. Degradations that crop their target before shrinking it have no such pair.
    """
    if view.degrade is None or view.lr is None:
        raise ValueError("LR consistency needs the operator that made the LR image; it is known only where a degradation made it.")
    degraded = view.degrade((quantise(view.image) / 255).float()).double()
    return (degraded, view.lr.double()) if degraded.shape == view.lr.shape else None


def lr_psnr(view: View) -> float:
    """Return the PSNR (peak 255) between D(image) and the LR, over bands and pixels, no border crop.

    The reference itself reaches about 58.9 dB where the LR was rounded to 8 bits and 20 log10(255/sigma) where noise sigma was added.
    """
    pair = view.once("lr pair", lambda: lr_pair(view))
    return math.nan if pair is None else psnr(pair[0] * 255, pair[1] * 255)


def lr_l1(view: View) -> float:
    """Return the mean absolute difference of D(image) and the LR on [0, 1]."""
    pair = view.once("lr pair", lambda: lr_pair(view))
    return math.nan if pair is None else float((pair[0] - pair[1]).abs().mean())
