"""Images kept away from training to choose the best checkpoint by; test images are never looked at for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rsdiff.config import UserError
from rsdiff.data.digests import digest_of
from rsdiff.data.sample import SampleMeta
from rsdiff.data.source import DataError, DerivedSource, ImageSource, RawSample, Window, meta_of_window
from rsdiff.data.splits import name_position

LARGEST_SHARE = 0.2
"""Share of the training images that is held out at most; one image always is."""
PART_SHARE = 0.2
"""Share of the columns of a single image that validates."""


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

    def fingerprint(self) -> str:
        """See ImageSource."""
        return digest_of([self._source.fingerprint(), *map(str, self._indices)])


class ColumnsSource(DerivedSource):
    """Columns first..end-1 (target pixels) of every image of another source, under another name."""

    def __init__(self, source: ImageSource, first: int, end: int, part: str) -> None:
        super().__init__(source)
        self._first, self._end, self._part = first, end, part

    def name(self, index: int) -> str:
        """See ImageSource."""
        return f"{self._source.name(index)}_{self._part}"

    def size(self, index: int) -> tuple[int, int]:
        """See ImageSource."""
        return self._source.size(index)[0], self._end - self._first

    def meta(self, index: int) -> SampleMeta:
        """See ImageSource."""
        whole = Window(0, self._first, *self.size(index))
        return replace(meta_of_window(self._source.meta(index), whole), name=self.name(index))

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        inner = window or Window(0, 0, *self.size(index))
        if not inner.within(self.size(index)):
            raise UserError(f"{inner} does not lie inside {self.name(index)} of size {self.size(index)}.")
        found = self._source.raw(index, replace(inner, left=inner.left + self._first))
        return RawSample(replace(found.meta, name=self.name(index)), found.arrays)

    def fingerprint(self) -> str:
        """See ImageSource."""
        return digest_of([self._source.fingerprint(), f"{self._first}-{self._end}"])

    def contents(self) -> Sequence[str]:
        """See ImageSource."""
        return [digest_of([content, f"{self._first}-{self._end}"]) for content in self._source.contents()]


def hold_out(source: ImageSource, count: int, scale: float) -> tuple[ImageSource, ImageSource]:
    """Return (training images, validation images) of a training split; no pixel is in both.

    count  images that validate, at most a fifth of the split; 0: none does. Of a single image, the last fifth of its columns validates
    Chosen are the names that come first in an order that depends on nothing but each name. So an image that trained never validates when
    images are added; of n images to which k are added, a share k / (n + k) of those that validated are replaced by new ones.
    Raises DataError where there are fewer images than shall be held out.
    """
    if count == 0:
        return source, SubsetSource(source, [])
    if len(source) == 1:
        return _columns_held_out(source, scale)
    if count > len(source):
        raise DataError(
            f"trainer.validation_images={count} images shall be held out of {len(source)} training images; set "
            f"trainer.validation_images={max(1, int(len(source) * LARGEST_SHARE))}."
        )
    count = min(count, max(1, int(len(source) * LARGEST_SHARE)))
    ranked = sorted(range(len(source)), key=lambda index: name_position(source.name(index)))
    return SubsetSource(source, sorted(ranked[count:])), SubsetSource(source, sorted(ranked[:count]))


def _columns_held_out(source: ImageSource, scale: float) -> tuple[ImageSource, ImageSource]:
    """Return the first and the last columns of a single image; they part at a multiple of the scale, where it is a whole number."""
    height, width = source.size(0)
    step = round(scale) if scale == round(scale) else 1
    first = int(width * (1 - PART_SHARE)) // step * step
    if first < 1 or width - first < scale:
        raise DataError(
            f"{source.name(0)}, the only training image, has {height}x{width} pixels, too few to hold some out; add images, or set "
            "trainer.validation_images=0."
        )
    return ColumnsSource(source, 0, first, "train"), ColumnsSource(source, first, width, "validation")
