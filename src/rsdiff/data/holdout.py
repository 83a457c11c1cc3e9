"""Images kept away from training to choose the best checkpoint by; test images are never looked at for that."""

from __future__ import annotations

from collections.abc import Sequence

from rsdiff.data.sample import Sample, SampleMeta
from rsdiff.data.source import ImageSource, RawSample, Window
from rsdiff.data.splits import name_position

LARGEST_SHARE = 0.2


class SubsetSource:
    """Some images of another source, in the given order."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self._source = source
        self._indices = list(indices)
        self.gives = source.gives
        self.bands = source.bands
        self.lr_bands = source.lr_bands
        self.left_out = source.left_out
        self.wavelengths = source.wavelengths
        self.normaliser = source.normaliser
        self.lr_normaliser = source.lr_normaliser

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        """See ImageSource."""
        return self._source.name(self._indices[index])

    def size(self, index: int) -> tuple[int, int]:
        """See ImageSource."""
        return self._source.size(self._indices[index])

    def meta(self, index: int) -> SampleMeta:
        """See ImageSource."""
        return self._source.meta(self._indices[index])

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        return self._source.raw(self._indices[index], window)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See ImageSource."""
        return self._source.read(self._indices[index], window)

    def fingerprint(self) -> str:
        """See ImageSource."""
        return self._source.fingerprint()


def hold_out(source: ImageSource, count: int) -> tuple[ImageSource, ImageSource]:
    """Return (training images, validation images) of a training split.

    `count` images, at most a fifth of the split, are chosen by their names alone, so that they stay the same when images are added. A
    split of fewer than five images trains on all of them and validates on the same.
    """
    count = min(count, int(len(source) * LARGEST_SHARE))
    if count == 0:
        return source, SubsetSource(source, range(min(len(source), 1)))
    ranked = sorted(range(len(source)), key=lambda index: name_position(source.name(index)))
    chosen = sorted(ranked[:count])
    others = sorted(ranked[count:])
    return SubsetSource(source, others), SubsetSource(source, chosen)
