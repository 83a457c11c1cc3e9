"""Sizes at any scale, also fractional ones: of whole test images and of training crops."""

from __future__ import annotations

import math
from typing import Literal

from rsdiff.data.source import SizeRule

Kept = Literal["lr", "hr"]

TOLERANCE = 1e-9  # 600 / 2.4 must be 250 whatever the rounding of the quotient (LIIF's constant)


def lr_sides(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (h, w) = floor(H / scale), floor(W / scale) of a target of `size` (H, W)."""
    return math.floor(size[0] / scale + TOLERANCE), math.floor(size[1] / scale + TOLERANCE)


def target_sides(size: tuple[int, int], scale: float, rule: SizeRule) -> tuple[int, int]:
    """Return the target's size (H, W) of a test image of `size`.

    keep  the image's own, so that the ratio of target to LR is not quite the scale (LDCSR: 600 at 2.6 comes from 230)
    crop  round(h scale), round(w scale), half to even, of its LR size: a multiple of an integer scale (LIIF: 600 at 2.6 becomes 598)
    """
    if rule == "keep":
        return size
    h, w = lr_sides(size, scale)
    return round(h * scale), round(w * scale)


def crop_sides(scale: float, patch: int, kept: Kept, rounding: Literal["down", "nearest"]) -> tuple[int, int]:
    """Return the sides (HR, LR) of a training crop at `scale`, one of which is `patch`.

    kept      lr: LR crops have `patch` pixels and HR crops scale times as many; hr: HR crops have `patch` pixels
    rounding  of the other side: down (LDCSR) or to the nearest integer (LIIF)
    """
    other = patch * scale if kept == "lr" else patch / scale
    side = math.floor(other + TOLERANCE) if rounding == "down" else round(other)
    return (side, patch) if kept == "lr" else (patch, max(side, 1))
