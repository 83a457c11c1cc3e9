"""Writing scenes: georeferenced rasters that appear under their name only when they are complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.dtypes
import rasterio.shutil
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError

from rsdiff.config import PlaceError, UserError
from rsdiff.data.durable import flush
from rsdiff.data.normalisation import as_integers
from rsdiff.data.opening import open_raster, without_warnings
from rsdiff.data.source import DataError
from rsdiff.inference.scene_input import SceneReader
from rsdiff.inference.scene_metadata import write_metadata
from rsdiff.inference.scene_options import SceneOptions
from rsdiff.inference.tiling import Grid

BLOCK = 512
"""Side of a block of the output in pixels; the unit in which results are finished and stored."""
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
RASTERS = (".tif", ".tiff")
ENDINGS = {"geotiff": ".tif", "cog": ".tif", "png": ".png", "jpeg": ".jpg"}
"""Ending of outputs that are not named one by one, by format."""
DEFLATE, PNG_DEFLATE = 4, 2
"""Levels of deflate in rasters and in PNGs, of 9. Against GDAL's 6, files are 1 to 5 % larger and written in a half and a fifth of the
time, which for small networks is a fifth of the whole restoration."""
COMPRESSING = 4
"""Threads that compress a raster, at most. GDAL writes what they made in the order of the blocks, so the bytes do not depend on them."""
OWN = "rsdiff"
"""What a comment in a JPEG of ours begins with."""


@dataclass(frozen=True)
class OutputForm:
    """Type, bands and missing value of an output raster.

    keeps_bands  whether its bands are the input's, so that their names and colours are carried over
    has_mask     whether missing pixels are marked by a mask of the file's own
    has_alpha    whether the last band is an alpha band: the input's, or one that marks missing pixels in a PNG
    """

    dtype: np.dtype[Any]
    bands: int
    nodata: float | None
    keeps_bands: bool
    has_mask: bool = False
    has_alpha: bool = False

    @property
    def stored_bands(self) -> int:
        """Bands of a block in the scratch folder: the output's and one for the mask."""
        return self.bands + self.has_mask

    def convert(self, values: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[Any]:
        """Return values (C, h, w) in the output's type: rounded, saturated, missing ones marked and no other one looking missing."""
        result = values.astype(self.dtype) if self.dtype.kind == "f" else as_integers(values, self.dtype)
        if self.nodata is not None:
            if not np.isnan(self.nodata):
                neighbour = self._next_to_nodata()
                result[result == self.dtype.type(self.nodata)] = neighbour
            result[~valid] = self.dtype.type(self.nodata)
        elif self.dtype.kind == "f":
            result[~valid] = np.nan
        return result

    def _next_to_nodata(self) -> Any:
        """The value nearest to nodata that the type has."""
        if self.dtype.kind == "f":
            return np.nextafter(self.dtype.type(self.nodata), self.dtype.type(np.inf))
        limits = np.iinfo(self.dtype)
        return self.dtype.type(int(self.nodata) + 1 if self.nodata < limits.max else limits.max - 1)  # type: ignore[operator,arg-type]


def output_form(reader: SceneReader, options: SceneOptions, bands: int, output: Path) -> OutputForm:
    """Return the form of the restored raster; pictures, which know no nodata value, mark missing pixels by an alpha band or a mask."""
    dtype = np.dtype(np.float32) if options.dtype == "float32" else reader.dtype
    nodata = reader.nodata
    if nodata is None and dtype.kind == "f" and reader.marks_missing and reader.alpha is None:
        nodata = float("nan")
    if nodata is not None and dtype.kind in "ui" and not rasterio.dtypes.can_cast_dtype([nodata], dtype.name):
        nodata = None  # a value that no pixel of this type can have
    has_alpha, has_mask = reader.alpha is not None, reader.has_mask and nodata is None
    picture = PICTURES.get(output.suffix.lower())
    if picture is not None and reader.marks_missing and not has_alpha:
        nodata, has_alpha, has_mask = None, picture == "PNG", picture == "JPEG"
    return OutputForm(dtype, bands + has_alpha, nodata, bands == len(reader.metadata.bands), has_mask, has_alpha)


def spread_form(bands: int) -> OutputForm:
    """Return the form of the rasters of standard deviations and of half the widths of intervals."""
    return OutputForm(np.dtype(np.float32), bands, float("nan"), keeps_bands=False)


@dataclass(eq=False)
class SceneWriter:
    """Writes the output raster beside its final name and renames it when it is complete.

    kind  'restored', 'spread' or 'interval', recorded in the file's tags
    tags  further tags
    """

    path: Path
    reader: SceneReader
    grid: Grid
    scale: Fraction
    form: OutputForm
    options: SceneOptions
    tags: dict[str, str]

    @property
    def partial(self) -> Path:
        """Where the raster is until it is complete."""
        return self.path.with_name(f".{self.path.stem}.plain.partial.tif")

    def write(self, blocks: Iterable[tuple[int, NDArray[Any]]]) -> None:
        """Write the blocks (number, (stored_bands, block, block)) in their order, metadata and overviews. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # No .aux.xml files, but of pictures with a place.
            with rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_NUM_THREADS=min(COMPRESSING, own_cores())):
                self._write_tiles(blocks)
                self._finish()
        except RasterioError as error:
            raise PlaceError(
                f"{self.path} cannot be written ({_reason(error)}); check the disk's free space and give the command again."
            ) from None
        finally:
            self.partial.unlink(missing_ok=True)

    @property
    def _driver(self) -> str | None:
        """GDAL's name of the format that the finished raster is turned into, None where it stays a GeoTIFF."""
        return PICTURES.get(self.path.suffix.lower(), "COG" if self.options.format == "cog" else None)

    def _profile(self) -> dict[str, Any]:
        metadata, form = self.reader.metadata, self.form
        compress = self.options.compress
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "dtype": form.dtype.name,
            "count": form.bands,
            "height": self.grid.size[0],
            "width": self.grid.size[1],
            "tiled": True,
            "blockxsize": BLOCK,
            "blockysize": BLOCK,
            "interleave": "pixel" if form.bands <= 4 else "band",
            "bigtiff": "if_safer",
        }
        if form.nodata is not None:
            profile["nodata"] = form.nodata
        # What is turned into another file is read once, by us.
        if compress != "none" and self._driver is None:
            profile |= {"compress": compress, "predictor": 3 if form.dtype.kind == "f" else 2}
            if compress == "deflate":
                profile["zlevel"] = DEFLATE
        transform = metadata.enlarged_transform(float(self.scale))
        if metadata.crs is not None:
            profile["crs"] = metadata.crs
        if transform is not None:
            profile["transform"] = transform
        # Without these GDAL takes the fourth of four 8-bit bands for an alpha band.
        profile["photometric"] = "rgb" if self._kinds()[:3] == [ColorInterp.red, ColorInterp.green, ColorInterp.blue] else "minisblack"
        if form.has_alpha:
            profile["alpha"] = "yes"
        return profile

    def _kinds(self) -> list[ColorInterp]:
        """Return the colour interpretation of every band."""
        kinds = [ColorInterp.undefined] * self.form.bands
        if self.form.keeps_bands:
            for number, band in enumerate(self.reader.metadata.bands):
                kinds[number] = ColorInterp.undefined if band.kind in (ColorInterp.alpha, ColorInterp.palette) else band.kind
        if self.form.has_alpha:
            kinds[-1] = ColorInterp.alpha
        return kinds

    def _write_tiles(self, blocks: Iterable[tuple[int, NDArray[Any]]]) -> None:
        with rasterio.open(self.partial, "w", **self._profile()) as file:
            self._describe(file)
            for block, image in blocks:
                top, left, height, width = self.grid.extent(block)
                window = rasterio.windows.Window(left, top, width, height)
                file.write(image[: self.form.bands, :height, :width], window=window)
                if self.form.has_mask:
                    file.write_mask(image[-1, :height, :width] > 0, window=window)

    def _describe(self, file: Any) -> None:
        """Write what the input says of its pixels, and what is new."""
        metadata = self.reader.metadata.flat() if self.options.format == "cog" else self.reader.metadata
        write_metadata(file, metadata, float(self.scale), self.form.keeps_bands, self.tags)
        for band, centre in enumerate(self.options.wavelengths, 1):
            file.set_band_description(band, f"{centre:g} nm")
            file.update_tags(band, wavelength=f"{centre:g}", wavelength_units="Nanometers")
        file.colorinterp = self._kinds()

    def _finish(self) -> None:
        """Add overviews or turn the file into a COG or picture, flush and rename."""
        final, driver = self.partial, self._driver
        if driver is not None:
            final = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        try:
            if driver == "COG":
                compress: dict[str, str] = {"compress": self.options.compress}
                if self.options.compress != "none":
                    compress["predictor"] = "yes"
                if self.options.compress == "deflate":
                    compress["level"] = str(DEFLATE)
                rasterio.shutil.copy(self.partial, final, driver="COG", blocksize=BLOCK, overview_resampling="average", **compress)
            elif driver is not None:
                comment = f"{OWN} {self.tags['RSDIFF_CONTENT']}"
                how = {"WRITE_METADATA_AS_TEXT": "YES", "ZLEVEL": str(PNG_DEFLATE)} if driver == "PNG" else {"COMMENT": comment}
                with rasterio.Env(GDAL_PAM_ENABLED="YES" if self.reader.metadata.is_placed else "NO"):
                    rasterio.shutil.copy(self.partial, final, driver=driver, **how)
            else:
                self._add_overviews()
            flush(final)
            self._keep_place(_place_of(final))
            final.replace(self.path)
            self._keep_side_files()
        finally:
            if final != self.partial:
                final.unlink(missing_ok=True)
                _place_of(final).unlink(missing_ok=True)

    def _keep_place(self, beside: Path) -> None:
        """Rename GDAL's file of what a picture cannot hold (its place, names of bands) after it; without one, none may lie there."""
        if beside.exists():
            beside.replace(_place_of(self.path))
        else:
            _place_of(self.path).unlink(missing_ok=True)

    def _keep_side_files(self) -> None:
        """Rename what GDAL wrote beside the raster (an .IMD file of vendor metadata) after it."""
        for beside in self.path.parent.glob(f"{self.partial.stem}.*"):
            if beside != self.partial:
                beside.replace(self.path.with_suffix(beside.suffix))

    def _add_overviews(self) -> None:
        levels = [2**k for k in range(1, 16) if max(self.grid.size) / 2**k > BLOCK / 2]
        if levels:
            with rasterio.Env(ZLEVEL_OVERVIEW=DEFLATE), rasterio.open(self.partial, "r+") as file:
                file.build_overviews(levels, Resampling.average)


def own_cores() -> int:
    """Return how many cores this process may use: those a scheduler gave it, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _place_of(picture: Path) -> Path:
    """Return GDAL's file beside a raster, which holds what its format cannot."""
    return picture.with_name(f"{picture.name}.aux.xml")


def require_writable_name(path: Path, form: OutputForm, kind: str) -> None:
    """Raise UserError unless the ending of `path` names a format that can hold `form` and is that of task.format=`kind`."""
    suffix = path.suffix.lower()
    if suffix in RASTERS and kind in ("geotiff", "cog"):
        return
    if suffix in (*RASTERS, *PICTURES) and kind != "geotiff" and PICTURES.get(suffix, "").lower() != kind:
        raise UserError(f"output={path} ends in '{suffix}' and task.format={kind}; name it {path.with_suffix(ENDINGS[kind]).name}.")
    if suffix not in PICTURES:
        raise UserError(f"output={path} ends in '{suffix}'; rasters are written as .tif, pictures without loss of type as .png or .jpg.")
    types = ("uint8",) if PICTURES[suffix] == "JPEG" else ("uint8", "uint16")
    has_room = form.bands - form.has_alpha in (1, 3) and not (form.has_alpha and PICTURES[suffix] == "JPEG")
    if form.dtype.name not in types or not has_room:
        raise UserError(f"{suffix} cannot hold {form.bands} bands of {form.dtype.name}; write output={path.with_suffix('.tif')}.")


def is_ours(path: Path) -> bool:
    """Say whether a raster was written by rsdiff, which its tags tell."""
    try:
        with without_warnings(), open_raster(path) as file:
            tags = file.tags()
    except (RasterioError, DataError, OSError):
        return False
    return "RSDIFF_CONTENT" in tags or str(tags.get("EXIF_UserComment", tags.get("COMMENT", ""))).startswith(OWN)


def sibling(path: Path, what: str) -> Path:
    """Return the name of a second raster beside `path`: scene_x4.tif -> scene_x4_spread.tif."""
    return path.with_name(f"{path.stem}_{what}.tif")


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return re.sub(r"\s+", " ", str(cause) or type(cause).__name__)[:160].rstrip(".")
