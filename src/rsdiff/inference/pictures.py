"""Images as people hold them in Python, and back: NumPy and PyTorch arrays, Pillow images, rasterio data sets, xarray arrays.

xarray is not required: an object is taken for one of its arrays by its attributes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.io import MemoryFile

from rsdiff.config import UserError

Layout = Literal["HWC", "CHW"]
Values = NDArray[Any]


@dataclass(frozen=True)
class Picture:
    """An image taken apart.

    values     (C, H, W), stored values
    back       makes an image of the kind that was given of (C, H, W) values and a `Picture` that says where it lies
    crs        coordinate system as rasterio reads it, or None
    transform  pixel (column, row) -> (x, y)
    nodata     stored value that marks missing pixels, or None
    """

    values: Values
    back: Callable[[Values, Picture], Any]
    crs: Any = None
    transform: Affine = Affine.identity()  # noqa: RUF009 - it is immutable
    nodata: float | None = None

    def at(self, size: tuple[int, int]) -> Picture:
        """Return where the same area lies when it has `size` (H, W) pixels."""
        H, W = self.values.shape[1:]
        return replace(self, transform=self.transform * Affine.scale(W / size[1], H / size[0]))

    def made(self, values: Values) -> Any:
        """Return an image of the kind that was given, of the same area, with `values` (C, H, W)."""
        return self.back(values, self.at((values.shape[1], values.shape[2])))


def picture_of(image: Any, layout: Layout = "HWC") -> Picture:
    """Take an image apart.

    image   a NumPy array (H, W) or as `layout` says, a tensor (H, W) or (C, H, W), a Pillow image, an open rasterio data set, an xarray
            DataArray with the dimensions y and x
    Raises UserError in one sentence for anything else.
    """
    if isinstance(image, torch.Tensor):
        return _of_tensor(image)
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    if isinstance(image, rasterio.io.DatasetReader):
        return Picture(image.read(), _data_set, image.crs, image.transform, image.nodata)
    if isinstance(image, np.ndarray):
        return _of_array(image, layout)
    if hasattr(image, "dims") and hasattr(image, "coords") and hasattr(image, "transpose"):
        return _of_data_array(image)
    hint = "open it first (PIL.Image.open, rasterio.open), or use task=restore" if isinstance(image, str | Path) else "convert it first"
    raise UserError(f"an image of type {type(image).__name__} was given; give a NumPy array, a tensor, a Pillow image, ...: {hint}.")


def _of_array(image: Values, layout: Layout) -> Picture:
    if image.ndim not in (2, 3):
        raise UserError(f"an array of shape {image.shape} is no image; give (H, W), (H, W, C), or (C, H, W) with layout='CHW'.")
    if image.ndim == 2:
        return Picture(image[None], lambda values, _: values[0] if len(values) == 1 else values.transpose(1, 2, 0))
    if layout == "CHW":
        return Picture(image, lambda values, _: values)
    return Picture(image.transpose(2, 0, 1), lambda values, _: np.ascontiguousarray(values.transpose(1, 2, 0)))


def _of_tensor(image: torch.Tensor) -> Picture:
    if image.ndim not in (2, 3):
        raise UserError(f"a tensor of shape {tuple(image.shape)} is no image; give (H, W) or (C, H, W).")
    flat = image.ndim == 2
    values = image.detach().cpu().numpy()

    def back(made: Values, _: Picture) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(made)).to(image.device)
        return tensor[0] if flat and len(tensor) == 1 else tensor

    return Picture(values[None] if flat else values, back)


def _of_pillow(image: Image.Image) -> Picture:
    if image.mode not in ("L", "RGB", "I;16"):
        raise UserError(f"a Pillow image of mode {image.mode} was given; convert it: image.convert('RGB') or image.convert('L').")
    values = np.asarray(image)

    def back(made: Values, _: Picture) -> Image.Image:
        if made.dtype.kind == "f":  # a spread
            made = (made * (255 if made.max(initial=0) <= 1 else 1)).round()
        pixels = made.astype(values.dtype)
        return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))

    return Picture(values[None] if values.ndim == 2 else values.transpose(2, 0, 1), back)


def _data_set(values: Values, place: Picture) -> rasterio.io.DatasetReader:
    """Return an open data set that lies in memory; it is closed like any other."""
    memory = MemoryFile()
    count, H, W = values.shape
    form = {"driver": "GTiff", "count": count, "height": H, "width": W, "dtype": values.dtype.name}
    with memory.open(**form, crs=place.crs, transform=place.transform, nodata=place.nodata) as file:
        file.write(values)
    return memory.open()


def _of_data_array(image: Any) -> Picture:
    dims = [str(dim) for dim in image.dims]
    if not {"y", "x"} <= set(dims) or len(dims) > 3:
        raise UserError(f"a DataArray with the dimensions {', '.join(dims)} was given; name them y, x and, for bands, any third name.")
    band = next((dim for dim in dims if dim not in ("y", "x")), None)
    ordered = image.transpose(*([band] if band else []), "y", "x")
    values = np.asarray(ordered.values)
    crs = getattr(getattr(image, "rio", None), "crs", None)  # where rioxarray is in use

    def back(made: Values, place: Picture) -> Any:
        xarray = sys.modules["xarray"]
        kept = {name: value for name, value in image.coords.items() if not {"y", "x"} & {str(dim) for dim in value.dims}}
        if band is not None and len(made) != image.sizes[band]:
            kept.pop(band, None)
        sizes = {"y": made.shape[1], "x": made.shape[2]}
        fresh = {side: ((side,), _centres(image, side, count)) for side, count in sizes.items() if side in image.coords}
        data = made if band else made[0]
        found = xarray.DataArray(
            data, dims=([band] if band else []) + ["y", "x"], coords={**kept, **fresh}, attrs=image.attrs, name=image.name
        )
        return found.transpose(*dims)

    transform = Affine.identity()
    if all(side in image.coords and image.sizes[side] > 1 for side in ("y", "x")):
        (x0, dx), (y0, dy) = (_grid(image, side) for side in ("x", "y"))
        transform = Affine.translation(x0 - dx / 2, y0 - dy / 2) * Affine.scale(dx, dy)
    return Picture(values if band else values[None], back, crs, transform, image.attrs.get("_FillValue"))


def _grid(image: Any, side: str) -> tuple[float, float]:
    """Return the first coordinate of a side and its step."""
    along = np.asarray(image.coords[side].values, dtype=float)
    return float(along[0]), float((along[-1] - along[0]) / (len(along) - 1))


def _centres(image: Any, side: str, count: int) -> NDArray[np.float64]:
    """Return the pixel centres of `count` pixels over the same extent."""
    first, step = _grid(image, side) if image.sizes[side] > 1 else (float(image.coords[side].values[0]), 1.0)
    finer = step * image.sizes[side] / count
    return first - step / 2 + finer * (np.arange(count) + 0.5)
