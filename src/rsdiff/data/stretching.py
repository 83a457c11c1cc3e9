"""Images that are stretched to fill [0, 1], each by its own darkest and brightest value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsdiff.data.normalisation import Normaliser
from rsdiff.data.source import DerivedSource, ImageSource, RawSample, Window


def own_range(image: NDArray[Any]) -> Normaliser:
    """Return the normaliser of an image's own range, common to its bands; one of a single value becomes 0. NaN is left out."""
    if not np.isfinite(image).any():
        return Normaliser((0.0,), (1.0,))
    low, high = float(np.nanmin(image)), float(np.nanmax(image))
    return Normaliser((low,), (high if high > low else low + 1.0,))


class StretchedSource(DerivedSource):
    """Another source whose LR images fill [0, 1]: the range of the whole image counts, whatever window is read.

    Source: caiyuanhao1998/MST-plus-plus, hsi_dataset.py (ARAD_1K). A scene to restore must be stretched alike beforehand, as a whole.
    """

    def __init__(self, source: ImageSource) -> None:
        super().__init__(source)
        self.lr_normaliser = Normaliser((0.0,), (1.0,))
        self._ranges: dict[int, Normaliser] = {}

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        found = self._source.raw(index, window)
        if index not in self._ranges:
            whole = found if window is None else self._source.raw(index)
            values, valid = whole.arrays["lr"].astype(np.float64), whole.arrays.get("lr_valid")
            self._ranges[index] = own_range(values if valid is None else np.where(valid > 0, values, np.nan))
        return RawSample(found.meta, {**found.arrays, "lr": self._ranges[index].normalise(found.arrays["lr"])})

    def fingerprint(self) -> str:
        """See ImageSource."""
        return f"{self._source.fingerprint()}/stretched"
