"""Consistency with the input: degrade the restored image by the operator that made the LR, and compare the two LR images."""

from __future__ import annotations

import math

from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.missing import fill_missing
from rsdiff.metrics.metric import View
from rsdiff.metrics.psnr import masked_mean, psnr

Pair = tuple[Tensor, Tensor, Tensor | None]


def lr_pair(view: View) -> Pair | None:
    """Return (D(image), lr, valid) on [0, 1], float64, D(image) neither rounded nor clipped; None where D gives another size than lr.

    The image is the 8-bit one that would be delivered, its missing pixels filled as they were when the LR was made. LR pixels count that
    were made of known ones alone. Degradations that crop their target before shrinking it have no such pair.
    """
    if view.degrade is None or view.lr is None:
        raise UserError("LR consistency needs the operator that made the LR image; it is known only where a degradation made it.")
    image = view.quantised(view.image) / view.protocol.peak
    if view.valid is not None:
        image = fill_missing(image[None], view.valid[None])[0]
    degraded = view.degrade(image.float()).double()
    return (degraded, view.lr.double(), view.lr_valid) if degraded.shape == view.lr.shape else None


def lr_psnr(view: View) -> float:
    """Return the PSNR (peak 255) between D(image) and the LR, over bands and pixels, no border crop.

    The reference itself reaches about 58.9 dB where the LR was rounded to 8 bits and 20 log10(255/sigma) where noise sigma was added.
    """
    pair = view.once("lr pair", lambda: lr_pair(view))
    return math.nan if pair is None else psnr(pair[0] * 255, pair[1] * 255, valid=pair[2])


def lr_l1(view: View) -> float:
    """Return the mean absolute difference of D(image) and the LR on [0, 1]."""
    pair = view.once("lr pair", lambda: lr_pair(view))
    if pair is None:
        return math.nan
    difference = (pair[0] - pair[1]).abs()
    return float(difference.mean() if pair[2] is None else masked_mean(difference, pair[2]).nanmean())
