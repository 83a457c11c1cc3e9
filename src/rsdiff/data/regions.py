"""Counting only changed, or only unchanged, ground in metrics."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from rsdiff.data.source import DerivedSource, ImageSource, RawSample, Window

Region = Literal["all", "unchanged", "changed"]


class RegionSource(DerivedSource):
    """Another source whose `valid` mask keeps only the ground whose mask code is (`unchanged`) or is not (`changed`) `unchanged_code`.

    unchanged_code  as stored in the mask file, e.g. 0
    """

    def __init__(self, source: ImageSource, region: Literal["unchanged", "changed"], unchanged_code: int) -> None:
        super().__init__(source)
        self._region, self._code = region, unchanged_code
        self.gives = source.gives | {"valid"}

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        whole = self._source.raw(index, window)
        arrays: dict[str, Any] = dict(whole.arrays)
        counts = (arrays["change_mask"] == self._code) == (self._region == "unchanged")
        if "valid" in arrays:
            counts = counts & (arrays["valid"] > 0)
        arrays["valid"] = counts.astype(np.uint8)
        return RawSample(whole.meta, arrays)
