"""Images kept away from training to choose the best checkpoint by; test images are never looked at for that."""

from __future__ import annotations

from collections.abc import Sequence

from rsdiff.data.source import DerivedSource, ImageSource
from rsdiff.data.splits import name_position

LARGEST_SHARE = 0.2


class SubsetSource(DerivedSource):
    """Some images of another source, in the given order."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        super().__init__(source)
        self._indices = list(indices)

    def position(self, index: int) -> int:
        """Return the index of an image in the other source."""
        return self._indices[index]

    def __len__(self) -> int:
        return len(self._indices)


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
