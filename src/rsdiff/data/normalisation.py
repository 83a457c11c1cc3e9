"""Normalisers: the recorded, invertible map between stored values and [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith

_PIXELS_PER_IMAGE = 20_000
_NOTHING_KNOWN = (
    "every pixel of the images in which the range was measured is missing; give images with known pixels, or say what is 0 and what is 1 "
    "with dataset.range=[LOW,HIGH]."
)


@dataclass(frozen=True)
class Normaliser:
    """The affine map low -> 0, high -> 1, per band or common to all bands.

    low, high  one value, or one per band, in stored units; high > low
    clip       whether normalised values are limited to [0, 1] (values outside are lost to `restore`)
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    clip: bool = True

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low:
            raise UserError(f"a normaliser has {len(self.low)} low and {len(self.high)} high values; give as many of one as of the other.")
        bad = [(low, high) for low, high in zip(self.low, self.high, strict=True) if not (np.isfinite([low, high]).all() and low < high)]
        if bad:
            raise UserError(f"a normaliser goes from {bad[0][0]} to {bad[0][1]}; the high value must be finite and above the low one.")

    def normalise(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return stored values (C, H, W) as float32 in [0, 1]; NaN becomes 0 (the validity mask marks such pixels)."""
        result = self.scaled(values)
        return np.clip(result, 0.0, 1.0, out=result) if self.clip else result

    def scaled(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return stored values (C, H, W) as float32, low as 0 and high as 1, not limited; what is not finite becomes 0."""
        low, span = self._columns(values.shape[0])
        # 64-bit where float32 cannot hold the stored value; else one float32 division, which gives k / 255 correctly rounded
        wide = values.dtype.itemsize > 4 or values.dtype in (np.int32, np.uint32)
        image: NDArray[np.floating[Any]] = values.astype(np.float64 if wide else np.float32)
        if low.any():
            image = image - low.astype(image.dtype)
        image = image / span.astype(image.dtype)
        result = image.astype(np.float32, copy=False)
        if values.dtype.kind == "f":
            result = np.nan_to_num(result, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return result

    def restore(self, image: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return stored units (float64, not rounded) of a normalised image (C, H, W)."""
        low, span = self._columns(image.shape[0])
        return image.astype(np.float64) * span + low

    def to_json(self) -> dict[str, Any]:
        """Return the normaliser as plain values."""
        return {"low": list(self.low), "high": list(self.high), "clip": self.clip}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Normaliser:
        """Return the normaliser that `to_json` wrote; raises UserError on anything else."""
        try:
            low, high = (tuple(float(value) for value in values[name]) for name in ("low", "high"))
            return Normaliser(low, high, bool(values["clip"]))
        except (KeyError, TypeError) as error:
            raise UserError(f"a recorded normaliser has low, high and clip, not {str(values)[:80]} ({error}).") from None

    def _columns(self, bands: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if len(self.low) not in (1, bands):
            raise UserError(f"the normaliser has {len(self.low)} bands and the image {bands}; give one value or one per band.")
        low, high = (np.asarray(values, np.float64).reshape(-1, 1, 1) for values in (self.low, self.high))
        return low, high - low


@config
class NormaliserConfig:
    """How stored values become [0, 1]; the values found are recorded with packed data and checkpoints."""

    read_with: ClassVar[ReadWith] = {
        "low": ("rule", ("fixed",)),
        "high": ("rule", ("fixed",)),
        "percentiles": ("rule", ("percentile", "measured")),
        "images": ("rule", ("percentile", "maximum", "measured", "type")),
    }

    rule: Literal["type", "fixed", "percentile", "maximum", "measured"] = "type"
    """type: the full range of an unsigned type, from the lowest to the highest value of the training split for a signed one (floats are
    taken as [0, 1] already); fixed: low..high; percentile: measured on the training split, per band; maximum: 0 to the largest value of
    the training split, common to all bands, which keeps spectral angles; measured: percentiles, common to all bands."""
    low: tuple[float, ...] = (0.0,)
    """Stored value that becomes 0, common or per band (fixed)."""
    high: tuple[float, ...] = (1.0,)
    """Stored value that becomes 1, common or per band (fixed)."""
    percentiles: tuple[float, float] = (0.1, 99.9)
    """Percentiles that become 0 and 1, per band (percentile) or common to all (measured)."""
    images: int = 100
    """Training images that are measured, evenly spaced over the split (all rules but fixed; type: of signed integers)."""
    clip: bool = True
    """Limit normalised values to [0, 1]."""

    def __post_init__(self) -> None:
        lower, upper = self.percentiles
        if not 0 <= lower < upper <= 100:
            raise UserError(f"the percentiles are {lower} and {upper}; give two rising numbers between 0 and 100.")
        if self.images < 1:
            raise UserError(f"images is {self.images}; at least 1 image must be measured.")
        if self.rule == "fixed":
            Normaliser(self.low, self.high, self.clip)

    @property
    def is_measured(self) -> bool:
        """Whether `build` looks at training images."""
        return self.rule in ("percentile", "maximum", "measured")

    def build(self, dtype: np.dtype[Any], bands: int, images: Callable[[int], Iterable[NDArray[Any]]]) -> Normaliser:
        """Return the normaliser of images of `dtype`; `images(n)` yields n training images (C, H, W) where they must be measured."""
        if self.rule == "fixed":
            if len(self.low) not in (1, bands):
                raise UserError(f"normaliser.low has {len(self.low)} values for {bands} bands; give one value or one per band.")
            return Normaliser(self.low, self.high, self.clip)
        if self.rule == "percentile":
            return measured(images(self.images), self.percentiles, self.clip)
        if self.rule == "maximum":
            highest = [float(np.nanmax(image)) for image in images(self.images) if np.isfinite(image).any()]
            if not highest:
                raise UserError(_NOTHING_KNOWN)
            return Normaliser((0.0,), (max(highest),), self.clip)
        if self.rule == "measured":
            own = measured(images(self.images), self.percentiles, self.clip)
            return Normaliser((min(own.low),), (max(own.high),), self.clip)
        if dtype.kind == "i":
            own = measured(images(self.images), (0.0, 100.0), self.clip)
            return Normaliser((min(own.low),), (max(own.high),), self.clip)
        return type_range(dtype, self.clip)


def type_range(dtype: np.dtype[Any], clip: bool = True) -> Normaliser:
    """Return the normaliser of a type's whole range: 0..255, 0..65535, -32768..32767; floats 0..1."""
    if dtype.kind in "fb":
        return Normaliser((0.0,), (1.0,), clip)
    limits = np.iinfo(dtype)
    return Normaliser((float(limits.min),), (float(limits.max),), clip)


def measured(images: Iterable[NDArray[Any]], percentiles: tuple[float, float], clip: bool) -> Normaliser:
    """Return the normaliser of the given percentiles per band, over evenly spaced pixels of `images` (C, H, W); NaN is left out."""
    parts = []
    for image in images:
        pixels = image.reshape(image.shape[0], -1)
        step = max(1, pixels.shape[1] // _PIXELS_PER_IMAGE)
        parts.append(pixels[:, ::step].astype(np.float64))
    values = np.concatenate(parts, axis=1)
    known = np.isfinite(values).any(axis=1)
    if not known.any():
        raise UserError(_NOTHING_KNOWN)
    low, high = np.zeros(len(values)), np.zeros(len(values))
    low[known], high[known] = np.nanpercentile(values[known], percentiles, axis=1)
    low[~known], high[~known] = low[known].min(), high[known].max()  # of a band without a known value nothing counts
    high = np.where(high > low, high, low + 1.0)  # a constant band maps to 0
    return Normaliser(tuple(low.tolist()), tuple(high.tolist()), clip)


def as_integers(values: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return real numbers in an integer type: rounded half up and limited to its range, NaN as 0.

    What GDAL does when real numbers are written to an integer raster; NumPy and rasterio cut off and wrap around (70000 -> 4464).
    """
    limits = np.iinfo(dtype)
    rounded = np.add(values, 0.5, dtype=np.float64)  # one array throughout: what is written block by block spends its time on memory
    np.floor(rounded, out=rounded)
    np.clip(rounded, limits.min, limits.max, out=rounded)
    if np.isnan(rounded.sum()):
        rounded[np.isnan(rounded)] = 0.0
    return rounded.astype(dtype)
