"""Reading any image or raster file: what it holds without decoding it, and its pixels and which of them are valid, whole or a window.

One reader serves data sets and scenes. The container is told by its first bytes, not its name: PNG, JPEG, BMP and WebP of 8 bits go through
Pillow (which refuses truncated files), MATLAB, HDF5 and NumPy cubes through `cubes`, everything else through GDAL (rasterio).

Which pixels are missing is told per band, as GDAL does: by a nodata value of the band, a mask, an alpha band that is not itself asked for,
a transparent colour of a palette, and NaN or infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp, Interleaving
from rasterio.transform import Affine

from rsdiff.data import cubes
from rsdiff.data.opening import in_one_sentence, is_in_archive, local_file, open_netcdf, open_raster, without_warnings
from rsdiff.data.palettes import palette_of
from rsdiff.data.plausible import require_plausible
from rsdiff.data.sample import Georeference
from rsdiff.data.source import DataError, Window, cut

_PILLOW_BANDS = {"1": 1, "L": 1, "P": 3, "PA": 4, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
_PILLOW_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF")
_SHOWN = {"1": "L", "P": "RGB", "PA": "RGBA"}
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""


@dataclass(frozen=True)
class RasterInfo:
    """What a file's header says.

    dtype        type of the stored values
    has_nodata   whether some pixels may be missing (declared nodata value or mask, transparent colours, or NaN in floats)
    has_windows  whether a window can be read without decoding the whole file
    wavelengths  band centres in nanometres, or empty
    alpha        number of the alpha band, counted from 1, or None
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


def open_file(path: Path, as_codes: bool = False, variable: str = "") -> RasterFile:
    """Open any image or raster file.

    as_codes  a palette image counts as one band of codes (label maps), not as three of colour
    variable  array to take from a MATLAB or HDF5 file with several, or sub-data set of a container
    Raises DataError in one sentence for an empty, unreadable or unknown file.
    """
    with in_one_sentence(path):
        head = _head(path)
        if cubes.is_cube(path, head):
            return _Cube(path, variable)
        return _Picture(path, as_codes) if _is_for_pillow(head) else _GdalRaster(path, as_codes, variable, head)


def raster_info(path: Path, as_codes: bool = False, variable: str = "") -> RasterInfo:
    """Return what the header of `path` says, without decoding pixels; see open_file for the options."""
    with open_file(path, as_codes, variable) as file:
        return file.info


def read_raster(path: Path, window: Window | None = None, as_codes: bool = False, variable: str = "", bands: Sequence[int] = ()) -> Raster:
    """Return the pixels of `path`, whole or in `window`; see open_file and RasterFile.read."""
    with open_file(path, as_codes, variable) as file:
        return file.read(window, bands)


class Decoded:
    """Bands of a file that can only be decoded whole, kept for its next windows; see read_raster."""

    def __init__(self, path: Path, as_codes: bool = False, variable: str = "", bands: Sequence[int] = ()) -> None:
        self.path, self._bands = path, bands
        with open_file(path, as_codes, variable) as file:
            self._content = file if isinstance(file, _Picture) else file.read(None, bands)

    def read(self, window: Window) -> Raster:
        """Return the pixels in a window, contiguous."""
        if isinstance(self._content, _Picture):
            return self._content.read(window, self._bands)
        valid = None if self._content.valid is None else cut(self._content.valid, window)
        return Raster(np.ascontiguousarray(cut(self._content.values, window)), valid)


class _Opened:
    """What the three kinds of files share."""

    def __init__(self, path: Path, info: RasterInfo) -> None:
        self.path, self.info = path, info

    @property
    def dataset(self) -> Any | None:
        return None

    @property
    def as_stored(self) -> Affine | None:
        return None

    def __enter__(self) -> _Opened:
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


class _Cube(_Opened):
    """A cube in a MATLAB, HDF5 or NumPy file."""

    def __init__(self, path: Path, variable: str) -> None:
        found = cubes.cube_info(path, variable)
        super().__init__(path, RasterInfo(*found.shape, found.dtype, has_nodata=found.dtype.kind == "f", has_windows=found.has_windows))
        self._variable = variable

    def _decoded(self, window: Window | None) -> Raster:
        return Raster(cubes.read_cube(self.path, window, self._variable))


class _Picture(_Opened):
    """A PNG, JPEG, BMP or WebP of 8 bits per band, turned upright as its EXIF data say, which Pillow decodes as a whole."""

    def __init__(self, path: Path, as_codes: bool) -> None:
        self._as_codes = as_codes
        self._file: Any | None = None
        with Image.open(path) as image:
            bands = 1 if as_codes and image.mode == "P" else _bands_of_mode(image.mode, path)
            require_plausible(path, bands * image.height * image.width, [path])
            height, width = image.height, image.width
            self._orientation = orientation_of(image)
            if self._orientation >= 5:
                height, width = width, height
            alpha = bands if image.mode in ("LA", "RGBA", "PA") else None
            dtype = np.dtype(np.uint16 if image.mode == "I;16" else np.uint8)
            hides = "transparency" in image.info and not (as_codes and image.mode == "P")
            super().__init__(path, RasterInfo(bands, height, width, dtype, has_nodata=hides, alpha=alpha))

    @property
    def dataset(self) -> Any | None:
        """GDAL's view of the file; its size is that of the stored image, which may lie on its side."""
        if self._file is None:
            self._file = open_raster(self.path)
        return self._file

    @property
    def as_stored(self) -> Affine | None:
        """See RasterFile; columns and rows count from the corner of the first pixel."""
        columns, rows = self.info.width, self.info.height
        by_orientation = {
            2: (-1, 0, columns, 0, 1, 0),
            3: (-1, 0, columns, 0, -1, rows),
            4: (1, 0, 0, 0, -1, rows),
            5: (0, 1, 0, 1, 0, 0),
            6: (0, 1, 0, -1, 0, columns),
            7: (0, -1, rows, -1, 0, columns),
            8: (0, -1, rows, 1, 0, 0),
        }
        return Affine(*by_orientation[self._orientation]) if self._orientation in by_orientation else None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def _decoded(self, window: Window | None) -> Raster:
        """Cut the window from what the format decodes to, before bands are put one after another."""
        image, opacity = self._upright
        if window is not None:
            box = (window.left, window.top, window.left + window.width, window.top + window.height)
            image, opacity = image.crop(box), None if opacity is None else opacity.crop(box)
        if image.mode in _SHOWN and not (self._as_codes and image.mode == "P"):
            image = image.convert(_SHOWN[image.mode])
        values = _channels_first(image)
        if opacity is None:
            return Raster(values)
        return Raster(values, np.repeat(_channels_first(opacity) > 0, len(values), axis=0))

    @cached_property
    def _upright(self) -> tuple[Image.Image, Image.Image | None]:
        """The decoded image, and its opacity where it names a transparent colour."""
        with Image.open(self.path) as image:
            require_plausible(self.path, 4 * image.height * image.width, [self.path])
            _bands_of_mode(image.mode, self.path)
            turn = _UPRIGHT.get(self._orientation)
            image.load()
            shown = image if turn is None else image.transpose(turn)
            hides = "transparency" in image.info and not (self._as_codes and image.mode == "P")
            return shown, shown.convert("RGBA").getchannel("A") if hides else None


class _GdalRaster(_Opened):
    """A raster that GDAL reads, in windows where its format allows it."""

    def __init__(self, path: Path, as_codes: bool, variable: str, head: bytes) -> None:
        with without_warnings():
            self._file = open_netcdf(path, variable) if cubes.is_hdf5(head) else open_raster(path, variable)
        try:
            self.path, self._palette = path, None if as_codes else palette_of(self._file)
            super().__init__(path, self._header())
        except BaseException:
            self._file.close()
            raise
        self._marks = _declares_missing(self._file)

    @property
    def dataset(self) -> Any | None:
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def _header(self) -> RasterInfo:
        file, path = self._file, self.path
        types = set(file.dtypes)
        if file.count == 0:
            raise DataError(f"{path} holds no raster; check the file, or leave it out with dataset.extensions.")
        if len(types) > 1:
            raise DataError(f"{path} mixes bands of types {', '.join(sorted(types))}; export it with one type.")
        dtype = np.dtype(file.dtypes[0])
        block = max(rows * columns for rows, columns in file.block_shapes) * dtype.itemsize
        require_plausible(path, block * (file.count if file.interleaving == Interleaving.pixel else 1), [*file.files, local_file(path)])
        if dtype.kind not in "uif":
            raise DataError(f"{path} holds values of type {dtype}; integers and real numbers are accepted: export it as such.")
        placed = file.crs is not None and not file.transform.is_identity
        kinds, palette = file.colorinterp, self._palette
        return RasterInfo(
            bands=file.count if palette is None else palette.bands,
            height=file.height,
            width=file.width,
            dtype=dtype if palette is None else np.dtype(np.uint8),
            has_nodata=_declares_missing(file) or dtype.kind == "f" or (palette is not None and palette.has_missing),
            has_windows=file.driver not in ("PNG", "JPEG", "WEBP", "BMP", "GIF"),
            wavelengths=_wavelengths(file),
            georeference=Georeference(file.crs.to_string(), tuple(file.transform)[:6]) if placed else None,
            alpha=kinds.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in kinds else None,
        )

    def _pixels(self, window: Window | None, bands: list[int], size: tuple[int, int] | None) -> Raster:
        file = self._file
        part = None if window is None else rasterio.windows.Window(window.left, window.top, window.width, window.height)
        if window is None:
            stored = sum(np.dtype(kind).itemsize for kind in file.dtypes) * file.height * file.width
            require_plausible(self.path, stored, [*file.files, local_file(self.path)])
        if self._palette is not None:
            codes = file.read([1], window=part, out_shape=None if size is None else (1, *size))
            values, opaque = self._palette.expanded(codes)
            picked = [band - 1 for band in bands]
            return Raster(values[picked], opaque[picked] if self._palette.has_missing else None)
        once = sorted(set(bands))
        picked = [once.index(band) for band in bands]
        shape = None if size is None else (len(once), *size)
        values = file.read(once, window=part, out_shape=shape)
        valid = None
        if self._marks or (self.info.alpha is not None and self.info.alpha not in bands):
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


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8, from what stands before its pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # asking Pillow would decode the image in search of it
    return int(image.getexif().get(_EXIF_ORIENTATION, 1))


def _channels_first(image: Image.Image) -> NDArray[Any]:
    values = np.asarray(image)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("="))
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1))


def _bands_of_mode(mode: str, path: Path) -> int:
    if mode not in _PILLOW_BANDS:
        raise DataError(f"{path} has colour mode {mode}; images of grey, RGB or RGBA are accepted: convert it.")
    return _PILLOW_BANDS[mode]


def _is_for_pillow(head: bytes) -> bool:
    if head.startswith(b"RIFF") and head[8:12] != b"WEBP":
        return False
    # Pillow silently reduces colour PNGs of 16 bits to 8; GDAL keeps them. Byte 24 of a PNG is its bit depth.
    sixteen_bit_png = head.startswith(b"\x89PNG") and len(head) > 24 and head[24] == 16
    return head.startswith(_PILLOW_MAGIC) and not sixteen_bit_png


def _head(path: Path) -> bytes:
    if is_in_archive(path):
        if not local_file(path).is_file():
            raise FileNotFoundError
        return b"in an archive"
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        raise DataError(f"{path} is empty (0 bytes); delete it or copy it again.")
    return head


def _wavelengths(file: Any) -> tuple[float, ...]:
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


def bad_bands(path: Path) -> tuple[int, ...]:
    """Return the bands, counted from 1, that an ENVI header marks as bad (bbl 0); none for other files."""
    with in_one_sentence(path), without_warnings():
        head = _head(path)
        if cubes.is_cube(path, head) or _is_for_pillow(head) or cubes.is_hdf5(head):
            return ()
        with open_raster(path) as file:
            marks = file.tags(ns="ENVI").get("bbl", "").strip("{} \n").split(",")
            if len(marks) != file.count:
                return ()
            return tuple(band for band, mark in enumerate(marks, 1) if float(mark or 1) == 0)
