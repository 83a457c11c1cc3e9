"""The contracts of data: an `ImageSource` yields samples by position and window; a `DatasetConfig` builds one per split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rsdiff.config import UserError
from rsdiff.data.normalisation import Normaliser
from rsdiff.data.sample import Georeference, Sample, SampleMeta

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
SmallRule = Literal["refuse", "skip", "pad"]
SizeRule = Literal["crop", "keep"]
ROLES = ("hr", "lr", "ref", "change_mask", "valid", "lr_valid", "ref_valid")
LR_ROLES = ("lr", "lr_valid")
"""Roles on the grid of the input; all others are on that of the target."""


class DataError(UserError):
    """Data that cannot be used as asked. The message is one sentence: what is wrong, in which file, and what to do."""


@dataclass(frozen=True)
class Window:
    """A rectangle of target (HR) pixels: rows top..top+height-1, columns left..left+width-1."""

    top: int
    left: int
    height: int
    width: int

    def within(self, size: tuple[int, int]) -> bool:
        """Say whether the window lies inside an image of `size` (H, W)."""
        fits = self.top + self.height <= size[0] and self.left + self.width <= size[1]
        return fits and min(self.top, self.left) >= 0 and min(self.height, self.width) > 0

    def divided(self, scale: float) -> Window:
        """Return the LR window that covers the same ground; every number must be a multiple of `scale`."""
        return Window(*(round(value / scale) for value in (self.top, self.left, self.height, self.width)))


@dataclass
class RawSample:
    """Pixels as they are stored: role (one of ROLES) -> (bands, rows, columns) of the file's type."""

    meta: SampleMeta
    arrays: Mapping[str, NDArray[Any]]


class ImageSource(Protocol):
    """The images of one split.

    gives           fields of the samples, among ROLES
    bands           C, bands of hr (of lr where there is no hr)
    lr_bands        c, bands of lr (of hr where there is no lr)
    wavelengths     band centres of hr in nanometres, or empty
    normaliser      maps stored hr and ref values to [0, 1] and back
    lr_normaliser   the same for lr
    left_out        (name, reason) of images that were found but not taken
    """

    @property
    def gives(self) -> frozenset[str]: ...
    @property
    def bands(self) -> int: ...
    @property
    def lr_bands(self) -> int: ...
    @property
    def wavelengths(self) -> tuple[float, ...]: ...
    @property
    def normaliser(self) -> Normaliser: ...
    @property
    def lr_normaliser(self) -> Normaliser: ...
    @property
    def left_out(self) -> Sequence[tuple[str, str]]: ...
    def __len__(self) -> int: ...
    def name(self, index: int) -> str:
        """Return the name of an image, unique within the data set over all splits; it may contain '/'."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Return the target size (H, W), without decoding; for LR-only data the LR size times the scale."""
        ...

    def meta(self, index: int) -> SampleMeta:
        """Return name, labels, wavelengths and georeference of a whole image, without decoding."""
        ...

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """Return stored values, of the whole image or of `window` (target pixels; lr is cut alike)."""
        ...

    def read(self, index: int, window: Window | None = None) -> Sample:
        """Return the sample in [0, 1], whole or cut to `window`."""
        ...

    def fingerprint(self) -> str:
        """Return a digest of names and contents; it knows neither places nor times."""
        ...

    def remarks(self) -> Sequence[str]:
        """Return sentences about images that look wrong and are used all the same, without full stops."""
        ...

    def contents(self) -> Sequence[str]:
        """Return a digest (hexadecimal) of every image's own content, the target's where there is one, by which equal images are found."""
        ...


class DatasetConfig(Protocol):
    """Options of a data set.

    gives      fields that every sample will have, known without reading pixels
    small      what training does with images smaller than its crop
    size_rule  how test images become targets: 'crop' to a multiple of the scale, or 'keep' the size and derive the LR's
    """

    @property
    def gives(self) -> frozenset[str]: ...
    @property
    def small(self) -> SmallRule: ...
    @property
    def size_rule(self) -> SizeRule: ...
    def check(self) -> None:
        """Raise DataError in one sentence when the data are not there (what to download, where to put it); reads no pixels."""
        ...

    def build(self, split: Split, scale: float) -> ImageSource:
        """Open one split for a run at `scale` (target over input pixels per side)."""
        ...


def sample_from(raw: RawSample, normaliser: Normaliser, lr_normaliser: Normaliser) -> Sample:
    """Return the sample of stored values: images through their normaliser, masks as code / full range, validity as 0 and 1."""
    arrays = raw.arrays

    def image(role: str, rule: Normaliser) -> torch.Tensor | None:
        return torch.from_numpy(rule.normalise(arrays[role])) if role in arrays else None

    def validity(role: str) -> torch.Tensor | None:
        return torch.from_numpy((arrays[role] > 0).astype(np.float32)) if role in arrays else None

    return Sample(
        meta=raw.meta,
        hr=image("hr", normaliser),
        lr=image("lr", lr_normaliser),
        ref=image("ref", normaliser),
        change_mask=torch.from_numpy(mask_values(arrays["change_mask"])) if "change_mask" in arrays else None,
        valid=validity("valid"),
        lr_valid=validity("lr_valid"),
        ref_valid=validity("ref_valid"),
    )


def mask_values(mask: NDArray[Any]) -> NDArray[np.float32]:
    """Return a mask in [0, 1]: integer codes divided by their type's largest value, floats as they are."""
    if mask.dtype == np.bool_:
        return mask.astype(np.float32)
    if np.issubdtype(mask.dtype, np.integer):
        return mask.astype(np.float32) / np.float32(np.iinfo(mask.dtype).max)
    return mask.astype(np.float32)


def cut(array: NDArray[Any], window: Window) -> NDArray[Any]:
    """Return the window of an array (bands, rows, columns), without copying."""
    return array[:, window.top : window.top + window.height, window.left : window.left + window.width]


def cut_sample(raw: RawSample, window: Window, scale: float) -> RawSample:
    """Return the part of a whole raw sample that lies in `window`; the georeference moves along."""
    small = window.divided(scale)
    arrays = {role: np.ascontiguousarray(cut(array, small if role in LR_ROLES else window)) for role, array in raw.arrays.items()}
    return RawSample(meta_of_window(raw.meta, window), arrays)


def meta_of_window(meta: SampleMeta, window: Window | None) -> SampleMeta:
    """Return the metadata of a window: the georeference's origin is the window's first pixel."""
    place = meta.georeference
    if window is None or place is None:
        return meta
    a, b, c, d, e, f = place.transform
    moved = (a, b, c + a * window.left + b * window.top, d, e, f + d * window.left + e * window.top)
    return replace(meta, georeference=Georeference(place.crs, moved))


class DerivedSource:
    """Another source, seen through a change: subclasses override what they change, most often `raw`."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.gives: frozenset[str] = source.gives
        self.bands = source.bands
        self.lr_bands = source.lr_bands
        self.left_out = source.left_out
        self.wavelengths = source.wavelengths
        self.normaliser = source.normaliser
        self.lr_normaliser = source.lr_normaliser

    def position(self, index: int) -> int:
        """Return the index of an image in the other source."""
        return index

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        """See ImageSource."""
        return self._source.name(self.position(index))

    def size(self, index: int) -> tuple[int, int]:
        """See ImageSource."""
        return self._source.size(self.position(index))

    def meta(self, index: int) -> SampleMeta:
        """See ImageSource."""
        return self._source.meta(self.position(index))

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        return self._source.raw(self.position(index), window)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See ImageSource."""
        return sample_from(self.raw(index, window), self.normaliser, self.lr_normaliser)

    def fingerprint(self) -> str:
        """See ImageSource."""
        return self._source.fingerprint()

    def remarks(self) -> Sequence[str]:
        """See ImageSource."""
        return self._source.remarks()

    def contents(self) -> Sequence[str]:
        """See ImageSource."""
        found = self._source.contents()
        return [found[self.position(index)] for index in range(len(self))]


def innermost(source: ImageSource) -> ImageSource:
    """Return what reads the images of `source`, behind tiles, subsets, caches and the like."""
    inner = getattr(source, "_source", None)
    return source if inner is None else innermost(inner)


class CachedSource(DerivedSource):
    """Keeps whole images of another source in memory, as stored, until `limit_bytes` are used; then it reads through.

    Every loader process has its own cache. Nothing is evicted: with a new random order each epoch, eviction would only add misses.
    """

    def __init__(self, source: ImageSource, limit_bytes: int, scale: float) -> None:
        super().__init__(source)
        self._limit = limit_bytes
        self._scale = scale
        self._kept: dict[int, RawSample] = {}
        self._used = 0

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        whole = self._kept.get(index)
        if whole is None:
            if self._used >= self._limit:
                return self._source.raw(index, window)
            whole = self._source.raw(index)
            needed = sum(array.nbytes for array in whole.arrays.values())
            if self._used + needed > self._limit:
                self._used = self._limit
            else:
                self._kept[index] = whole
                self._used += needed
        return whole if window is None else cut_sample(whole, window, self._scale)


def cached(source: ImageSource, cache_mb: int, scale: float) -> ImageSource:
    """Return `source` behind a memory cache of `cache_mb` MB, or itself for 0."""
    return CachedSource(source, cache_mb * 1_000_000, scale) if cache_mb else source
