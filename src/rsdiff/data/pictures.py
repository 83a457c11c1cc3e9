"""Pictures of 8 bits per band, decoded by Pillow and turned upright."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine

from rsdiff.data.opening import open_raster
from rsdiff.data.orientation import TRANSPOSES, as_stored, lies_on_its_side, orientation_of
from rsdiff.data.plausible import require_plausible
from rsdiff.data.raster_files import OF_FRAMES, OpenedFile, Raster, RasterInfo
from rsdiff.data.source import DataError, Window

_PILLOW_BANDS = {"1": 1, "L": 1, "P": 3, "PA": 4, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
_SHOWN = {"1": "L", "P": "RGB", "PA": "RGBA"}


class Picture(OpenedFile):
    """A PNG, JPEG, BMP or WebP of 8 bits per band, turned upright as its EXIF data say, which Pillow decodes as a whole."""

    def __init__(self, path: Path, as_codes: bool) -> None:
        self._as_codes = as_codes
        self._file: Any | None = None
        with Image.open(path) as image:
            bands = 1 if as_codes and image.mode == "P" else _bands_of_mode(image.mode, path)
            require_plausible(path, bands * image.height * image.width, [path])
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format in ("PNG", "WEBP"):  # a photograph (MPO) may carry previews of itself
                raise DataError(f"{path} {OF_FRAMES.format(frames)}")
            height, width = image.height, image.width
            self._orientation = orientation_of(image)
            if lies_on_its_side(self._orientation):
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
        """See RasterFile."""
        return as_stored(self._orientation, self.info.height, self.info.width)

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
            turn = TRANSPOSES.get(self._orientation)
            image.load()
            shown = image if turn is None else image.transpose(turn)
            hides = "transparency" in image.info and not (self._as_codes and image.mode == "P")
            return shown, shown.convert("RGBA").getchannel("A") if hides else None


def _channels_first(image: Image.Image) -> NDArray[Any]:
    values = np.asarray(image)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("="))
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1))


def _bands_of_mode(mode: str, path: Path) -> int:
    if mode not in _PILLOW_BANDS:
        raise DataError(f"{path} has colour mode {mode}; images of grey, RGB or RGBA are accepted: convert it.")
    return _PILLOW_BANDS[mode]
