"""Reading scenes: windows of any raster as normalised images, with missing pixels filled in a way that does not depend on the window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.dtypes
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from rsdiff.data.normalisation import Normaliser
from rsdiff.data.opening import in_one_sentence
from rsdiff.data.rasters import Raster, open_file
from rsdiff.data.source import DataError, Window
from rsdiff.inference.scene_metadata import Metadata, read_metadata
from rsdiff.inference.scene_view import SceneView

Values = NDArray[Any]
Mask = NDArray[np.bool_]

FILL_REACH = 8
"""Pixels over which missing values are filled from their neighbours; what lies deeper has no influence worth computing."""
SAMPLE_WINDOWS, SAMPLE_SIDE = 16, 128
STRICT = {"GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE", "GDAL_CACHEMAX": 64 * 2**20, "GDAL_NUM_THREADS": 1}
"""GDAL settings of scenes: a truncated JPEG is an error, memory is bounded (in bytes), one thread reads."""


class SceneReader:
    """One raster, opened for reading in windows. A context manager.

    top, left  where the scene begins in its file
    Raises DataError in one sentence for whatever cannot be read as images.
    """

    def __init__(self, path: Path, view: SceneView | None = None) -> None:
        self.path = path
        self.view = view = view or SceneView()
        self.file = open_file(path, variable=view.variable)
        info = self.file.info
        self.dtype = info.dtype
        self.wavelengths = info.wavelengths
        # GDAL calls the fourth of four 8-bit bands alpha unless told otherwise; who asks for it knows better.
        self.alpha = None if info.alpha in view.bands else info.alpha
        chosen = view.bands or tuple(band for band in range(1, info.bands + 1) if band != self.alpha)
        if max(chosen) > info.bands:
            raise DataError(f"{path} has {info.bands} bands and task.bands asks for band {max(chosen)}; correct the list.")
        self.is_repeated = view.as_rgb and len(chosen) < 3
        self.bands = chosen[:1] * 3 if self.is_repeated else chosen[:3] if view.as_rgb else chosen
        with in_one_sentence(path):
            dataset = self.file.dataset
            whole = read_metadata(dataset, tuple(dict.fromkeys(self.bands)), self.file.as_stored)
        self.top, self.left, self.height, self.width = self._extent(whole)
        self.metadata = whole.of_window(self.top, self.left)
        self._declare_missing(dataset)

    def _extent(self, whole: Metadata) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of the part that is looked at; raises DataError where it is not in the file."""
        info, view = self.file.info, self.view
        extent = view.window or (0, 0, info.height, info.width)
        if view.bbox is not None:
            if whole.transform is None or not whole.transform.is_rectilinear:
                raise DataError(f"{self.path} has no coordinates along rows and columns, which task.bbox needs; give task.window.")
            corners = [~whole.transform @ (x, y) for x in view.bbox[::2] for y in view.bbox[1::2]]
            (left, top), (right, bottom) = ([pick(c[axis] for c in corners) for axis in (0, 1)] for pick in (min, max))
            rows = max(0, math.floor(top + 1e-6)), min(info.height, math.ceil(bottom - 1e-6))
            columns = max(0, math.floor(left + 1e-6)), min(info.width, math.ceil(right - 1e-6))
            extent = rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0]
        if min(extent[2:]) < 1 or not Window(*extent).within((info.height, info.width)):
            part = f"task.bbox={list(view.bbox)}" if view.bbox is not None else f"task.window={list(extent)}"
            units = f" in {whole.crs.to_string()[:60]}" if view.bbox is not None and whole.crs is not None else ""
            raise DataError(f"{part} does not lie inside {self.path} of {info.height} x {info.width} pixels{units}; correct it.")
        return extent

    def _declare_missing(self, dataset: Any | None) -> None:
        """Note how missing pixels are marked, and shall be marked in the output: by one nodata value, by a mask, or not at all."""
        info, given = self.file.info, self.view.nodata
        has_bands = dataset is not None and dataset.count == info.bands
        declared = dataset.nodatavals if dataset is not None and has_bands else ()
        if given is not None and self.dtype.kind in "iu" and not rasterio.dtypes.can_cast_dtype([given], self.dtype.name):
            raise DataError(
                f"no pixel of {self.path} can be {given:g}, which task.nodata says is missing: it holds {self.dtype.name}; correct it."
            )
        own = [declared[band - 1] for band in self.bands if declared and declared[band - 1] is not None]
        flags = (
            [{flag.name for flag in dataset.mask_flag_enums[band - 1]} for band in self.bands] if dataset is not None and has_bands else []
        )
        if flags and flags[0] == {"per_dataset", "nodata"}:
            own = []  # a colour that marks missing pixels, which no value of one band can tell
        self.nodata: float | None = given if given is not None else own[0] if own else None
        self.marks_missing = info.has_nodata or self.nodata is not None or self.alpha is not None
        if self.nodata is None and self.dtype.kind in "iu" and any(not own_flags for own_flags in flags):
            # Masks of single bands, which only a value can tell in a GeoTIFF: one at the end of the type.
            limits = np.iinfo(self.dtype)
            self.nodata = float(limits.max if self.dtype.kind == "u" else limits.min)
        self.has_mask = info.has_nodata and self.alpha is None and self.nodata is None and self.dtype.kind != "f"

    @property
    def scales_and_offsets(self) -> list[tuple[float, float]]:
        """What the file says its values mean, per band that is read: (scale, offset), value * scale + offset."""
        found = [(band.scale, band.offset) for band in self.metadata.bands]
        return found * len(self.bands) if self.is_repeated else found

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.__exit__(kind, error, trace)

    def read(self, top: int, left: int, height: int, width: int) -> tuple[Values, Mask]:
        """Return (values, valid), both (bands, height, width), of a window inside the scene, in the stored type."""
        return self._with_given_nodata(self.file.read(self._in_file(top, left, height, width), self.bands))

    def _in_file(self, top: int, left: int, height: int, width: int) -> Window:
        return Window(self.top + top, self.left + left, height, width)

    def _with_given_nodata(self, raster: Raster) -> tuple[Values, Mask]:
        valid = np.ones(raster.values.shape, np.bool_) if raster.valid is None else raster.valid
        if self.view.nodata is not None and not np.isnan(self.view.nodata):
            valid = valid & (raster.values != self.view.nodata)
        return raster.values, valid

    def alpha_values(self, top: int, left: int, height: int, width: int) -> Values:
        """Return the alpha band (1, height, width) of a window."""
        assert self.alpha is not None
        return self.file.read(self._in_file(top, left, height, width), (self.alpha,)).values

    def thumbnail(self, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> tuple[Values, Mask]:
        """Return (values, valid) of a window reduced to `size` by taking single pixels, read from overviews where there are some."""
        return self._with_given_nodata(self.file.read(self._in_file(top, left, height, width), self.bands, size))

    def samples(self) -> Iterator[tuple[Values, Mask]]:
        """Yield windows spread evenly over the scene, the same on every process."""
        side = round(SAMPLE_WINDOWS**0.5)
        height, width = min(SAMPLE_SIDE, self.height), min(SAMPLE_SIDE, self.width)
        tops = sorted({round(k * (self.height - height) / (side - 1)) for k in range(side)})
        lefts = sorted({round(k * (self.width - width) / (side - 1)) for k in range(side)})
        for top in tops:
            for left in lefts:
                yield self.read(top, left, height, width)


class NormalisedScene:
    """A reader's pixels without holes, the range of the normaliser as [0, 1]; what lies outside is not limited."""

    def __init__(self, reader: SceneReader, normaliser: Normaliser) -> None:
        self.reader = reader
        self.normaliser = normaliser

    @cached_property
    def fill(self) -> NDArray[np.float32]:
        """Value (bands,) of missing pixels far from any other: the median of the scene's samples, which are read when it is needed."""
        parts = [np.where(valid, self.normaliser.scaled(values), np.nan) for values, valid in self.reader.samples()]
        stacked = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        present = np.isfinite(stacked).any(axis=1)
        fill = np.full(len(stacked), 0.5, np.float32)
        fill[present] = np.nanmedian(stacked[present], axis=1)
        return fill

    def window(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.float32], bool]:
        """Return the image (bands, height, width) of a window that may reach beyond the scene, and whether it holds any valid pixel.

        A window without one is all zeros. In others a pixel's value depends on the scene alone, not on the window: missing ones are filled
        from at most FILL_REACH pixels around, and the scene is continued by reflection.
        """
        first_row, first_column = max(0, top - FILL_REACH), max(0, left - FILL_REACH)
        last_row, last_column = min(self.reader.height, top + height + FILL_REACH), min(self.reader.width, left + width + FILL_REACH)
        values, valid = self.reader.read(first_row, first_column, last_row - first_row, last_column - first_column)
        rows, columns = slice(top - first_row, top - first_row + height), slice(left - first_column, left - first_column + width)
        if not valid[:, rows, columns].any():
            return np.zeros((len(valid), height, width), np.float32), False
        image = self.normaliser.scaled(values)
        if not valid.all():
            image = filled(image, valid, self.fill)
        image = image[:, rows, columns]
        missing = (height - image.shape[1], width - image.shape[2])
        if any(missing):
            image = np.pad(image, ((0, 0), (0, missing[0]), (0, missing[1])), mode="symmetric")
        return np.ascontiguousarray(image), True


class AlignedRaster:
    """A second raster seen on the target grid of a scene, warped in windows where its own grid differs.

    resampling  cubic for images, nearest for codes
    Raises DataError where it cannot be aligned.
    """

    def __init__(self, path: Path, scene: SceneReader, scale: Fraction, size: tuple[int, int], resampling: Resampling) -> None:
        self.path = path
        self.size = size
        self.file = open_file(path, as_codes=resampling == Resampling.nearest)
        info, own, other = self.file.info, scene.metadata, self.file.dataset
        self.dtype = info.dtype
        self.bands = tuple(band for band in range(1, info.bands + 1) if band != info.alpha)
        self.warped: Any | None = None
        transform = own.enlarged_transform(float(scale)) or Affine.identity()
        placed = own.crs is not None and other is not None and other.crs is not None
        fits = (info.height, info.width) == size
        if other is not None and placed and not (own.crs == other.crs and fits and transform.almost_equals(other.transform, 1e-6)):
            if info.bands != other.count:
                raise DataError(f"{path} has a palette, whose colours cannot be brought to the grid of {scene.path.name}; give it as RGB.")
            # What has no value that marks missing pixels gets an alpha band, or the ground beside the raster would be black.
            marks = other.nodata is not None or info.alpha is not None
            grid = {"transform": transform, "height": size[0], "width": size[1], "add_alpha": not marks}
            with in_one_sentence(path):
                self.warped = WarpedVRT(other, crs=own.crs, resampling=resampling, **grid)
        elif not fits:
            raise DataError(
                f"{path} is {info.height}x{info.width} pixels, the target of {scene.path.name} {size[0]}x{size[1]}, and they cannot be "
                f"aligned without georeference; give rasters with a CRS or of the target's size."
            )

    def window(self, top: int, left: int, height: int, width: int) -> tuple[Values, Mask]:
        """Return (values, valid) (bands, height, width) of a window of target pixels that may reach beyond the scene."""
        inside_rows, inside_columns = min(height, self.size[0] - top), min(width, self.size[1] - left)
        if self.warped is None:
            raster = self.file.read(Window(top, left, inside_rows, inside_columns), self.bands)
            values, valid = raster.values, np.ones(raster.values.shape, np.bool_) if raster.valid is None else raster.valid
        else:
            part = rasterio.windows.Window(left, top, inside_columns, inside_rows)
            with in_one_sentence(self.path):
                values = self.warped.read(list(self.bands), window=part)
                valid = self.warped.read_masks(list(self.bands), window=part) > 0
            if values.dtype.kind == "f":
                valid &= np.isfinite(values)
        beyond = ((0, 0), (0, height - inside_rows), (0, width - inside_columns))
        return np.pad(values, beyond, mode="symmetric"), np.pad(valid, beyond, mode="symmetric")

    def close(self) -> None:
        """Close the files."""
        if self.warped is not None:
            self.warped.close()
        self.file.__exit__(None, None, None)


def filled(image: NDArray[np.float32], valid: Mask, far: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `image` (c, h, w) with missing pixels replaced by the mean of known neighbours, ring by ring, and by `far` (c,) beyond."""
    result, known = np.where(valid, image, 0).astype(np.float32), valid.copy()
    for _ in range(FILL_REACH):
        total, count = _around(result), _around(known.astype(np.float32))
        reached = ~known & (count > 0)
        if not reached.any():
            break
        result[reached] = total[reached] / count[reached]
        known |= reached
    return np.where(known, result, far[:, None, None])


def _around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of 3x3 pixels; rows before columns, whatever the window, so that the rounding is the same."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return np.asarray(rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:])
