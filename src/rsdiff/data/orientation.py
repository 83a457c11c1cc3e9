"""Which way up a stored image is, as its EXIF or TIFF orientation says, and what turns it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from rasterio.transform import Affine

from rsdiff.data.source import Window

TAG = 0x0112
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a Pillow image upright, by its orientation."""


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8, from what stands before its pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # asking Pillow would decode the image in search of it
    return _known(image.getexif().get(TAG, 1))


def orientation_in_file(path: Path, driver: str) -> int:
    """Return the orientation that the header of a TIFF or PNG file on the disk tells, which GDAL does not apply; 1 for all others."""
    try:
        if driver == "PNG":
            with Image.open(path) as image:
                return orientation_of(image)
        if driver == "GTiff":
            with path.open("rb") as file:
                head = file.read(8)
                first = ImageFileDirectory_v2(head + file.read(8) if 43 in head[2:4] else head)
                file.seek(first.next)
                first.load(file)
                return _known(first.get(TAG, 1))
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, Image.DecompressionBombError):
        return 1  # what is damaged is reported by the reader of the pixels
    return 1


def _known(value: Any) -> int:
    return value if isinstance(value, int) and value in TRANSPOSES else 1


def lies_on_its_side(orientation: int) -> bool:
    """Say whether rows and columns change places."""
    return orientation >= 5


def as_stored(orientation: int, height: int, width: int) -> Affine | None:
    """Return what maps corners of pixels (column, row) of the upright image of a size to those of the stored one; None for upright ones."""
    by_orientation = {
        2: (-1, 0, width, 0, 1, 0),
        3: (-1, 0, width, 0, -1, height),
        4: (1, 0, 0, 0, -1, height),
        5: (0, 1, 0, 1, 0, 0),
        6: (0, 1, 0, -1, 0, width),
        7: (0, -1, height, -1, 0, width),
        8: (0, -1, height, 1, 0, 0),
    }
    return Affine(*by_orientation[orientation]) if orientation in by_orientation else None


def stored_window(window: Window, orientation: int, height: int, width: int) -> Window:
    """Return the window of the stored image that is `window` of the upright one of a size."""
    turn = as_stored(orientation, height, width)
    if turn is None:
        return window
    corners = [turn @ corner for corner in ((window.left, window.top), (window.left + window.width, window.top + window.height))]
    (left, right), (top, bottom) = (sorted(round(corner[axis]) for corner in corners) for axis in (0, 1))
    return Window(top, left, bottom - top, right - left)


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return stored pixels (C, h, w) upright."""
    if lies_on_its_side(orientation):
        pixels = pixels.swapaxes(-2, -1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[..., rows, columns])
