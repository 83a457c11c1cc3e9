"""What a file says of its pixels beside their values, read and written back: everything but what the enlargement makes wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine

Tags = Mapping[str, str]

_WRONG_DOMAINS = frozenset({"", "IMAGE_STRUCTURE", "DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", "GEOLOCATION", "TIFF", "EXIF"})
"""Domains that describe how the input is stored, or places in input pixels; RPCs are written in target pixels."""
_WRONG_KEYS = frozenset(
    {"TIFFTAG_SOFTWARE", "EXIF_Orientation", "EXIF_PixelXDimension", "EXIF_PixelYDimension", "OVR_RESAMPLING_ALG", "LAYOUT"}
    | {"NODATA_VALUES"}  # which the output says by a mask or a nodata value of its own
    | {"samples", "lines", "header_offset", "data_type", "interleave", "byte_order", "map_info", "file_type", "data_ignore_value"}
    | {"numRows", "numColumns", "NUMROWS", "NUMCOLUMNS", "coordinate_system_string", "x_start", "y_start"}
)
_PROFILE = "COLOR_PROFILE"
_WRONG_STARTS = ("STATISTICS_", "RSDIFF_")


@dataclass(frozen=True)
class BandMetadata:
    """What is said of one band."""

    description: str = ""
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    kind: ColorInterp = ColorInterp.undefined
    tags: Mapping[str, Tags] = field(default_factory=dict)


@dataclass(frozen=True)
class Metadata:
    """What is said of a scene; pixels of `transform`, `points` and `rpcs` are those of the input.

    transform  None where the file has none
    bands      of the bands that are restored, in their order
    tags       domain ('' is the default one) -> key -> text
    """

    crs: Any | None = None
    transform: Affine | None = None
    points: Sequence[GroundControlPoint] = ()
    points_crs: Any | None = None
    rpcs: RPC | None = None
    tags: Mapping[str, Tags] = field(default_factory=dict)
    bands: Sequence[BandMetadata] = ()

    @property
    def is_placed(self) -> bool:
        """Whether the file says where on the ground its pixels lie."""
        return self.crs is not None or self.transform is not None or bool(self.points) or self.rpcs is not None

    def enlarged_transform(self, scale: float) -> Affine | None:
        """Return the transform of target pixels; a file with a CRS alone counts input pixels, and so does its enlargement."""
        if self.transform is None and (self.crs is None or self.points):
            return None
        own = self.transform or Affine.identity()
        return own @ Affine.scale(1 / scale)

    def flat(self) -> Metadata:
        """Return the same with all tags in the default domain, as DOMAIN#KEY: GDAL's COG driver drops other domains, or band tags."""

        def merged(tags: Mapping[str, Tags]) -> dict[str, Tags]:
            flat = {f"{d}#{key}" if d else key: text for d, found in tags.items() if d != _PROFILE for key, text in found.items()}
            return {"": flat, **{domain: found for domain, found in tags.items() if domain == _PROFILE}}

        return replace(self, tags=merged(self.tags), bands=[replace(band, tags=merged(band.tags)) for band in self.bands])

    def of_window(self, top: int, left: int) -> Metadata:
        """Return what is said of the part that begins at a row and a column."""
        if not top and not left:
            return self
        points = [GroundControlPoint(row=p.row - top, col=p.col - left, x=p.x, y=p.y, z=p.z, id=p.id, info=p.info) for p in self.points]
        rpcs = self.rpcs
        if rpcs is not None:
            values = rpcs.to_dict()
            rpcs = RPC(**{**values, "line_off": values["line_off"] - top, "samp_off": values["samp_off"] - left})
        moved = None if self.transform is None else self.transform @ Affine.translation(left, top)
        if moved is None and self.crs is not None and not points:
            moved = Affine.translation(left, top)
        return replace(self, transform=moved, points=points, rpcs=rpcs)

    def common_scale(self) -> tuple[float, float, str] | None:
        """Return (scale, offset, unit) where all bands have the same, else None."""
        found = {(band.scale, band.offset, band.unit) for band in self.bands}
        return found.pop() if len(found) == 1 else None


def read_metadata(file: Any | None, bands: Sequence[int], as_stored: Affine | None = None) -> Metadata:
    """Return what a GDAL data set says; nothing where there is none.

    bands      numbers of the restored bands, counted from 1; those that the file does not have (colours of a palette) say nothing
    as_stored  maps pixels as they are read to pixels as the file stores them, where a picture was turned upright
    """
    if file is None:
        return Metadata(bands=[BandMetadata()] * len(bands))
    turn = as_stored or Affine.identity()
    points, crs = file.gcps
    palette = file.count == 1 and file.colorinterp[0] == ColorInterp.palette
    return Metadata(
        crs=file.crs,
        transform=None if file.transform.is_identity else file.transform @ turn,
        points=points if turn.is_identity else (),
        points_crs=crs,
        rpcs=file.rpcs if turn.is_identity else None,
        tags=_tags(file, 0),
        bands=[BandMetadata(kind=kind) for kind in _colours(bands)] if palette else [_band(file, band) for band in bands],
    )


def _colours(bands: Sequence[int]) -> list[ColorInterp]:
    """Return what the bands of an expanded palette are; of the bands of a file of 1 bit there is one, which is grey."""
    kinds = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    return [ColorInterp.gray] if max(bands) == 1 else [kinds[band - 1] for band in bands]


def _band(file: Any, band: int) -> BandMetadata:
    return BandMetadata(
        description=file.descriptions[band - 1] or "",
        unit=file.units[band - 1] or "",
        scale=float(file.scales[band - 1]),
        offset=float(file.offsets[band - 1]),
        kind=file.colorinterp[band - 1],
        tags=_tags(file, band),
    )


def _tags(file: Any, band: int) -> dict[str, dict[str, str]]:
    """Return the tags of a data set (band 0) or band by domain, without those that hold for the input alone."""
    domains = ["", *(name for name in file.tag_namespaces(band) if name not in _WRONG_DOMAINS and not name.startswith("xml:"))]
    found: dict[str, dict[str, str]] = {}
    for domain in domains:
        tags = file.tags(band, **({"ns": domain} if domain else {}))
        kept = {key: text for key, text in tags.items() if key not in _WRONG_KEYS and not key.startswith(_WRONG_STARTS)}
        if kept:
            found[domain] = kept
    return found


def write_metadata(file: Any, metadata: Metadata, scale: float, keeps_bands: bool, tags: Tags) -> None:
    """Write metadata into an open raster of the enlargement; its profile has CRS and transform already.

    keeps_bands  whether the bands of the raster are those of the input, so that what is said of them holds
    """
    for domain, found in metadata.tags.items():
        file.update_tags(**({"ns": domain} if domain else {}), **found)
    file.update_tags(**tags)
    common = metadata.common_scale()
    if keeps_bands:
        for number, band in enumerate(metadata.bands, 1):
            file.set_band_description(number, band.description)
            for domain, found in band.tags.items():
                file.update_tags(number, **({"ns": domain} if domain else {}), **found)
        _write_scales(file, [(band.scale, band.offset, band.unit) for band in metadata.bands])
    elif common is not None:
        _write_scales(file, [common] * file.count)
    if metadata.points:
        file.gcps = [scaled_point(point, scale) for point in metadata.points], metadata.points_crs
    if metadata.rpcs is not None:
        file.rpcs = scaled_rpcs(metadata.rpcs, scale)


def _write_scales(file: Any, found: Sequence[tuple[float, float, str]]) -> None:
    """Write scale, offset and unit of the bands; an alpha band beyond them has none."""
    padded = [*found, *[(1.0, 0.0, "")] * (file.count - len(found))]
    if any(entry != (1.0, 0.0, "") for entry in padded):
        file.scales = tuple(entry[0] for entry in padded)
        file.offsets = tuple(entry[1] for entry in padded)
        file.units = tuple(entry[2] for entry in padded)


def scaled_point(point: GroundControlPoint, scale: float) -> GroundControlPoint:
    """Return a ground control point in target pixels; rows and columns count from the corner of the first pixel."""
    return GroundControlPoint(row=point.row * scale, col=point.col * scale, x=point.x, y=point.y, z=point.z, id=point.id, info=point.info)


def scaled_rpcs(rpcs: RPC, scale: float) -> RPC:
    """Return rational polynomials in target pixels; their offsets count from the centre of the first pixel."""
    values = rpcs.to_dict()
    for axis in ("line", "samp"):
        values[f"{axis}_off"] = (values[f"{axis}_off"] + 0.5) * scale - 0.5
        values[f"{axis}_scale"] = values[f"{axis}_scale"] * scale
    return RPC(**values)
