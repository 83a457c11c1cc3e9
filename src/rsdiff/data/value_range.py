"""One rule for values outside the range that is assumed to be [0, 1], for scenes and for data sets.

The share of valid values outside is measured. None: nothing to say. Up to FEW of them: a network works on what is inside, what lies outside
is carried around it, and both are counted. More: refused, naming a range that fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsdiff.data.normalisation import Normaliser

FEW = 0.05
"""Share of the valid values that may lie outside a range: clouds, ships, noise below zero. Beyond it the range is wrong."""
SPARSE = 0.01
"""Share of a trained range that values must fill; less is another unit."""
SPARSE_TYPE = 0.25
"""Share of the range of an integer type of more than 8 bits that values must fill to be believed to use it: 14 bits of 16 fill it."""
_SLACK = 1e-5
"""Part of a range by which a value may exceed it without lying outside: the rounding of float32."""


@dataclass(frozen=True)
class RangeUse:
    """How values use a range; counts are of valid values.

    values, outside  number of all, and of those outside
    low, high        lowest and highest
    """

    values: int = 0
    outside: int = 0
    low: float = 0.0
    high: float = 0.0

    @property
    def share(self) -> float:
        """Share of the values that lie outside."""
        return self.outside / self.values if self.values else 0.0

    @property
    def is_too_much(self) -> bool:
        """Whether so many values lie outside that the range is not theirs."""
        return self.share > FEW

    def is_sparse(self, normaliser: Normaliser, least: float) -> bool:
        """Say whether the values fill less than the share `least` of a range, from its low end on."""
        low, high = min(normaliser.low), max(normaliser.high)
        return self.values > 0 and self.high - low < least * (high - low)

    def told(self, normaliser: Normaliser) -> str:
        """Return the count in words, for a log and a tag."""
        return f"{self.outside} of {self.values} values ({percent(self.share)}) lie outside {interval(normaliser)}"


class Survey:
    """Counts how values use several ranges, part by part.

    ranges  name -> range; each has one value or as many as there are bands
    """

    def __init__(self, ranges: Mapping[str, Normaliser]) -> None:
        self._ranges = dict(ranges)
        self._outside = dict.fromkeys(ranges, 0)
        self._values = 0
        self.low: NDArray[np.float64] | None = None
        self.high: NDArray[np.float64] | None = None

    def add(self, values: NDArray[Any], valid: NDArray[np.bool_] | None) -> None:
        """Count values (C, h, w) in stored units; `valid`, of the same shape, is None where all are."""
        counted = values.size if valid is None else int(valid.sum())
        if not counted:
            return
        self._values += counted
        low, high = extremes(values, valid)
        self.low = low if self.low is None else np.fmin(self.low, low)
        self.high = high if self.high is None else np.fmax(self.high, high)
        for name, limits in self._ranges.items():
            least, most = (_columns(edge, values.shape[0]) for edge in (limits.low, limits.high))
            slack = _SLACK * (most - least)
            if not (low < (least - slack)[:, 0, 0]).any() and not (high > (most + slack)[:, 0, 0]).any():
                continue
            beyond = (values < least - slack) | (values > most + slack)
            self._outside[name] += int((beyond if valid is None else beyond & valid).sum())

    def use(self, name: str) -> RangeUse:
        """Return what was counted of a range so far."""
        if self.low is None or self.high is None:
            return RangeUse()
        return RangeUse(self._values, self._outside[name], float(np.nanmin(self.low)), float(np.nanmax(self.high)))


def extremes(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and the highest valid value of every band (C,), NaN for a band without any."""
    flat = values.reshape(values.shape[0], -1)
    if valid is None:
        return flat.min(1).astype(np.float64), flat.max(1).astype(np.float64)
    known = valid.reshape(flat.shape)
    low, high = np.full(len(flat), np.nan), np.full(len(flat), np.nan)
    for band in np.flatnonzero(known.any(1)).tolist():
        chosen = flat[band][known[band]]
        low[band], high[band] = chosen.min(), chosen.max()
    return low, high


def interval(normaliser: Normaliser) -> str:
    """Return a range in words: 0 to 10000."""
    if len(set(zip(normaliser.low, normaliser.high, strict=True))) == 1:
        return f"{normaliser.low[0]:g} to {normaliser.high[0]:g}"
    return f"{min(normaliser.low):g} to {max(normaliser.high):g} (per band)"


def percent(share: float) -> str:
    """Return a share in percent with as many digits as tell it from nothing and from everything."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.2g} %"


def _columns(values: tuple[float, ...], bands: int) -> NDArray[np.float64]:
    return np.broadcast_to(np.asarray(values, np.float64).reshape(-1, 1, 1), (bands, 1, 1))
