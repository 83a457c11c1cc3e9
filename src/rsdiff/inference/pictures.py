"""Images as people hold them in Python, and back: NumPy and PyTorch arrays, Pillow images, rasterio data sets, xarray arrays.

What is missing is marked as each of them does: masks of NumPy, NaN and infinity, masks and nodata of rasterio, _FillValue of xarray.
xarray is not required: an object is taken for one of its arrays by its attributes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import rasterio
import rasterio.shutil
import torch
from affine import Affine
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from rsdiff.config import UserError
from rsdiff.data.normalisation import as_integers

Layout = Literal["HWC", "CHW"]
Values = NDArray[Any]


Mask = NDArray[np.bool_]
_STORED_AS = ("_FillValue", "missing_value", "scale_factor", "add_offset", "dtype", "units", "calendar", "grid_mapping")
"""What holds of xarray's encoding whatever the size is."""
_SIDES = (("y", "x"), ("lat", "lon"), ("latitude", "longitude"), ("Y", "X"), ("northing", "easting"))
"""Names of an xarray's dimensions down and across an image."""


@dataclass(frozen=True)
class Picture:
    """An image taken apart.

    values     (C, H, W), stored values, in the byte order of this machine
    back       makes an image of the kind that was given of (C, H, W) values, which of them are valid, and a `Picture` that says where
               it lies
    mask       (C, H, W), True for pixels that are valid as far as a mask says, or None
    crs        coordinate system as rasterio reads it, or None
    transform  pixel (column, row) -> (x, y)
    nodata     stored value that marks missing pixels, or None
    meaning    (scale, offset): what a stored value means is value * scale + offset
    data_set   the open data set that was given, which knows more
    """

    values: Values
    back: Callable[[Values, Mask, Picture], Any]
    mask: Mask | None = None
    crs: Any = None
    transform: Affine = Affine.identity()  # noqa: RUF009 - it is immutable
    nodata: float | None = None
    meaning: tuple[float, float] = (1.0, 0.0)
    data_set: rasterio.io.DatasetReaderBase | None = None

    @property
    def valid(self) -> Mask:
        """Which values (C, H, W) are known."""
        known: Mask = np.ones(self.values.shape, np.bool_) if self.mask is None else self.mask
        if self.values.dtype.kind == "f":
            known = known & np.isfinite(self.values)
        if self.nodata is not None and not np.isnan(self.nodata):
            known = known & (self.values != self.nodata)
        return known

    def at(self, size: tuple[int, int]) -> Picture:
        """Return where the same area lies when it has `size` (H, W) pixels."""
        H, W = self.values.shape[1:]
        return replace(self, transform=self.transform @ Affine.scale(W / size[1], H / size[0]))

    def made(self, values: Values, valid: Mask | None = None) -> Any:
        """Return an image of the kind that was given, of the same area, with `values` (C, H, W); None: all of them are valid."""
        known: Mask = np.ones(values.shape, np.bool_) if valid is None else valid
        marker = self.nodata if self.nodata is not None else np.nan if values.dtype.kind == "f" else None
        if marker is not None and not known.all():
            values = np.where(known, values, values.dtype.type(marker))
        return self.back(values, known, self.at((values.shape[1], values.shape[2])))

    def write(self, path: Path) -> None:
        """Write the image as a GeoTIFF that tells what is missing."""
        if self.data_set is not None:
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                rasterio.shutil.copy(self.data_set, path, driver="GTiff")
            return
        values, nodata = self.values, self.nodata
        if self.mask is not None and not self.mask.all():
            nodata = marker_of(values, self.mask) if nodata is None else nodata
            values = np.where(self.mask, values, values.dtype.type(nodata))
        with rasterio.open(path, "w", **_profile(values, self, nodata)) as file:
            file.write(values)
            if self.meaning != (1.0, 0.0):
                file.scales, file.offsets = ((value,) * file.count for value in self.meaning)

    def read_back(self, path: Path, dtype: np.dtype[Any] | None = None) -> Any:
        """Return what a restoration wrote at `path` as an image of the kind that was given, of `dtype` (None: as it is stored)."""
        if self.data_set is not None:
            memory = MemoryFile()
            memory.write(path.read_bytes())  # given to its constructor, the bytes would not outlive it
            return memory.open()
        with rasterio.open(path) as file:
            values, valid = file.read(), file.read_masks() > 0
        if values.dtype.kind == "f":
            valid &= np.isfinite(values)
        values = values if dtype is None else values.astype(dtype)
        return self.back(values, valid, self.at((values.shape[1], values.shape[2])))


def marker_of(values: Values, valid: Mask) -> float:
    """Return a value that no valid pixel has, to mark those that are missing; raises UserError where a type of integers has none left."""
    if values.dtype.kind == "f":
        return float("nan")
    limits = np.iinfo(values.dtype)
    taken = set(np.unique(values[valid]).tolist())
    free = next((value for value in range(limits.max, max(limits.min, limits.max - len(taken)) - 1, -1) if value not in taken), None)
    if free is None:
        raise UserError(f"the known pixels of a masked image have all values of {values.dtype}; give it in a wider type.")
    return float(free)


def _profile(values: Values, place: Picture, nodata: float | None) -> dict[str, Any]:
    """Return what rasterio needs to write values (C, H, W) as a GeoTIFF; GDAL would take the fourth of four 8-bit bands for alpha."""
    count, height, width = values.shape
    form = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype.name, "photometric": "minisblack"}
    return {**form, "crs": place.crs, "transform": place.transform, "nodata": nodata}


def picture_of(image: Any, layout: Layout = "HWC") -> Picture:
    """Take an image apart.

    image   a NumPy array (H, W) or as `layout` says, a tensor (H, W) or (C, H, W), a Pillow image, an open rasterio data set, an xarray
            DataArray with the dimensions y and x
    Raises UserError in one sentence for anything else.
    """
    found = _taken_apart(image, layout)
    if not found.values.size:
        bands, height, width = found.values.shape
        raise UserError(f"an image of {height} x {width} pixels and {bands} bands was given; give one with pixels.")
    return found


def _taken_apart(image: Any, layout: Layout) -> Picture:
    if isinstance(image, torch.Tensor):
        return _of_tensor(image)
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    if isinstance(image, rasterio.io.DatasetReaderBase):
        return _of_data_set(image)
    if isinstance(image, np.ndarray):
        return _of_array(image, layout)
    if hasattr(image, "data_vars"):
        raise UserError(
            "an xarray Dataset was given; take one variable (dataset['NAME']), or its variables as bands (dataset.to_array('band'))."
        )
    if hasattr(image, "dims") and hasattr(image, "coords") and hasattr(image, "transpose"):
        return _of_data_array(image)
    hint = "open it first (PIL.Image.open, rasterio.open), or use task=restore" if isinstance(image, str | Path) else "convert it first"
    raise UserError(f"an image of type {type(image).__name__} was given; give a NumPy array, a tensor, a Pillow image, ...: {hint}.")


def _of_array(image: Values, layout: Layout) -> Picture:
    if layout not in get_args(Layout):
        raise UserError(f"layout={layout!r} was given; give 'HWC' or 'CHW'.")
    if image.ndim not in (2, 3):
        raise UserError(f"an array of shape {image.shape} is no image; give (H, W), (H, W, C), or (C, H, W) with layout='CHW'.")
    if layout == "HWC" and image.ndim == 3 and image.shape[0] <= 4 < min(image.shape[1:]):
        raise UserError(
            f"an array of shape {image.shape} looks channels first; give layout='CHW' (of an image of {image.shape[0]} rows, give "
            "image.transpose(2, 0, 1) with it)."
        )

    def first(array: Values) -> Values:
        return array[None] if array.ndim == 2 else array if layout == "CHW" else array.transpose(2, 0, 1)

    def back(made: Values, valid: Mask, _: Picture) -> Values:
        found = np.ma.MaskedArray(made, ~valid) if isinstance(image, np.ma.MaskedArray) else made
        if image.ndim == 2 and len(found) == 1:
            return found[0]
        return found if image.ndim == 3 and layout == "CHW" else found.transpose(1, 2, 0).copy()

    plain = np.asarray(image.data if isinstance(image, np.ma.MaskedArray) else image)
    mask = ~first(np.ma.getmaskarray(image)) if isinstance(image, np.ma.MaskedArray) else None
    return Picture(_native(first(plain)), back, mask)


def _native(values: Values) -> Values:
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _of_tensor(image: torch.Tensor) -> Picture:
    if image.ndim not in (2, 3):
        raise UserError(f"a tensor of shape {tuple(image.shape)} is no image; give (H, W) or (C, H, W).")
    flat = image.ndim == 2
    is_brief = image.dtype == torch.bfloat16  # which NumPy does not know
    values = (image.float() if is_brief else image).detach().cpu().numpy()

    def back(made: Values, _: Mask, place: Picture) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(made)).to(image.device, image.dtype if is_brief else None)
        return tensor[0] if flat and len(tensor) == 1 else tensor

    return Picture(values[None] if flat else values, back)


def _of_pillow(image: Image.Image) -> Picture:
    if image.mode not in ("L", "RGB", "I;16", "I", "F", "LA", "RGBA"):
        raise UserError(f"a Pillow image of mode {image.mode} was given; convert it: image.convert('RGB') or image.convert('L').")
    upright = ImageOps.exif_transpose(image)
    alpha = upright.getchannel("A") if "A" in upright.mode else None  # what is wholly transparent is missing
    values = np.asarray(upright.convert(upright.mode.removesuffix("A")))

    def back(made: Values, valid: Mask, place: Picture) -> Image.Image:
        rounds = made.dtype.kind == "f" and values.dtype.kind != "f"
        pixels = as_integers(made, values.dtype) if rounds else made.astype(values.dtype)
        found = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        if alpha is not None:
            height, width = place.values.shape[1:]
            opaque = np.asarray(alpha.crop((0, 0, width, height)).resize(found.size, Image.Resampling.BILINEAR))
            found.putalpha(Image.fromarray(np.where(valid.any(0), opaque, np.uint8(0))))
        if "icc_profile" in image.info:
            found.info["icc_profile"] = image.info["icc_profile"]
        return found

    mask = None if alpha is None else np.broadcast_to(np.asarray(alpha) > 0, (1 if values.ndim == 2 else 3, *values.shape[:2]))
    return Picture(values[None] if values.ndim == 2 else values.transpose(2, 0, 1), back, mask)


def _of_data_set(file: rasterio.io.DatasetReaderBase) -> Picture:
    if file.closed or "r" not in file.mode:
        raise UserError(f"the rasterio data set {file.name} is {'closed' if file.closed else 'open for writing'}; open it for reading.")
    bands = [band for band, kind in enumerate(file.colorinterp, 1) if kind != ColorInterp.alpha] or list(file.indexes)
    values = file.read(bands)
    valid = file.read_masks(bands) > 0
    for position, band in enumerate(bands):
        nodata = file.nodatavals[band - 1]
        if nodata is not None and not np.isnan(nodata):
            valid[position] &= values[position] != nodata
    return Picture(values, _data_set, None if valid.all() else valid, file.crs, file.transform, file.nodata, data_set=file)


def _data_set(values: Values, valid: Mask, place: Picture) -> rasterio.io.DatasetReader:
    """Return an open data set that lies in memory; it is closed like any other."""
    memory = MemoryFile()
    nodata = place.nodata
    if nodata is None and not valid.all():
        nodata = marker_of(values, valid)
        values = np.where(valid, values, values.dtype.type(nodata))
    with memory.open(**_profile(values, place, nodata)) as file:
        file.write(values)
    return memory.open()


def _of_data_array(image: Any) -> Picture:
    dims = [str(dim) for dim in image.dims]
    y, x = next((pair for pair in _SIDES if set(pair) <= set(dims)), ("", ""))
    others = [dim for dim in dims if dim not in (y, x)]
    if not y or len(others) > 1:
        advice = f"choose one image: array.isel({others[0]}=0)" if y else "name them y, x and, for bands, any third name"
        raise UserError(f"a DataArray with the dimensions {', '.join(dims)} was given; {advice}.")
    band = others[0] if others else None
    ordered = image.transpose(*others, y, x)
    values = np.asarray(ordered.values)
    crs = getattr(getattr(image, "rio", None), "crs", None)  # where rioxarray is in use

    def back(made: Values, _: Mask, place: Picture) -> Any:
        xarray = sys.modules["xarray"]
        kept = {name: value for name, value in image.coords.items() if not {y, x} & {str(dim) for dim in value.dims}}
        used = {y: place.values.shape[1], x: place.values.shape[2]}
        sizes = {y: made.shape[1], x: made.shape[2]}
        finer = Affine.scale(used[x] / sizes[x], used[y] / sizes[y])
        for name, value in kept.items():
            if "GeoTransform" in value.attrs:  # of rioxarray, which believes it more than the coordinates
                moved = Affine.from_gdal(*map(float, str(value.attrs["GeoTransform"]).split())) @ finer
                kept[name] = value.assign_attrs(GeoTransform=" ".join(map(str, moved.to_gdal())))
        attrs = dict(image.attrs)
        if "transform" in attrs:
            attrs["transform"] = tuple(Affine(*attrs["transform"][:6]) @ finer)[:6]
        if band is not None and len(made) != image.sizes[band]:
            kept.pop(band, None)
        fresh = {side: ((side,), _centres(image, side, used[side], count)) for side, count in sizes.items() if side in image.coords}
        data = made if band else made[0]
        found = xarray.DataArray(data, dims=[*others, y, x], coords={**kept, **fresh}, attrs=attrs, name=image.name)
        found.encoding = {name: image.encoding[name] for name in _STORED_AS if name in image.encoding}
        return found.transpose(*dims)

    transform = Affine.identity()
    if all(side in image.coords and image.sizes[side] > 1 for side in (y, x)):
        (x0, dx), (y0, dy) = (_grid(image, side) for side in (x, y))
        transform = Affine.translation(x0 - dx / 2, y0 - dy / 2) @ Affine.scale(dx, dy)
    marker = image.attrs.get("_FillValue", image.attrs.get("missing_value"))
    return Picture(
        _native(values if band else values[None]),
        back,
        crs=crs,
        transform=transform,
        nodata=None if marker is None else float(marker),
        meaning=(float(image.attrs.get("scale_factor", 1.0)), float(image.attrs.get("add_offset", 0.0))),
    )


def _grid(image: Any, side: str) -> tuple[float, float]:
    """Return the first coordinate of a side and its step."""
    along = np.asarray(image.coords[side].values, dtype=float)
    return float(along[0]), float((along[-1] - along[0]) / (len(along) - 1))


def _centres(image: Any, side: str, used: int, count: int) -> NDArray[np.float64]:
    """Return the pixel centres of `count` pixels over the extent of the first `used`."""
    first, step = _grid(image, side) if image.sizes[side] > 1 else (float(image.coords[side].values[0]), 1.0)
    finer = used / count
    places = finer * (np.arange(count, dtype=np.float64) + 0.5) - 0.5  # of the fine pixels, counted in coarse ones
    along = np.asarray(image.coords[side].values, dtype=float)
    even: NDArray[np.float64] = first + step * places
    if len(along) < 2 or np.allclose(np.diff(along), step, rtol=1e-3):
        return even
    left = np.clip(np.floor(places).astype(int), 0, len(along) - 2)  # of uneven coordinates between, or beyond, the two nearest
    uneven: NDArray[np.float64] = along[left] + (places - left) * (along[left + 1] - along[left])
    return uneven
