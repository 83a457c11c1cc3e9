"""Which stored values of a data set are 0 and 1: presets by name, what is measured, and the check that the data fit; see value_range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsdiff.data.normalisation import Normaliser, NormaliserConfig
from rsdiff.data.source import DataError
from rsdiff.data.value_range import SPARSE_TYPE, RangeUse, Survey, interval

RangeName = Literal["auto", "type", "measured", "sentinel2", "sentinel2_harmonized", "landsat_c2"]

PRESETS: Mapping[str, tuple[float, float]] = {
    "sentinel2": (1000.0, 11000.0),
    "sentinel2_harmonized": (0.0, 10000.0),
    "landsat_c2": (0.2 / 2.75e-5, 1.2 / 2.75e-5),
}
"""Counts of reflectance 0 and 1. Sentinel-2 since processing baseline 04.00 (January 2022) adds 1000 to 10000 times the reflectance;
products before, and those from which it was taken again ("harmonized"), do not. Landsat collection 2, level 2: 2.75e-5 * count - 0.2."""
MEASURED_IMAGES = 32
"""Training images on which the check looks."""
LOOKED_AT = 1024
"""Longest side of what it looks at in one of them."""


class RangeError(DataError):
    """Values that do not fit the range they are taken in; `what` says so without the advice of a data set."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice}")
        self.what = what


def rule_of(chosen: RangeName | tuple[float, float], given: NormaliserConfig) -> NormaliserConfig:
    """Return the normaliser that dataset.range=`chosen` means; `given` is that of dataset.normaliser, which `auto` leaves as it is."""
    if chosen == "auto":
        return given
    if chosen == "measured":
        return given if given.rule == "measured" else NormaliserConfig(rule="measured", images=given.images)
    if chosen == "type":
        return NormaliserConfig(rule="type")
    low, high = PRESETS[chosen] if isinstance(chosen, str) else chosen
    return NormaliserConfig(rule="fixed", low=(low,), high=(high,))


def surveyed(normaliser: Normaliser, parts: Iterable[tuple[NDArray[Any], NDArray[np.bool_] | None]]) -> Survey:
    """Return how values use a normaliser ('chosen') and the presets."""
    presets = {name: Normaliser((low,), (high,)) for name, (low, high) in PRESETS.items()}
    survey = Survey({"chosen": normaliser, **presets})
    for values, valid in parts:
        survey.add(values, valid)
    return survey


def require_fitting(normaliser: Normaliser, survey: Survey, dtype: np.dtype[Any], is_guessed: bool, where: str) -> RangeUse:
    """Return how the values use their range; raises DataError where many lie outside, or where they fill too little of a guessed one.

    is_guessed  the range is that of the integer type, and nobody said so
    """
    use = survey.use("chosen")
    sparse = is_guessed and dtype.itemsize > 1 and use.is_sparse(normaliser, SPARSE_TYPE)
    if not use.is_too_much and not sparse:
        return use
    presets = {name: Normaliser((low,), (high,)) for name, (low, high) in PRESETS.items()}
    fitting = [name for name, other in presets.items() if not survey.use(name).is_too_much and not use.is_sparse(other, SPARSE_TYPE)]
    advice = ", ".join(f"dataset.range={name}" for name in (*fitting, "measured"))
    wrong = "of which they fill next to nothing" if sparse else f"{100 * use.share:.0f} % of them outside"
    raise RangeError(
        f"{where} holds {dtype.name} values from {use.low:g} to {use.high:g}, taken as {interval(normaliser)}, {wrong}",
        f"say what is 0 and what is 1: {advice}, or dataset.range=[LOW,HIGH] (dataset.range=type: the whole range of the type).",
    )
