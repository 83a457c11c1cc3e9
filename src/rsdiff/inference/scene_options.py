"""Options of restoring scenes."""

from __future__ import annotations

from typing import ClassVar, Literal

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_1, ReadWith
from rsdiff.inference.network_options import NetworkOptions
from rsdiff.inference.scene_view import SceneView


@config
class SceneOptions(NetworkOptions):
    """How scenes are read, cut, restored and written. Pixels are those of the input unless said otherwise."""

    result_neutral: ClassVar[frozenset[str]] = frozenset({"batch", "overwrite"})
    read_with: ClassVar[ReadWith] = {
        "level": ("samples", (ABOVE_1,)),
        "percentiles": ("scaling", ("percentile",)),
        "gain": ("scaling", ("gain",)),
        "offset": ("scaling", ("gain",)),
    }

    tile: int = 0
    """Side of a tile; 0 finds one that fits into the memory. It is halved where the memory turns out too small."""
    overlap: int | Literal["auto"] = 16
    """Pixels that neighbouring tiles share and over which they are blended; auto: twice as many as a pixel changes around itself in the
    result by half a grey level of 8 bits or more, measured once with this model (samplers in two steps)."""
    batch: int = 1
    """Tiles restored together on an accelerator; halved where its memory is too small. A CPU restores them one after the other."""
    fuse: int = 1
    """Side of a group of tiles, in tiles, whose clean estimates are blended at every step of the sampler; 1 restores tiles alone."""
    samples: int = 1
    """Restorations drawn of every pixel; from 2 on their mean is written and, beside it, their standard deviation and, where they were
    calibrated (task=calibrate), half the width of the interval in which `level` of the HR values lie."""
    level: float = 0.9
    """Share of HR values that lie within the intervals of calibrated samples."""
    share_codes: bool = True
    """Estimate what is global (the degradation code of blind methods) once per scene, from windows spread over it."""
    bands: tuple[int, ...] = ()
    """Bands to restore, counted from 1 and in this order; empty means all but an alpha band."""
    convert: Literal["no", "rgb"] = "no"
    """rgb: show a model of three bands a scene of one band three times, and write the mean of its three; of more bands, take the first
    three."""
    window: tuple[int, int, int, int] | None = None
    """Part to restore: (top, left, height, width) in input pixels; null for all."""
    bbox: tuple[float, float, float, float] | None = None
    """Part to restore: (least x, least y, greatest x, greatest y) in the scene's coordinate system; null for all."""
    scaling: Literal["trained", "none", "dtype", "percentile", "gain", "file"] = "trained"
    """How stored values become [0, 1]: as the checkpoint's data, as they are, by the type's range (signed types: from the lowest to the
    highest value of the scene), percentiles of the scene, a gain, or the scale and offset in the file. What lies outside is kept."""
    percentiles: tuple[float, float] = (0.1, 99.9)
    """Percentiles per band that become 0 and 1, measured once for the whole scene (scaling percentile)."""
    gain: float = 1e-4
    """Scaling gain: [0, 1] = gain * value + offset; 1e-4 is Sentinel-2 reflectance."""
    offset: float = 0.0
    """See gain; -0.1 for Sentinel-2 products since baseline 04.00."""
    nodata: float | None = None
    """Stored value that marks missing pixels, where the file does not say so itself."""
    variable: str = ""
    """Array or sub-data set to restore from a file that holds several (netCDF, HDF5, MATLAB, Sentinel-2 products)."""
    dtype: Literal["input", "float32"] = "input"
    """Type of the output: the input's, rounded and saturated, or real numbers in its units."""
    format: Literal["geotiff", "cog", "png", "jpeg"] = "geotiff"
    """Tiled GeoTIFF with overviews, Cloud Optimized GeoTIFF, or pictures; a name in .png or .jpg says so by itself."""
    compress: Literal["deflate", "zstd", "lzw", "none"] = "deflate"
    """Compression of the output, all without loss."""
    wavelengths: tuple[float, ...] = ()
    """Band centres of the output in nanometres; empty takes those of the input or, where bands are added, of the training data."""
    reference: str | None = None
    """Raster of another date for reference-based methods; aligned by its georeference."""
    change_mask: str | None = None
    """Raster of change or land-cover codes for reference-based methods; aligned by its georeference."""
    overwrite: bool = False
    """Replace outputs that exist and were not written by rsdiff."""
    preview: bool = True
    """Write a preview PNG and a before/after page beside the output."""

    def view(self) -> SceneView:
        """Return how scenes are looked at."""
        return SceneView(self.bands, self.nodata, self.variable, self.convert == "rgb", self.window, self.bbox)

    def __post_init__(self) -> None:
        counts = {"batch": self.batch, "fuse": self.fuse, "samples": self.samples}
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"{name}={value} was given; choose 1 or more.")
        overlap = 0 if self.overlap == "auto" else self.overlap
        if self.tile < 0 or overlap < 0:
            raise UserError(f"tile={self.tile}, overlap={self.overlap} were given; choose 0 or more pixels.")
        if self.tile and 2 * overlap > self.tile:
            raise UserError(f"overlap={self.overlap} is more than half of tile={self.tile}; choose a smaller overlap or a larger tile.")
        if any(band < 1 for band in self.bands) or len(set(self.bands)) != len(self.bands):
            raise UserError(f"bands={list(self.bands)} was given; bands are counted from 1 and named once.")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise UserError(f"percentiles={list(self.percentiles)} were given; choose two rising numbers between 0 and 100.")
        if self.window is not None and (min(self.window[:2]) < 0 or min(self.window[2:]) < 1):
            raise UserError(f"window={list(self.window)} is no part of a scene; give top, left, height and width in pixels.")
        if self.bbox is not None and not (self.bbox[0] < self.bbox[2] and self.bbox[1] < self.bbox[3]):
            raise UserError(f"bbox={list(self.bbox)} is empty; give least x, least y, greatest x and greatest y.")
        if self.window is not None and self.bbox is not None:
            raise UserError("window and bbox were both given; give the part to restore in pixels or in coordinates.")
        if self.gain <= 0:
            raise UserError(f"gain={self.gain} was given; choose a positive number.")
