"""At which scales a checkpoint was trained: kept on its card, and compared with the scale of a run that restores with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCALES = "scales"
"""Key of a checkpoint's card: the lowest and the highest scale of its training."""


def trained_scales(card: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the lowest and the highest scale of a training; None where nobody says so, as for weights imported from published files."""
    if SCALES in card:
        low, high = card[SCALES]
    elif (trainer := card["config"].get("trainer")) is not None:  # trained before cards told the scales
        scale = card["problem"]["scale"]
        low, high = trainer.get("scale_range") or (scale, scale)
    else:
        return None
    return float(low), float(high)


def told_scales(low: float, high: float) -> str:
    """Return 'x4' or 'x1 to x4'."""
    return f"x{low:g}" if low == high else f"x{low:g} to x{high:g}"


def beyond_training(card: Mapping[str, Any], name: str, scale: float) -> list[str]:
    """Return a sentence where a scale lies outside those that the checkpoint of that card and name was trained at, else nothing."""
    found = trained_scales(card)
    if found is None or found[0] <= scale <= found[1]:
        return []
    return [
        f"{name} was trained at {told_scales(*found)}, and "
        f"nothing is known of what it does at scale={scale:g}; compare with bicubic, or choose a scale within."
    ]
