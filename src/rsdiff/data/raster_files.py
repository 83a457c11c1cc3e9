"""Opened rasters: what their headers say, and windows of their pixels with the validity of every band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving
from rasterio.transform import Affine

from rsdiff.data import cubes
from rsdiff.data.opening import in_one_sentence, local_file, open_netcdf, open_raster, without_warnings
from rsdiff.data.orientation import as_stored, lies_on_its_side, orientation_in_file, stored_window, turned
from rsdiff.data.palettes import Palette, palette_of
from rsdiff.data.plausible import require_plausible
from rsdiff.data.sample import Georeference
from rsdiff.data.source import DataError, Window

OF_FRAMES = "holds {} pictures, an animation; save the one you want as a file of its own."


@dataclass(frozen=True)
class RasterInfo:
    """What a file's header says.

    dtype        type of the stored values
    has_nodata   whether some pixels may be missing (declared nodata value or mask, transparent colours, or NaN in floats)
    has_windows  whether a window can be read without decoding the whole file
    wavelengths  band centres in nanometres, or empty
    alpha        number of the alpha band, counted from 1, or None
    names        names of the bands, else their colours, where every band has one of its own
    scaling      (scale, offset) of every band, where the file has some
    """

    bands: int
    height: int
    width: int
    dtype: np.dtype[Any]
    has_nodata: bool = False
    has_windows: bool = False
    wavelengths: tuple[float, ...] = ()
    georeference: Georeference | None = None
    alpha: int | None = None
    names: tuple[str, ...] = ()
    scaling: tuple[tuple[float, float], ...] = ()


@dataclass
class Raster:
    """Pixels (bands, rows, columns) in the stored type, and valid, of the same shape and bool, where the file can mark missing ones."""

    values: NDArray[Any]
    valid: NDArray[np.bool_] | None = None


class RasterFile(Protocol):
    """An image or raster file opened for reading; a context manager.

    dataset    GDAL's, which knows the metadata, or None where GDAL does not know the file
    as_stored  maps pixels as they are read to those of `dataset`, where a picture was turned upright, else None
    """

    info: RasterInfo

    @property
    def dataset(self) -> Any | None: ...
    @property
    def as_stored(self) -> Affine | None: ...
    def read(self, window: Window | None = None, bands: Sequence[int] = (), size: tuple[int, int] | None = None) -> Raster:
        """Return bands (counted from 1, any order; empty means all) of a window, or of the whole.

        size  (rows, columns) that the window is reduced to by taking single pixels, from overviews where there are some
        Raises DataError in one sentence; a file that ends early is refused, never half decoded.
        """
        ...

    def __enter__(self) -> RasterFile: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class OpenedFile:
    """What the three kinds of files share."""

    def __init__(self, path: Path, info: RasterInfo) -> None:
        self.path, self.info = path, info

    @property
    def dataset(self) -> Any | None:
        return None

    @property
    def as_stored(self) -> Affine | None:
        return None

    def __enter__(self) -> OpenedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def read(self, window: Window | None = None, bands: Sequence[int] = (), size: tuple[int, int] | None = None) -> Raster:
        """See RasterFile."""
        chosen = list(bands) or list(range(1, self.info.bands + 1))
        with in_one_sentence(self.path):
            raster = self._pixels(window, chosen, size)
            if raster.values.dtype.kind == "f":
                finite = np.isfinite(raster.values)
                raster.valid = finite if raster.valid is None else raster.valid & finite
            return raster

    def _pixels(self, window: Window | None, bands: list[int], size: tuple[int, int] | None) -> Raster:
        """Return the bands, thinned by single pixels: for files whose windows cost no less than that."""
        whole = self._decoded(window)
        values, alpha = whole.values, self.info.alpha
        valid = whole.valid
        if alpha is not None and alpha not in bands:
            opaque = values[alpha - 1 : alpha] > 0
            valid = np.repeat(opaque, len(values), axis=0) if valid is None else valid & opaque
        picked = [band - 1 for band in bands]
        values, valid = values[picked], None if valid is None else valid[picked]
        if size is not None:
            rows, columns = (np.arange(count) * length // count for count, length in zip(size, values.shape[1:], strict=True))
            values, valid = values[:, rows][:, :, columns], None if valid is None else valid[:, rows][:, :, columns]
        return Raster(np.ascontiguousarray(values), None if valid is None else np.ascontiguousarray(valid))

    def _decoded(self, window: Window | None) -> Raster:
        """Return all bands of a window."""
        raise NotImplementedError


class Cube(OpenedFile):
    """A cube in a MATLAB, HDF5 or NumPy file."""

    def __init__(self, path: Path, variable: str) -> None:
        found = cubes.cube_info(path, variable)
        kind = found.dtype.kind
        if kind not in "uif" or found.dtype.itemsize > 8:
            raise DataError(f"{path} holds values of type {found.dtype}; save integers or real numbers of at most 64 bits.")
        # GDAL has no real numbers of 16 bits; those of 32 hold them exactly.
        dtype = np.dtype(np.float32) if found.dtype == np.float16 else found.dtype
        super().__init__(path, RasterInfo(*found.shape, dtype, has_nodata=kind == "f", has_windows=found.has_windows))
        self._variable = variable

    def _decoded(self, window: Window | None) -> Raster:
        return Raster(cubes.read_cube(self.path, window, self._variable).astype(self.info.dtype, copy=False))


@dataclass(frozen=True)
class Header:
    """What the header of a raster says, and how its pixels are read: enough to open it again without a look at its header.

    driver       GDAL's name of the format
    orientation  of the stored image, see `orientation`
    marks        whether a nodata value or a mask marks missing pixels
    """

    info: RasterInfo
    driver: str
    orientation: int
    palette: Palette | None
    marks: bool


class GdalRaster(OpenedFile):
    """A raster that GDAL reads, in windows where its format allows it; a picture without a place on the ground is turned upright.

    known  what its header says, where that has been looked at before
    """

    def __init__(self, path: Path, as_codes: bool, variable: str, head: bytes = b"", known: Header | None = None) -> None:
        self.path = path
        with without_warnings():
            self._file = (
                open_netcdf(path, variable) if cubes.is_hdf5(head) else open_raster(path, variable, known.driver if known else None)
            )
        try:
            self.header = known or self._header(as_codes)
        except BaseException:
            self._file.close()
            raise
        super().__init__(path, self.header.info)

    @property
    def dataset(self) -> Any | None:
        return self._file

    @property
    def as_stored(self) -> Affine | None:
        return as_stored(self.header.orientation, self.info.height, self.info.width)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _header(self, as_codes: bool) -> Header:
        file, path = self._file, self.path
        palette, marks = None if as_codes else palette_of(file), _declares_missing(file)
        types = set(file.dtypes)
        if file.count == 0:
            raise DataError(f"{path} holds no raster; check the file, or leave it out with dataset.extensions.")
        if file.count > 1 and ColorInterp.palette in file.colorinterp:
            raise DataError(f"{path} {OF_FRAMES.format(file.count)}")
        if len(types) > 1:
            raise DataError(f"{path} mixes bands of types {', '.join(sorted(types))}; export it with one type.")
        if file.dtypes[0].startswith("complex"):
            raise DataError(f"{path} holds complex numbers; integers and real ones are accepted: export their amplitude.")
        dtype = np.dtype(file.dtypes[0])
        block = max(rows * columns for rows, columns in file.block_shapes) * dtype.itemsize
        require_plausible(path, block * (file.count if file.interleaving == Interleaving.pixel else 1), [*file.files, local_file(path)])
        # In a map the tag is left alone, as GDAL leaves it: its coordinates are those of the stored pixels.
        has_place = file.crs is not None or not file.transform.is_identity or bool(file.gcps[0]) or file.rpcs is not None
        orientation = 1 if has_place else orientation_in_file(path, file.driver)
        sides = (file.width, file.height) if lies_on_its_side(orientation) else (file.height, file.width)
        placed = file.crs is not None and not file.transform.is_identity
        kinds = file.colorinterp
        info = RasterInfo(
            bands=file.count if palette is None else palette.bands,
            height=sides[0],
            width=sides[1],
            dtype=dtype if palette is None else np.dtype(np.uint8),
            has_nodata=marks or dtype.kind == "f" or (palette is not None and palette.has_missing),
            has_windows=file.driver not in ("PNG", "JPEG", "WEBP", "BMP", "GIF"),
            wavelengths=wavelengths_of(file),
            georeference=Georeference(file.crs.to_string(), tuple(file.transform)[:6]) if placed else None,
            alpha=kinds.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in kinds else None,
            names=names_of(file) if palette is None else (),
            scaling=scaling_of(file) if palette is None else (),
        )
        return Header(info, file.driver, orientation, palette, marks)

    def _pixels(self, window: Window | None, bands: list[int], size: tuple[int, int] | None) -> Raster:
        turn = self.header.orientation
        if turn == 1:
            return self._stored(window, bands, size)
        part = None if window is None else stored_window(window, turn, self.info.height, self.info.width)
        found = self._stored(part, bands, size[::-1] if size is not None and lies_on_its_side(turn) else size)
        return Raster(turned(found.values, turn), None if found.valid is None else turned(found.valid, turn))

    def _stored(self, window: Window | None, bands: list[int], size: tuple[int, int] | None) -> Raster:
        """Return the bands of a window of the stored image, reduced to `size`."""
        file, palette = self._file, self.header.palette
        part = None if window is None else rasterio.windows.Window(window.left, window.top, window.width, window.height)
        if window is None:
            stored = sum(np.dtype(kind).itemsize for kind in file.dtypes) * file.height * file.width
            require_plausible(self.path, stored, [*file.files, local_file(self.path)])
        if palette is not None:
            codes = file.read([1], window=part, out_shape=None if size is None else (1, *size))
            values, opaque = palette.expanded(codes)
            picked = [band - 1 for band in bands]
            return Raster(values[picked], opaque[picked] if palette.has_missing else None)
        once = sorted(set(bands))
        picked = [once.index(band) for band in bands]
        shape = None if size is None else (len(once), *size)
        values = file.read(once, window=part, out_shape=shape)
        valid = None
        if self.header.marks or (self.info.alpha is not None and self.info.alpha not in bands):
            valid = self._valid(values, once, part, shape)
        if picked != list(range(len(once))):
            values, valid = values[picked], None if valid is None else valid[picked]
        return Raster(values, valid)

    def _valid(self, values: NDArray[Any], bands: list[int], part: Any, shape: tuple[int, ...] | None) -> NDArray[np.bool_]:
        """Return which pixels (bands, h, w) are valid: where GDAL's mask of the band says so and it does not hold its own nodata value.

        GDAL leaves out a nodata value where there is a mask, too; both count here. An alpha band masks unless it is asked for itself.
        """
        file, alpha = self._file, self.info.alpha
        valid: NDArray[np.bool_] = np.ones(values.shape, np.bool_)
        for position, band in enumerate(bands):
            flags = {flag.name for flag in file.mask_flag_enums[band - 1]}
            nodata = file.nodatavals[band - 1]
            if "all_valid" not in flags and not ("alpha" in flags and alpha in bands):
                valid[position] = file.read_masks(band, window=part, out_shape=None if shape is None else shape[1:]) > 0
            if nodata is not None and "nodata" not in flags and not math.isnan(nodata):
                valid[position] &= values[position] != nodata
        return valid


def _declares_missing(file: Any) -> bool:
    """Say whether the file marks missing pixels by a nodata value or a mask; an alpha band alone is data where it is asked for."""
    flags = [{flag.name for flag in band} for band in file.mask_flag_enums]
    return any(not own & {"all_valid", "alpha"} for own in flags) or any(value is not None for value in file.nodatavals)


def wavelengths_of(file: Any) -> tuple[float, ...]:
    """Return band centres in nm from ENVI headers and band tags, or nothing unless every band has one."""
    found: list[float] = []
    for band in range(1, file.count + 1):
        text = file.tags(band).get("wavelength")
        try:
            found.append(float(text) if text else math.nan)
        except ValueError:
            found.append(math.nan)
    if not found or not all(math.isfinite(value) and value > 0 for value in found):
        return ()
    return tuple(value * 1000 for value in found) if max(found) < 100 else tuple(found)  # below 100 they are micrometres


def names_of(file: Any) -> tuple[str, ...]:
    """Return the names of the bands of an open raster, else their colours, where every band has one of its own."""
    plain = (ColorInterp.undefined, ColorInterp.gray, ColorInterp.palette)
    named = tuple(text or "" for text in file.descriptions)
    colours = tuple("" if kind in plain else kind.name for kind in file.colorinterp)
    return next((found for found in (named, colours) if all(found) and len(set(found)) == len(found)), ())


def scaling_of(file: Any) -> tuple[tuple[float, float], ...]:
    """Return (scale, offset) of every band of an open raster, or nothing where its values are meant as they are stored."""
    pairs = tuple(zip(map(float, file.scales), map(float, file.offsets), strict=True))
    return () if all(pair == (1.0, 0.0) for pair in pairs) else pairs
