"""How well restorations drawn at random tell what is not known: CRPS, spread and skill, coverage of intervals, by octave of frequency.

All are over valid values of all bands in units of [0, 1], neither rounded nor cropped. N draws and the HR image should be alike: N + 1
draws from one distribution. Then the spread, made larger by sqrt((N + 1) / N), equals the error of the mean, and intervals hold what they
name. Where the N are quantiles of every pixel instead, they tell the distribution itself, as infinitely many draws would: nothing is made
larger, and they have no parts of certain frequencies, because they do not say how neighbours go together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rsdiff.metrics.calibration import LEVELS, Calibration, as_drawn
from rsdiff.metrics.metric import Context, ImageScore, Metric, View
from rsdiff.metrics.octaves import OCTAVES, octave_parts

SAMPLES, IMAGES = "samples", "images"
"""What a metric needs that looks at several restorations of an image, and that these are images that could be, not quantiles of pixels."""
NEEDS = frozenset({"hr", SAMPLES})
INTERVALS = ("coverage", "interval_width", "reliability_")
"""How the columns begin that judge intervals, which are not tried on images that they were fitted on."""
LEVEL = 0.9
"""Of the intervals whose coverage stands in tables."""


def crps(draws: Tensor, hr: Tensor, are_quantiles: bool = False) -> Tensor:
    """Return the continuous ranked probability score (C, H, W) of draws (N, C, H, W), N >= 2; the absolute error where all are equal.

    The fair estimate, whose mean does not depend on N: mean |x_i - y| - sum_{i<j} |x_i - x_j| / (N (N - 1)). Of quantiles at the levels
    (i + 1/2) / N twice their mean pinball loss, which is this with N^2 in place of N (N - 1).
    Source: Ferro 2014, "Fair scores for ensemble forecasts", eq. 4; Gneiting and Ranjan 2011 for quantiles.
    """
    count = len(draws)
    ordered = draws.double().sort(0).values
    weights = 2 * torch.arange(count, dtype=torch.float64, device=draws.device) - (count - 1)
    between = torch.tensordot(weights, ordered, 1) / (count * (count if are_quantiles else count - 1))
    return (draws.double() - hr.double()).abs().mean(0) - between


def interval_coverage(error: Tensor, spread: Tensor, calibration: Calibration, level: float) -> Tensor:
    """Return where an error of the mean lies within the interval of a level, bool; `spread` is the standard deviation of the draws."""
    deviation = torch.hypot(calibration.factor * spread, torch.full_like(spread, calibration.floor))
    return error.abs() <= calibration.reaches.get(level, math.inf) * deviation


def reliability(view: View) -> dict[str, float]:
    """Return what tables are made of besides the metrics.

    reliability_10 .. reliability_95  share of HR values in the intervals of every level
    error_octave_1 .., spread_octave_1 ..  root mean squares by octave, from which the ratio over several images follows
    """
    error, spread, valid = _error_and_spread(view)
    inside = {level: interval_coverage(error, spread, _calibration(view), level) for level in LEVELS}
    found = {f"reliability_{round(100 * level)}": float(of_level[valid].double().mean()) for level, of_level in inside.items()}
    found["spread"] = _rms(spread[valid])
    if view.are_quantiles:
        return found
    for octave in range(OCTAVES):
        error, spread, valid = _of_octave(view, octave)
        found |= {f"error_octave_{octave + 1}": _rms(error[valid]), f"spread_octave_{octave + 1}": _rms(spread[valid])}
    return found


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def pooled_ratio(errors: Sequence[float], spreads: Sequence[float], samples: float) -> float:
    """Return spread over skill of several images of N draws from root mean squares of each; the mean of their ratios is not right.

    samples  N; infinite for quantiles, whose mean is that of the distribution
    """
    error, spread = (math.fsum(value**2 for value in values) for values in (errors, spreads))
    return math.sqrt((1 + 1 / samples) * spread / error) if error > 0 else math.nan


def _draws(view: View) -> Tensor:
    assert view.draws is not None, "the evaluator leaves metrics of draws out where there are none"
    return view.draws


def _calibration(view: View) -> Calibration:
    return view.calibration or as_drawn(len(_draws(view)), view.are_quantiles)


def _valid(view: View) -> Tensor:
    hr = view.reference()
    return torch.ones_like(hr, dtype=torch.bool) if view.valid is None else view.valid.expand_as(hr)


def _error_and_spread(view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Return HR minus the mean of the draws, their standard deviation, and which values count, all (C, H, W)."""

    def compute() -> tuple[Tensor, Tensor, Tensor]:
        draws = _draws(view).double()
        return view.reference().double() - draws.mean(0), draws.std(0), _valid(view)

    return view.once("error and spread", compute)


def _of_octave(view: View, octave: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same of the octave's part of the images: missing values are those of the mean of the draws, and do not count."""

    def compute() -> tuple[tuple[Tensor, Tensor], ...]:
        valid, draws = _valid(view), _draws(view).double()
        mean = draws.mean(0)
        error = octave_parts(torch.where(valid, view.reference().double() - mean, torch.zeros((), dtype=torch.float64)))
        # Taken one by one: the spread of all draws in every octave at once would take three times their memory.
        spreads = torch.zeros_like(error)
        for draw in draws:
            spreads += octave_parts(torch.where(valid, draw - mean, torch.zeros((), dtype=torch.float64))).square()
        spread = (spreads / (len(draws) - 1)).sqrt()
        return tuple(zip(error, spread, strict=True))

    error, spread = view.once("octaves of draws", compute)[octave]
    return error, spread, _valid(view)


def _crps(view: View) -> float:
    return float(crps(_draws(view), view.reference(), view.are_quantiles)[_valid(view)].mean())


def _skill(view: View) -> float:
    error, _, valid = _error_and_spread(view)
    return _rms(error[valid])


def _width(view: View) -> float:
    _, spread, valid = _error_and_spread(view)
    calibration = _calibration(view)
    deviation = torch.hypot(calibration.factor * spread, torch.full_like(spread, calibration.floor))
    return 2 * calibration.reaches.get(LEVEL, math.inf) * float(deviation[valid].mean())


def _spread_skill(octave: int | None = None) -> ImageScore:
    def score(view: View) -> float:
        error, spread, valid = _error_and_spread(view) if octave is None else _of_octave(view, octave)
        return pooled_ratio([_rms(error[valid])], [_rms(spread[valid])], math.inf if view.are_quantiles else len(_draws(view)))

    return score


def _coverage(octave: int | None = None) -> ImageScore:
    def score(view: View) -> float:
        error, spread, valid = _error_and_spread(view) if octave is None else _of_octave(view, octave)
        # The calibration is of pixels; the parts of an image are judged by what the draws themselves say.
        calibration = _calibration(view) if octave is None else as_drawn(len(_draws(view)))
        return float(interval_coverage(error[valid], spread[valid], calibration, LEVEL).double().mean())

    return score


def _ready(score: ImageScore) -> Callable[[Context], ImageScore]:
    return lambda context: score


def _metric(
    name: str,
    title: str,
    meaning: str,
    score: ImageScore,
    direction: str = "none",
    high: float = math.inf,
    needs: frozenset[str] = NEEDS,
) -> Metric:
    return Metric(name, title, meaning, direction=direction, high=high, needs=needs, build=_ready(score))  # type: ignore[arg-type]


def _octave_metrics(octave: int) -> tuple[Metric, Metric]:
    above = f"frequencies from 1/{2 ** (octave + 2)} cycles per pixel" + ("" if octave == 0 else f" to 1/{2 ** (octave + 1)}")
    return (
        _metric(
            f"spread_skill_octave_{octave + 1}",
            f"Spread/skill, octave {octave + 1}",
            f"Spread over skill of {above}; 1 is right.",
            _spread_skill(octave),
            needs=NEEDS | {IMAGES},
        ),
        _metric(
            f"octave_coverage_{octave + 1}",
            f"Coverage 90 %, octave {octave + 1}",
            f"Share of the part of HR of {above} in the intervals of 90 % that the draws give, not calibrated.",
            _coverage(octave),
            high=1.0,
            needs=NEEDS | {IMAGES},
        ),
    )


UNCERTAINTY = (
    _metric("crps", "CRPS", "Continuous ranked probability score of the draws, in units of [0, 1].", _crps, "lower"),
    _metric("mean_rmse", "RMSE of the mean", "Error of the mean of the draws, in units of [0, 1].", _skill, "lower"),
    _metric(
        "spread_skill", "Spread/skill", "Spread of the draws over the error of their mean; 1 is right, below is too sure.", _spread_skill()
    ),
    _metric("coverage", "Coverage 90 %", "Share of HR values in the intervals of 90 %; 0.9 is right.", _coverage(), high=1.0),
    _metric("interval_width", "Width 90 %", "Mean width of the intervals of 90 %, in units of [0, 1].", _width, "lower"),
    *(metric for octave in range(OCTAVES) for metric in _octave_metrics(octave)),
)
"""Metrics of several restorations of an image."""
