"""Palette images as the colours they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp


@dataclass(frozen=True)
class Palette:
    """The colours (entries, 4) of 8 bits, red, green, blue and opacity, that the values of a band stand for.

    bands  1 for a table of a 1-bit file that is grey, else 3
    """

    colours: NDArray[np.uint8]
    bands: int

    @property
    def has_missing(self) -> bool:
        """Whether some entries are wholly transparent, which marks missing pixels."""
        return bool((self.colours[:, 3] == 0).any())

    def expanded(self, codes: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return (values (bands, h, w), valid (bands, h, w)) of codes (1, h, w); codes beyond the table are black."""
        found = self.colours[np.minimum(codes[0].astype(np.int64), len(self.colours) - 1)].transpose(2, 0, 1)
        valid = np.repeat(found[3:] > 0, self.bands, axis=0)
        return np.ascontiguousarray(found[: self.bands]), valid


def palette_of(file: Any) -> Palette | None:
    """Return the palette of a raster that GDAL opened, or None where its band holds values."""
    if file.count != 1 or file.colorinterp[0] != ColorInterp.palette:
        return None
    table: dict[int, tuple[int, int, int, int]] = file.colormap(1)
    last = max(table, default=0)
    colours = np.zeros((last + 2, 4), np.uint8)
    colours[:, 3] = 255
    for code, colour in table.items():
        colours[code] = colour
    nodata = file.nodata
    if nodata is not None and 0 <= nodata <= last:
        colours[int(nodata), 3] = 0
    grey = bool((colours[:, :1] == colours[:, :3]).all())
    is_one_bit = file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") == "1"
    return Palette(colours, 1 if grey and is_one_bit else 3)
