"""Whether tiles show: gradients across their borders against gradients elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 8
"""Input pixels around a border with which it is compared."""


class SeamScore:
    """Mean absolute step between the two pixels on either side of a border, divided by that at places alike beside it.

    rows, columns  the pixels that begin a new tile; the border lies before them
    period         target pixels per input pixel: enlarged images step more at some phases than at others (bicubic x4: by a third), so a
                   border is compared with places of its phase only, and with near ones, since scenes differ from place to place
    1 means that borders look like the rest of the image, 2 that steps are twice as large there. The image may come in pieces, row by row.
    """

    def __init__(self, rows: Sequence[int], columns: Sequence[int], period: int = 1) -> None:
        self._borders = (np.asarray(rows, np.int64), np.asarray(columns, np.int64))
        self._period = period
        # Last row or column of a piece, by the place where the next piece begins.
        self._edges: tuple[dict[tuple[int, int], NDArray[np.float64]], ...] = ({}, {})
        self._sums = np.zeros((2, 2))
        self._counts = np.zeros((2, 2))

    def add(self, image: NDArray[Any], top: int = 0, left: int = 0, nodata: float | None = None) -> None:
        """Count the steps inside a piece (C, h, w) of the image whose first pixel is (top, left); missing pixels have none."""
        values = image.astype(np.float64)
        if nodata is not None:
            values[image == nodata] = np.nan
        self._edges[0][top + image.shape[1], left] = values[:, -1:].copy()  # a view would keep the whole piece
        self._edges[1][top, left + image.shape[2]] = values[:, :, -1:].copy()
        for axis, first in ((0, top), (1, left)):
            before = self._edges[axis].pop((top, left), None)
            if not len(self._borders[axis]):
                continue
            joined = values if before is None else np.concatenate([before, values], axis=axis + 1)
            steps = np.abs(np.diff(joined, axis=axis + 1))
            places = first + image.shape[axis + 1] - np.arange(steps.shape[axis + 1])[::-1] - 1
            distance = np.abs(places[:, None] - self._borders[axis]).min(axis=1)
            alike = (distance % self._period == 0) & (distance > 0) & (distance <= REACH * self._period)
            for kind, chosen in enumerate((alike, distance == 0)):
                picked = np.compress(chosen, steps, axis=axis + 1)
                present = np.isfinite(picked)
                self._sums[axis, kind] += picked[present].sum()
                self._counts[axis, kind] += present.sum()

    def value(self) -> float:
        """Return the score, the larger one of both axes; NaN where nothing could be compared."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self._sums / self._counts
            ratios = means[:, 1] / means[:, 0]
        known = ratios[np.isfinite(ratios)]
        return float(known.max()) if known.size else float("nan")


def seam_score(image: NDArray[Any], interval: int, period: int) -> float:
    """Return the score of an image (C, H, W) whose tiles are squares of `interval` pixels; see SeamScore for `period`."""
    score = SeamScore(range(interval, image.shape[1], interval), range(interval, image.shape[2], interval), period)
    score.add(image)
    return score.value()
