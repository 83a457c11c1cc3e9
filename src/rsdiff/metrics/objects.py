"""How well objects are found: overlap of masks, agreement of their outlines, and objects found by their size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Outlines:
    """Pixels of outlines: those of the found and of the true mask, and how many of each lie beside one of the other."""

    found: int = 0
    found_right: int = 0
    true: int = 0
    true_right: int = 0

    def __add__(self, other: Outlines) -> Outlines:
        return Outlines(
            self.found + other.found, self.found_right + other.found_right, self.true + other.true, self.true_right + other.true_right
        )

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; NaN where neither mask has an outline, 0 where one has none."""
        if not self.found and not self.true:
            return float("nan")
        right = self.found_right * self.true + self.true_right * self.found
        return 2 * self.found_right * self.true_right / right if right else 0.0


def outlines(found: Mask, true: Mask, tolerance: int = 2) -> Outlines:
    """Return the agreement of the outlines of two masks (H, W): outline pixels lie `tolerance` or fewer pixels apart, rows or columns.

    The outline are the pixels of a mask of which a neighbour in the row or column is not in it; the image's border is none.
    Source: the boundary F-measure of Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?".
    """
    from scipy import ndimage  # here and not above: SciPy takes long to import, and few commands look for objects

    square = np.ones((2 * tolerance + 1, 2 * tolerance + 1), np.bool_)
    first, second = (mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (found, true))
    beside = [ndimage.binary_dilation(line, square) for line in (first, second)]
    return Outlines(int(first.sum()), int((first & beside[1]).sum()), int(second.sum()), int((second & beside[0]).sum()))


@dataclass(frozen=True)
class Found:
    """One true object: its pixels, the mean score on them, and the highest."""

    pixels: int
    mean: float
    highest: float


def objects_of(true: Mask, scores: NDArray[np.floating]) -> list[Found]:
    """Return every object of a mask (H, W), connected along rows and columns, with its scores (H, W) in [0, 1]."""
    from scipy import ndimage  # see `outlines`

    labels, count = ndimage.label(true)
    if not count:
        return []
    numbers = np.arange(1, count + 1)
    sizes = ndimage.sum_labels(true, labels, numbers)
    means, highest = ndimage.mean(scores, labels, numbers), ndimage.maximum(scores, labels, numbers)
    return [Found(int(size), float(mean), float(high)) for size, mean, high in zip(sizes, means, highest, strict=True)]
