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

        def pixels(axis: int, places: slice | NDArray[np.int64]) -> NDArray[np.float64]:
            """Return some rows (axis 0) or columns (axis 1), NaN where they are missing."""
            part = image[:, places] if axis == 0 else image[:, :, places]
            values = part.astype(np.float64)
            if nodata is not None:
                values[part == nodata] = np.nan
            return values

        self._edges[0][top + image.shape[1], left] = pixels(0, slice(-1, None))
        self._edges[1][top, left + image.shape[2]] = pixels(1, slice(-1, None))
        for axis, first in ((0, top), (1, left)):
            before = self._edges[axis].pop((top, left), None)
            if not len(self._borders[axis]):
                continue
            places = np.arange(0 if before is not None else 1, image.shape[axis + 1])  # a step leads to a pixel from the one before it
            distance = np.abs(first + places[:, None] - self._borders[axis]).min(axis=1)
            alike = (distance % self._period == 0) & (distance > 0) & (distance <= REACH * self._period)
            for kind, chosen in enumerate((alike, distance == 0)):
                # Few rows and columns are compared: the others are not even looked at.
                after = places[chosen]
                if not len(after):
                    continue
                here, previous = pixels(axis, after), pixels(axis, np.maximum(after - 1, 0))
                if before is not None and after[0] == 0:
                    previous[(slice(None),) * (axis + 1) + (slice(1),)] = before
                steps = np.abs(here - previous)
                present = np.isfinite(steps)
                self._sums[axis, kind] += steps[present].sum()
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
