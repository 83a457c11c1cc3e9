"""Which part of a raster is the scene: bands, area, variable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SceneView:
    """How a scene is looked at.

    bands     bands to read, counted from 1; empty means all but an alpha band
    nodata    stored value of missing pixels, beside what the file declares
    variable  array or sub-data set to take from a file with several
    as_rgb    read three bands: one of a scene of one or two three times, of others the first three
    window    (top, left, height, width) of the part that is the scene, in pixels of the file
    bbox      the same in coordinates (least x, least y, greatest x, greatest y)
    """

    bands: tuple[int, ...] = ()
    nodata: float | None = None
    variable: str = ""
    as_rgb: bool = False
    window: tuple[int, int, int, int] | None = None
    bbox: tuple[float, float, float, float] | None = None
