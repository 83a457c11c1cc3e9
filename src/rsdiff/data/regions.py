"""Counting only changed, or only unchanged, ground in metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from rsdiff.data.sample import Sample
from rsdiff.data.source import ImageSource, RawSample, Window, sample_from

Region = Literal["all", "unchanged", "changed"]


class RegionSource:
    """Another source whose `valid` mask keeps only the ground whose mask code is (`unchanged`) or is not (`changed`) `unchanged_code`.

    unchanged_code  as stored in the mask file, e.g. 0
    """

    def __init__(self, source: ImageSource, region: Literal["unchanged", "changed"], unchanged_code: int) -> None:
        self._source, self._region, self._code = source, region, unchanged_code
        self.gives = source.gives | {"valid"}
        self.bands, self.lr_bands = source.bands, source.lr_bands
        self.wavelengths, self.normaliser, self.lr_normaliser = source.wavelengths, source.normaliser, source.lr_normaliser
        self.left_out: Sequence[tuple[str, str]] = getattr(source, "left_out", ())

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        """See ImageSource."""
        return self._source.name(index)

    def size(self, index: int) -> tuple[int, int]:
        """See ImageSource."""
        return self._source.size(index)

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        whole = self._source.raw(index, window)
        arrays: dict[str, Any] = dict(whole.arrays)
        counts = (arrays["change_mask"] == self._code) == (self._region == "unchanged")
        if "valid" in arrays:
            counts &= arrays["valid"] > 0
        arrays["valid"] = counts.astype(np.uint8)
        return RawSample(whole.meta, arrays)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See ImageSource."""
        return sample_from(self.raw(index, window), self.normaliser, self.lr_normaliser)

    def fingerprint(self) -> str:
        """See ImageSource."""
        return f"{self._source.fingerprint()}-{self._region}-{self._code}"
