"""Opening files with GDAL: which drivers may look at a file, what a mosaic may refer to, and errors in one sentence."""

from __future__ import annotations

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any
from xml.etree import ElementTree

import rasterio
import rasterio.errors
from PIL import Image, UnidentifiedImageError
from rasterio.io import DatasetReader

from rsdiff.data.source import DataError

_REFERRING = frozenset(
    {"VRT", "WMS", "WMTS", "WCS", "HTTP", "GTI", "STACIT", "STACTA", "PLMOSAIC", "DAAS", "EEDA", "EEDAI", "DERIVED", "Rasterlite", "MRF"}
    | {"PDF", "KMLSUPEROVERLAY", "MEM", "Memory", "MBTiles", "GPKG", "SQLite", "OZI", "MAP", "ESRIC", "OSM", "GNMFile", "GNMDatabase"}
)
_REACHES_OUT = re.compile(r"/vsi|\w+://|<GDAL_WMS", re.IGNORECASE)
_ARCHIVES = ("/vsizip/", "/vsitar/", "/vsigzip/", "/vsi7z/")
_PAGED = ("GTiff", "NITF")
"""Formats of which GDAL opens the first of several images without a word."""
_NEVER_OPENED = frozenset({"metadata", "srs", "gcplist", "colortable", "categorynames", "description", "unittype"})
"""Elements of a mosaic that are only told; a DOI of the product, say, stands in its metadata."""


def open_raster(path: Path, variable: str = "", driver: str | None = None) -> Any:
    """Open a file with GDAL for reading; a context manager.

    driver    GDAL's name of the format, where it is known; the others are not tried then
    variable  which sub-data set of a container (netCDF, Sentinel-2 product, ...): the last part of its name, or any part that only it has
    Formats that fetch their pixels from elsewhere (other files, servers) are not tried: an image from a stranger must not make this
    machine read or ask for anything but itself. A mosaic of own files is opened by its name, *.vrt, unless it opens servers or code.
    """
    _silence()
    if path.suffix.lower() == ".vrt" and not is_in_archive(path):
        state = path.stat()
        require_own_files(path, state.st_size, state.st_mtime_ns)
        return rasterio.open(path, driver="VRT")
    name = gdal_name(path)
    # rasterio.open takes one driver, or all of them; what it returns takes a list
    with rasterio.env.env_ctx_if_needed():
        file = DatasetReader(name, driver=[driver] if driver else _drivers())
        names = list(file.subdatasets)
        has_pages = len(names) > 1 and file.driver in _PAGED
        if not names or (file.count and not variable and not has_pages):
            return file
        with file:
            chosen = _sub_data_set(names, path, variable)
        return DatasetReader(chosen, driver=_drivers())


def open_netcdf(path: Path, variable: str = "") -> Any:
    """Open a netCDF file, or an HDF5 file that follows its conventions, with GDAL's driver for them, whatever its ending."""
    _silence()
    with rasterio.env.env_ctx_if_needed():
        file = DatasetReader(f'NETCDF:"{path}"', driver=["netCDF"])
        if file.count and not variable:
            return file
        names = list(file.subdatasets)
        if not names:
            return file
        with file:
            chosen = _sub_data_set(names, path, variable)
        return DatasetReader(chosen, driver=["netCDF"])


def _sub_data_set(names: list[str], path: Path, variable: str) -> str:
    """Return the name of the sub-data set that `variable` means; raises DataError that lists them where it means none or several."""
    parts = {name: [part.strip('"') for part in re.split(r"[:/]+", name.replace(gdal_name(path), "")) if part] for name in names}
    found = [name for name in names if parts[name][-1] == variable] or [name for name in names if variable and variable in parts[name]]
    if len(found) == 1:
        return found[0]
    common = set.intersection(*(set(own) for own in parts.values())) if len(names) > 1 else set()
    listed = ", ".join(":".join(part for part in own if part not in common) or own[-1] for own in list(parts.values())[:12])
    raise DataError(f"{path} holds {len(names)} rasters ({listed}); choose one with task.variable=NAME (data sets: dataset.variable).")


def is_in_archive(path: Path) -> bool:
    """Say whether a path names a file inside an archive, as GDAL writes it: /vsizip/archive.zip/scene.tif."""
    return path.as_posix().startswith(_ARCHIVES)


def local_file(path: Path) -> Path:
    """Return the file on the disk that a path means: itself, or the archive that it names a part of."""
    if not is_in_archive(path):
        return path
    inside = path.as_posix().split("/", 2)[2].strip("{}")
    for whole in (Path("/") / inside, Path(inside)):
        found = next((parent for parent in (whole, *whole.parents) if parent.is_file()), None)
        if found is not None:
            return found
    return Path(inside)


def gdal_name(path: Path) -> str:
    """Return a path as GDAL takes it; a path into an archive of this disk keeps the slash that pathlib drops."""
    if not is_in_archive(path):
        return str(path)
    kind, inside = path.as_posix()[1:].split("/", 1)
    return f"/{kind}//{inside}" if local_file(path).is_absolute() else f"/{kind}/{inside}"


@lru_cache(maxsize=256)
def require_own_files(path: Path, size: int, changed: int) -> None:
    """Raise DataError where a mosaic opens servers, archives or code, by itself or by a mosaic among its parts.

    size, changed  the file's state: it is looked at again when it is another one
    """
    text = path.read_text(errors="replace")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        opened = [text]  # GDAL reads much that is no XML; then all of it counts
    else:
        opened = list(_opened(root))
    if any(_REACHES_OUT.search(part) for part in opened) or "pixelfunction" in "".join(opened).lower():
        raise DataError(f"{path} refers to servers, archives or code, which are not followed; build it anew of files on this disk.")
    for part in opened:
        inner = path.parent / part.strip()
        if part.strip() and len(part) < 4096 and inner != path and inner.is_file() and _is_text(inner):
            state = inner.stat()
            require_own_files(inner, state.st_size, state.st_mtime_ns)


def _opened(element: ElementTree.Element) -> Iterator[str]:
    """Yield names, texts and attributes of a mosaic, but what only describes it; element names in any case of letters, as GDAL has them."""
    name = element.tag.rsplit("}", 1)[-1].lower()
    if name in _NEVER_OPENED and not any("vrt" in str(inner.tag).lower() for inner in element.iter()):
        return
    yield f"<{name}>" if "pixelfunction" in name else ""
    yield element.text or ""
    yield from element.attrib.values()
    for inner in element:
        yield from _opened(inner)
        yield inner.tail or ""


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip().startswith(b"<")


def _silence() -> None:
    """Keep GDAL's own messages off the console: what they say becomes the one sentence of the error."""
    logger = logging.getLogger("rasterio")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)


@cache
def _drivers() -> list[str]:
    """Return GDAL's drivers for files that hold their own pixels, or find them beside themselves."""
    with rasterio.Env() as environment:
        return sorted(set(environment.drivers()) - _REFERRING)


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
    """Turn what the readers raise about `path` into DataError in one sentence; GDAL says nothing on the console meanwhile."""
    _silence()
    try:
        with rasterio.env.env_ctx_if_needed():  # without an environment, GDAL writes its warnings to stderr by itself
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
        if path.suffix.lower() == ".npz":
            raise DataError(f"{path} is an archive of arrays; save the image alone with numpy.save, as .npy.") from None
        if "not recognized" in str(error) or isinstance(error, UnidentifiedImageError):
            raise DataError(f"{path} is not an image of a known format; delete it, or convert it to PNG or GeoTIFF.") from None
        raise _broken(path, error) from None
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, ZeroDivisionError) as error:
        raise _broken(path, error) from None
    except (EOFError, RuntimeError, struct.error, zlib.error, TokenError, rasterio.errors.RasterioError) as error:
        raise _broken(path, error) from None
    except Exception as error:
        if type(error).__name__ != "MatReadError":  # of scipy.io, which only the readers of .mat files import
            raise
        raise _broken(path, error) from None


def _broken(path: Path, error: BaseException) -> DataError:
    cause = error.__cause__ or error
    first_line = str(cause).strip().splitlines()[0][:120] if str(cause).strip() else type(error).__name__
    return DataError(f"{path} is truncated or damaged ({first_line.rstrip('.')}); copy it again or delete it.")
