"""How long work takes: measured by its first steps, in words."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

LEAST_SECONDS = 3.0
"""Of the steps that an estimate is made from."""
WORTH_SAYING = 20.0
"""Seconds of work from which on its length is of interest."""


def duration(seconds: float) -> str:
    """Return '1 h 05 min', '5 min 03 s' or '12 s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def roughly(seconds: float) -> str:
    """Return a length of time as an estimate is told: '40 s', '7 min', '3 h', '2 days'."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.75 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{10 * max(round(seconds / 10), 1)} s"


@dataclass(frozen=True)
class Estimate:
    """left: seconds of the steps that remain; each: of one step; over: steps that were measured."""

    left: float
    each: float
    over: int


@dataclass
class Pace:
    """Estimates once how long the rest of `total` steps takes, from the steps between the first call and a later one.

    The first step, which loads, compiles and reserves, is no part of the measurement. Where a device computes while the caller goes on,
    only moments at which it was waited for may be passed.
    """

    total: int
    _began: tuple[int, float] | None = field(default=None, init=False)
    _is_told: bool = field(default=False, init=False)

    def after(self, step: int) -> Estimate | None:
        """Return the estimate at the first call that allows one, if it is worth saying; else None."""
        now = time.monotonic()
        if self._is_told:
            return None
        if self._began is None:
            self._began = (step, now)
            return None
        first, began = self._began
        if step <= first or now - began < LEAST_SECONDS:
            return None
        self._is_told = True
        each = (now - began) / (step - first)
        left = each * (self.total - step)
        return Estimate(left, each, step - first) if left >= WORTH_SAYING else None
