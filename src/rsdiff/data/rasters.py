"""Reading any image or raster file: what it holds without decoding it, and its pixels, whole or a window.

The container is told by its first bytes, not its name. PNG, JPEG, BMP and WebP of 8 bits go through Pillow (which refuses truncated files),
MATLAB, HDF5 and NumPy cubes through `cubes`, everything else through GDAL (rasterio).
"""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
import rasterio.windows
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rasterio.enums import Interleaving
from rasterio.io import DatasetReader
from scipy.io.matlab import MatReadError

from rsdiff.data import cubes
from rsdiff.data.plausible import require_plausible
from rsdiff.data.sample import Georeference
from rsdiff.data.source import DataError, Window, cut

_PILLOW_BANDS = {"1": 1, "L": 1, "P": 3, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
_REFERRING = frozenset(
    {"VRT", "WMS", "WMTS", "WCS", "HTTP", "GTI", "STACIT", "STACTA", "PLMOSAIC", "DAAS", "EEDA", "EEDAI", "DERIVED", "Rasterlite", "MRF"}
    | {"PDF", "KMLSUPEROVERLAY", "MEM", "Memory", "MBTiles", "GPKG", "SQLite", "OZI", "MAP", "ESRIC", "OSM", "GNMFile", "GNMDatabase"}
)
_REACHES_OUT = re.compile(r"/vsi|\w+://|PixelFunction|<GDAL_WMS", re.IGNORECASE)
_PILLOW_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF")


@dataclass(frozen=True)
class RasterInfo:
    """What a file's header says.

    dtype        type of the stored values
    has_nodata   whether some pixels may be marked as invalid (declared nodata value or mask, or NaN in floats)
    has_windows  whether a window can be read without decoding the whole file
    wavelengths  band centres in nanometres, or empty
    """

    bands: int
    height: int
    width: int
    dtype: np.dtype[Any]
    has_nodata: bool = False
    has_windows: bool = False
    wavelengths: tuple[float, ...] = ()
    georeference: Georeference | None = None


@dataclass
class Raster:
    """Pixels (bands, rows, columns) in the stored type, and valid (1, rows, columns) of bool where the file marks invalid ones."""

    values: NDArray[Any]
    valid: NDArray[np.bool_] | None = None


def raster_info(path: Path, as_codes: bool = False, variable: str = "") -> RasterInfo:
    """Return what the header of `path` says, without decoding pixels.

    as_codes  a palette image counts as one band of codes (label maps), not as three of colour
    variable  array to take from a MATLAB file with several
    Raises DataError in one sentence for an empty, unreadable or unknown file.
    """
    with in_one_sentence(path):
        head = _head(path)
        if cubes.is_cube(path, head):
            cube = cubes.cube_info(path, variable)
            return RasterInfo(*cube.shape, cube.dtype, has_nodata=cube.dtype.kind == "f", has_windows=cube.has_windows)
        if _is_for_pillow(head):
            with Image.open(path) as image:
                bands = 1 if as_codes and image.mode == "P" else _bands_of_mode(image.mode, path)
                require_plausible(path, bands * image.height * image.width, [path])
                return RasterInfo(bands, image.height, image.width, np.dtype(np.uint16 if image.mode == "I;16" else np.uint8))
        with open_raster(path) as file:
            return _info_of_dataset(file, path)


def read_raster(path: Path, window: Window | None = None, as_codes: bool = False, variable: str = "") -> Raster:
    """Return the pixels of `path`, whole or in `window`; see raster_info for the options.

    Raises DataError in one sentence; a file that ends early is refused, never half decoded.
    """
    with in_one_sentence(path):
        head = _head(path)
        if cubes.is_cube(path, head):
            values = cubes.read_cube(path, window, variable)
            return Raster(values, _finite(values))
        if _is_for_pillow(head):
            return Raster(_pillow_values(_picture(path), as_codes, path, window))
        with open_raster(path) as file:
            if window is None:
                require_plausible(path, sum(np.dtype(kind).itemsize for kind in file.dtypes) * file.height * file.width, file.files)
            part = None if window is None else rasterio.windows.Window(window.left, window.top, window.width, window.height)
            values = file.read(window=part)
            declared = _declares_nodata(file)
            valid = (file.dataset_mask(window=part) > 0)[None] if declared else None
        finite = _finite(values)
        return Raster(values, finite if valid is None else valid if finite is None else valid & finite)


class Decoded:
    """A file that can only be decoded whole; windows are cut from what its format decodes to, before bands are put one after another."""

    def __init__(self, path: Path, as_codes: bool = False, variable: str = "") -> None:
        self.path, self._as_codes = path, as_codes
        with in_one_sentence(path):
            self._content = _picture(path) if _is_for_pillow(_head(path)) else read_raster(path, None, as_codes, variable)

    def read(self, window: Window) -> Raster:
        """Return the pixels in a window, contiguous."""
        if isinstance(self._content, Image.Image):
            with in_one_sentence(self.path):
                return Raster(_pillow_values(self._content, self._as_codes, self.path, window))
        valid = None if self._content.valid is None else cut(self._content.valid, window)
        return Raster(np.ascontiguousarray(cut(self._content.values, window)), valid)


def open_raster(path: Path) -> Any:
    """Open a file with GDAL for reading; a context manager.

    Formats that fetch their pixels from elsewhere (other files, servers) are not tried: an image from a stranger must not make this
    machine read or ask for anything but itself. A mosaic of own files is opened by its name, *.vrt, unless it names servers or code.
    """
    if path.suffix.lower() == ".vrt":
        text = path.read_text(errors="replace")
        if _REACHES_OUT.search(text):
            raise DataError(f"{path} refers to servers, archives or code, which are not followed; build it anew of files on this disk.")
        return rasterio.open(path, driver="VRT")
    # rasterio.open takes one driver, or all of them; what it returns takes a list
    with rasterio.env.env_ctx_if_needed():
        return DatasetReader(str(path), driver=_drivers())


@cache
def _drivers() -> list[str]:
    """Return GDAL's drivers for files that hold their own pixels, or find them beside themselves."""
    with rasterio.Env() as environment:
        return sorted(set(environment.drivers()) - _REFERRING)


def _picture(path: Path) -> Image.Image:
    """Return a decoded picture; raises what Pillow raises for a file that ends early."""
    with Image.open(path) as image:
        require_plausible(path, 4 * image.height * image.width, [path])
        image.load()
        return image


def _pillow_values(image: Image.Image, as_codes: bool, path: Path, window: Window | None) -> NDArray[Any]:
    """Return the pixels (bands, rows, columns) of a decoded picture, whole or in a window."""
    _bands_of_mode(image.mode, path)
    if window is not None:
        image = image.crop((window.left, window.top, window.left + window.width, window.top + window.height))
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "P" and not as_codes:
        image = image.convert("RGB")
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
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        raise DataError(f"{path} is empty (0 bytes); delete it or copy it again.")
    return head


def _info_of_dataset(file: Any, path: Path) -> RasterInfo:
    types = set(file.dtypes)
    if file.count == 0:
        raise DataError(f"{path} is a container of {len(file.subdatasets)} sub-data sets; export the one you need as GeoTIFF.")
    if len(types) > 1:
        raise DataError(f"{path} mixes bands of types {', '.join(sorted(types))}; export it with one type.")
    dtype = np.dtype(file.dtypes[0])
    block = max(rows * columns for rows, columns in file.block_shapes) * dtype.itemsize
    require_plausible(path, block * (file.count if file.interleaving == Interleaving.pixel else 1), file.files)
    if dtype.kind not in "uif":
        raise DataError(f"{path} holds values of type {dtype}; integers and real numbers are accepted: export it as such.")
    placed = file.crs is not None and not file.transform.is_identity
    return RasterInfo(
        bands=file.count,
        height=file.height,
        width=file.width,
        dtype=dtype,
        has_nodata=_declares_nodata(file) or dtype.kind == "f",
        has_windows=file.driver not in ("PNG", "JPEG", "WEBP", "BMP", "GIF"),
        wavelengths=_wavelengths(file),
        georeference=Georeference(file.crs.to_string(), tuple(file.transform)[:6]) if placed else None,
    )


def _declares_nodata(file: Any) -> bool:
    """Say whether the file marks invalid pixels by a nodata value or a mask; an alpha band alone is data, not a mask."""
    flags = {flag.name for band in file.mask_flag_enums for flag in band}
    return "nodata" in flags or ("per_dataset" in flags and "alpha" not in flags)


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
        if cubes.is_cube(path, _head(path)) or _is_for_pillow(_head(path)):
            return ()
        with open_raster(path) as file:
            marks = file.tags(ns="ENVI").get("bbl", "").strip("{} \n").split(",")
            if len(marks) != file.count:
                return ()
            return tuple(band for band, mark in enumerate(marks, 1) if float(mark or 1) == 0)


def _finite(values: NDArray[Any]) -> NDArray[np.bool_] | None:
    return np.isfinite(values).all(axis=0, keepdims=True) if values.dtype.kind == "f" else None


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence what is normal here: images without georeference, a nodata value beside an alpha band, aerial mosaics that are large.

    Changes the process's filters while it lasts, so one thread enters it for all that read.
    """
    with warnings.catch_warnings():
        for kind in (rasterio.errors.NotGeoreferencedWarning, rasterio.errors.NodataShadowWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("ignore", kind)
        yield


@contextmanager
def in_one_sentence(path: Path) -> Iterator[None]:
    """Turn what the readers raise about `path` into DataError in one sentence."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path or copy the file again.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read by this user; change its permissions.") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path} is too large for its format; convert it to TIFF, which is read in windows.") from None
    except (UnidentifiedImageError, rasterio.errors.RasterioIOError) as error:
        if "not recognized" in str(error) or isinstance(error, UnidentifiedImageError):
            raise DataError(f"{path} is not an image of a known format; delete it, or leave it out with dataset.extensions.") from None
        raise _broken(path, error) from None
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, ZeroDivisionError) as error:
        raise _broken(path, error) from None
    except (EOFError, RuntimeError, struct.error, zlib.error, MatReadError, TokenError, rasterio.errors.RasterioError) as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: BaseException) -> DataError:
    cause = error.__cause__ or error
    first_line = str(cause).strip().splitlines()[0][:120] if str(cause).strip() else type(error).__name__
    return DataError(f"{path} is truncated or damaged ({first_line.rstrip('.')}); copy it again or delete it.")
