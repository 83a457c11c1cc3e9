"""Intervals from restorations drawn at random: as their spread says, and scaled so that they hold the share of pixels that they name.

The error of the mean of N restorations is taken to have the variance factor^2 spread^2 + floor^2 at a pixel. Both numbers, and by how many
such deviations an interval of each level reaches, are fitted on images with HR. The intervals hold for images that are exchangeable with
those: a pixel drawn at random from a new image lies in the interval of level p with a probability of at least p, whatever the method.
Source: split conformal prediction with images as groups of pixels (Lee, Barber and Willett 2023, "hierarchical conformal prediction").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsdiff.config import UserError

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of pixels that intervals are made for."""
LEAST_IMAGES = 12
"""Fewest images to fit on: every fourth for the deviation, and the nine others that an interval of 90 % takes."""
LEAST_FLOOR = 0.1
"""Smallest floor, as a share of the root mean square of the errors."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How wide intervals are.

    samples  restorations of every image that their spread is measured on
    factor   error per spread
    floor    error where the spread is 0, in units of [0, 1]
    reaches  deviations that an interval reaches on either side of the mean, by level; infinite where too few images were there
    images   images it was fitted on
    """

    samples: int
    factor: float
    floor: float
    reaches: Mapping[float, float]
    images: int = 0

    def deviation(self, spread: Values, unit: float | Values = 1.0) -> Values:
        """Return the deviation of the error for a spread (standard deviation of the samples) in units of which `unit` make up [0, 1]."""
        found: Values = np.hypot(self.factor * spread, self.floor * unit)
        return found

    def reach(self, level: float) -> float:
        """Return the deviations that an interval reaches; raises UserError for a level that was not or cannot be fitted."""
        possible = [known for known, reach in self.reaches.items() if math.isfinite(reach)]
        if level not in possible:
            raise UserError(
                f"level={level:g} was not calibrated; choose among {', '.join(f'{known:g}' for known in possible)} "
                "(higher levels take more images)."
            )
        return self.reaches[level]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; infinite reaches are left out."""
        reaches = {f"{level:g}": reach for level, reach in self.reaches.items() if math.isfinite(reach)}
        return {**asdict(self), "reaches": reaches}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Calibration:
        """Return what `to_json` gave."""
        reaches = {level: float(values["reaches"].get(f"{level:g}", math.inf)) for level in LEVELS}
        return Calibration(int(values["samples"]), float(values["factor"]), float(values["floor"]), reaches, int(values["images"]))


def as_drawn(samples: int, are_quantiles: bool = False) -> Calibration:
    """Return the intervals that N restorations give by themselves.

    They are exact where the restorations are draws from the Gaussian distribution that the HR image is from, too: HR minus their mean,
    over their standard deviation, times sqrt(N / (N + 1)), has Student's distribution. N quantiles have the mean of that distribution and
    nearly its standard deviation (0.954 of it with 2 of them, 0.986 with 8): the intervals are a normal distribution's.
    """
    if are_quantiles:
        return Calibration(samples, 1.0, 0.0, {level: NormalDist().inv_cdf((1 + level) / 2) for level in LEVELS})
    from scipy.special import stdtrit  # here and not above: SciPy takes long to import, and most commands do not need it

    wider = math.sqrt(1 + 1 / samples)
    reaches = {level: float(stdtrit(samples - 1, (1 + level) / 2)) for level in LEVELS}
    return Calibration(samples, wider, 0.0, reaches)


@dataclass(frozen=True)
class Pixels:
    """Errors of the mean and spreads of pixels of one image, drawn at random, in units of [0, 1]."""

    error: Values
    spread: Values


def fitted(images: Sequence[Pixels], samples: int) -> Calibration:
    """Return the calibration that images with HR give; raises UserError for fewer than `LEAST_IMAGES`.

    Every fourth image tells how the error grows with the spread, the others how far intervals reach: no image does both.
    """
    if len(images) < LEAST_IMAGES:
        raise UserError(f"{len(images)} images were given to calibrate on and {LEAST_IMAGES} are needed for intervals of 90 %; give more.")
    factor, floor = _deviation([image for index, image in enumerate(images) if index % 4 == 3])
    shape = Calibration(samples, factor, floor, {})
    scores = [np.sort(np.abs(image.error) / shape.deviation(image.spread)) for index, image in enumerate(images) if index % 4 != 3]
    return Calibration(samples, factor, floor, {level: _reach(scores, level) for level in LEVELS}, len(images))


def _deviation(images: Sequence[Pixels]) -> tuple[float, float]:
    """Return (factor, floor) of error^2 ~ factor^2 spread^2 + floor^2 by least squares over images, both at least 0.

    The floor is at least `LEAST_FLOOR` of the error: pixels whose samples agree are not free of errors, and intervals that reach those by a
    multiple of nearly nothing reach beyond all range elsewhere (a Landsat scene with water: 95 % took 300,000 deviations).
    """
    squared_error = np.array([np.mean(image.error**2) for image in images])
    squared_spread = np.array([np.mean(image.spread**2) for image in images])
    within = [_slope(image) for image in images]
    slope = max(0.0, float(np.mean(within)))
    floor, least = float(np.mean(squared_error - slope * squared_spread)), LEAST_FLOOR**2 * float(squared_error.mean())
    if floor < least:
        slope, floor = float((squared_error.mean() - least) / squared_spread.mean()), least
    return math.sqrt(slope), max(math.sqrt(floor), 1e-6)


def _slope(image: Pixels) -> float:
    """Return the slope of error^2 over spread^2 among the pixels of an image; 0 where the spread is constant."""
    squared = image.spread**2
    centred = squared - squared.mean()
    total = float((centred**2).sum())
    return float((centred * image.error**2).sum()) / total if total > 0 else 0.0


def _reach(scores: Sequence[Values], level: float) -> float:
    """Return the level's quantile of scores in which every image has the same weight, as has one not seen yet, beyond all others."""
    values = np.concatenate(scores)
    weights = np.concatenate([np.full(len(score), 1 / (len(score) * (len(scores) + 1))) for score in scores])
    order = np.argsort(values)
    shares = np.cumsum(weights[order])
    found = int(np.searchsorted(shares, level - 1e-12))
    return float(values[order][found]) if found < len(values) else math.inf


def coverages(images: Iterable[Pixels], calibration: Calibration) -> dict[float, float]:
    """Return the mean over images of the share of values within the intervals, by level; NaN without images or a fitted level."""
    found: dict[float, float] = {}
    images = list(images)
    for level in LEVELS:
        reach = calibration.reaches[level]
        shares = [float(np.mean(np.abs(one.error) <= reach * calibration.deviation(one.spread))) for one in images]
        found[level] = float(np.mean(shares)) if shares and math.isfinite(reach) else math.nan
    return found
