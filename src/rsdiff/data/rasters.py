"""Reading any image or raster file: what it holds without decoding it, and its pixels and which of them are valid, whole or a window.

One reader serves data sets and scenes. Containers are recognised by first bytes, not names: PNG, JPEG, BMP and WebP of 8 bits go through
Pillow (which refuses truncated files), MATLAB, HDF5 and NumPy cubes through `cubes`, everything else through GDAL (rasterio).

Which pixels are missing is read per band, as GDAL does: by a nodata value of the band, a mask, an alpha band that is not itself asked for,
a transparent colour of a palette, and NaN or infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsdiff.data import cubes
from rsdiff.data.opening import in_one_sentence, is_in_archive, local_file, open_raster, without_warnings
from rsdiff.data.pictures import Picture
from rsdiff.data.raster_files import Cube, GdalRaster, Raster, RasterFile, RasterInfo
from rsdiff.data.source import DataError, Window, cut

__all__ = ["Decoded", "Raster", "RasterFile", "RasterInfo", "bad_bands", "open_file", "raster_info", "read_raster"]

_PILLOW_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF")


def open_file(path: Path, as_codes: bool = False, variable: str = "") -> RasterFile:
    """Open any image or raster file.

    as_codes  a palette image counts as one band of codes (label maps), not as three of colour
    variable  array to take from a MATLAB or HDF5 file with several, or sub-data set of a container
    Raises DataError in one sentence for an empty, unreadable or unknown file.
    """
    with in_one_sentence(path):
        head = _head(path)
        if cubes.is_cube(path, head):
            return Cube(path, variable)
        return Picture(path, as_codes) if _is_for_pillow(head) else GdalRaster(path, as_codes, variable, head)


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
            self._content = file if isinstance(file, Picture) else file.read(None, bands)

    def read(self, window: Window) -> Raster:
        """Return the pixels in a window, contiguous."""
        if isinstance(self._content, Picture):
            return self._content.read(window, self._bands)
        valid = None if self._content.valid is None else cut(self._content.valid, window)
        return Raster(np.ascontiguousarray(cut(self._content.values, window)), valid)


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
