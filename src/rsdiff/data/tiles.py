"""Large images as many small ones: a source of square tiles, read in windows."""

from __future__ import annotations

from collections.abc import Sequence

from rsdiff.config import UserError
from rsdiff.data.digests import digest_of
from rsdiff.data.sample import Sample, SampleMeta
from rsdiff.data.source import DataError, ImageSource, RawSample, Window, meta_of_window, sample_from
from rsdiff.data.splits import limited


def grid(size: tuple[int, int], tile: int) -> list[tuple[int, int]]:
    """Return (top, left) of the tiles of an image of `size` (H, W): side by side from the top left corner, those that are whole."""
    return [(top, left) for top in range(0, size[0] - tile + 1, tile) for left in range(0, size[1] - tile + 1, tile)]


class TiledSource:
    """The tiles of another source's images as an ImageSource.

    tile       side in target pixels; a tile is named '<image>_r<top>_c<left>', an image of exactly that size keeps its name
    per_image  most tiles of an image, chosen by their names so that the choice never changes; None means all
    limit      most tiles of all images, chosen likewise
    Images smaller than a tile are left out and reported. Raises DataError when no tile remains.
    """

    def __init__(self, source: ImageSource, tile: int, per_image: int | None, limit: int | None = None) -> None:
        self._source = source
        self._tile = tile
        self._rule = f"tile{tile}/{per_image}/{limit}"
        self.gives, self.bands, self.lr_bands = source.gives, source.bands, source.lr_bands
        self.wavelengths, self.normaliser, self.lr_normaliser = source.wavelengths, source.normaliser, source.lr_normaliser
        found: dict[str, tuple[int, int, int]] = {}
        small: list[tuple[str, str]] = []
        for index in range(len(source)):
            places = self._named_places(index)
            if not places:
                small.append((source.name(index), f"{'x'.join(map(str, source.size(index)))} pixels are less than a tile of {tile}"))
            found |= {name: (index, *places[name]) for name in limited(list(places), per_image)}
        self._names = limited(list(found), limit)
        self._places = [found[name] for name in self._names]
        self.left_out: Sequence[tuple[str, str]] = [*source.left_out, *small]
        if not self._places:
            raise DataError(
                f"none of the {len(source)} images has {tile}x{tile} pixels; lower dataset.tile, or set it to 0 for whole images."
            )

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        """See ImageSource."""
        return self._names[index]

    def size(self, index: int) -> tuple[int, int]:
        """See ImageSource."""
        return self._tile, self._tile

    def meta(self, index: int) -> SampleMeta:
        """See ImageSource."""
        image, top, left = self._places[index]
        whole = meta_of_window(self._source.meta(image), Window(top, left, self._tile, self._tile))
        return SampleMeta(self._names[index], index, labels=whole.labels, wavelengths=whole.wavelengths, georeference=whole.georeference)

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        image, top, left = self._places[index]
        inner = window or Window(0, 0, self._tile, self._tile)
        if not inner.within((self._tile, self._tile)):
            raise UserError(f"{window} does not lie inside {self._names[index]} of {self._tile}x{self._tile} pixels.")
        cut = self._source.raw(image, Window(top + inner.top, left + inner.left, inner.height, inner.width))
        return RawSample(meta_of_window(self.meta(index), window), cut.arrays)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See ImageSource."""
        return sample_from(self.raw(index, window), self.normaliser, self.lr_normaliser)

    def fingerprint(self) -> str:
        """Return a digest of the images and of the rule that cuts them."""
        return digest_of([self._source.fingerprint(), self._rule])

    def remarks(self) -> Sequence[str]:
        """See ImageSource."""
        return self._source.remarks()

    def contents(self) -> Sequence[str]:
        """See ImageSource."""
        found = self._source.contents()
        return [
            found[image]
            if self._source.size(image) == (self._tile, self._tile)
            else digest_of([found[image], f"{self._tile}/{top}/{left}"])
            for image, top, left in self._places
        ]

    def _named_places(self, index: int) -> dict[str, tuple[int, int]]:
        name, size = self._source.name(index), self._source.size(index)
        places = grid(size, self._tile)
        if size == (self._tile, self._tile):
            return dict.fromkeys([name], places[0])
        return {f"{name}_r{top:05d}_c{left:05d}": (top, left) for top, left in places}
