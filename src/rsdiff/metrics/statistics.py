"""Statistics of values per image: paired differences with their uncertainty, tests over several methods, seeds as a second source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

RESAMPLES = 2000
COVERAGE = 0.95
SIGNIFICANT = 0.05
FEWEST = 6
"""Images from which on a Wilcoxon test of two sides can reach 0.05 at all."""


@dataclass(frozen=True)
class PairedDifference:
    """First minus second, image by image, over the images where both are finite.

    count      those images
    mean       of the differences; `error` is its standard error
    median     of the differences
    low, high  bootstrap interval of the mean over images, COVERAGE of the resamples (percentiles, RESAMPLES of a fixed seed)
    better     share of images on which the first is better; ties count half; NaN for metrics without a direction
    p          two-sided Wilcoxon signed-rank test of the differences; NaN below FEWEST images or where all are 0
    """

    count: int
    mean: float
    error: float
    median: float
    low: float
    high: float
    better: float
    p: float

    @property
    def is_significant(self) -> bool | None:
        """Whether the test speaks against chance; None where there is no test."""
        return None if math.isnan(self.p) else self.p < SIGNIFICANT

    def as_dict(self) -> dict[str, float | int | None]:
        """Return plain values for JSON; NaN becomes None."""
        return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in asdict(self).items()}


def both_finite(first: Sequence[float], second: Sequence[float]) -> tuple[Values, Values]:
    """Return the pairs of which both values are finite."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    kept = np.isfinite(a) & np.isfinite(b)
    return a[kept], b[kept]


def paired_difference(first: Sequence[float], second: Sequence[float], higher_is_better: bool | None = True) -> PairedDifference:
    """Return the statistics of first - second, two values of every image in the same order."""
    a, b = both_finite(first, second)
    differences = a - b
    count = len(differences)
    if count == 0:
        return PairedDifference(0, *[math.nan] * 7)
    error = float(differences.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    low, high = bootstrap_interval(differences)
    wins = differences if higher_is_better is not False else -differences
    better = math.nan if higher_is_better is None else float(((wins > 0) + 0.5 * (wins == 0)).mean())
    return PairedDifference(
        count, float(differences.mean()), error, float(np.median(differences)), low, high, better, wilcoxon_p(differences)
    )


def wilcoxon_p(differences: Values) -> float:
    """Return the two-sided p of the signed-rank test; zeros are left out, as Wilcoxon did."""
    moved = differences[differences != 0]
    if len(moved) < FEWEST:
        return math.nan
    from scipy.stats import wilcoxon  # here and not above: it takes half as long to import as PyTorch, and few commands compare

    return float(wilcoxon(moved).pvalue)


def bootstrap_interval(values: Values, coverage: float = COVERAGE, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the percentile interval of the mean of values (n,) under resampling; NaN for fewer than two."""
    if len(values) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    return _percentiles(values[drawn].mean(axis=1), coverage)


def two_way_interval(values: Values, coverage: float = COVERAGE, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the interval of the mean of values (seeds, images) when seeds and images are resampled, each as a whole.

    Trainings differ by their seed by as much as many published gains; an interval over images alone does not know that.
    """
    generator = np.random.default_rng(0)
    seeds, images = values.shape
    if seeds < 2 or images < 2:
        return math.nan, math.nan
    rows, columns = generator.integers(0, seeds, (resamples, seeds)), generator.integers(0, images, (resamples, images))
    means = np.array([values[np.ix_(row, column)].mean() for row, column in zip(rows, columns, strict=True)])
    return _percentiles(means, coverage)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number (Holm 1979): the chance of any false alarm stays below the level; NaN stays out."""
    known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    corrected, largest = dict.fromkeys(p_values, math.nan), 0.0
    for place, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - place)))
        corrected[name] = largest
    return corrected


def rank_intervals(
    scores: Mapping[str, Sequence[float]], higher_is_better: bool = True, resamples: int = RESAMPLES
) -> dict[str, tuple[int, int]]:
    """Return the ranks (best, worst) that every method has in COVERAGE of the resamples of the images: how stable their order is.

    scores  values of the same images in the same order, for every method; images that one of them lacks are left out
    """
    table = np.array([np.asarray(values, np.float64) for values in scores.values()])
    table = table[:, np.isfinite(table).all(axis=0)]
    if table.shape[1] < 2:
        return {name: (1, len(scores)) for name in scores}
    drawn = np.random.default_rng(0).integers(0, table.shape[1], (resamples, table.shape[1]))
    means = table[:, drawn].mean(axis=2) * (-1 if higher_is_better else 1)
    ranks = 1 + means.argsort(axis=0).argsort(axis=0)
    ends = np.percentile(ranks, [50 - 50 * COVERAGE, 50 + 50 * COVERAGE], axis=1, method="nearest")
    return {name: (int(low), int(high)) for name, low, high in zip(scores, *ends, strict=True)}


def _percentiles(means: Values, coverage: float) -> tuple[float, float]:
    low, high = np.percentile(means, [50 - 50 * coverage, 50 + 50 * coverage])
    return float(low), float(high)
