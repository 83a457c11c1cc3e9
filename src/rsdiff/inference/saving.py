"""Images that evaluations keep: restored ones in the type of the data, and maps of their detail, georeferenced where the data are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from torch import Tensor

from rsdiff.data.durable import write_whole
from rsdiff.data.normalisation import as_integers
from rsdiff.data.opening import without_warnings
from rsdiff.data.sample import SampleMeta
from rsdiff.data.source import ImageSource, Window
from rsdiff.inference.images import Restored
from rsdiff.metrics.opensr import CLASSES


def save_image(source: ImageSource, restored: Restored, position: int, folder: Path) -> None:
    """Write one image of a batch in the units and the type of the data: PNG for pictures in 8 bits, GeoTIFF for all else."""
    meta = restored.batch.metas[position]
    stored = source.raw(meta.index, Window(0, 0, 1, 1)).arrays
    dtype = stored["hr" if "hr" in stored else "lr"].dtype
    image = source.normaliser.restore(restored.image[position].cpu().numpy())
    values = as_integers(image, dtype) if dtype.kind in "iu" else image.astype(dtype)
    is_picture = meta.georeference is None and dtype == np.uint8 and len(values) in (1, 3)
    save_raster(folder / f"{meta.name}.{'png' if is_picture else 'tif'}", values, meta)


def save_maps(maps: Tensor | None, meta: SampleMeta, folder: Path) -> None:
    """Write the maps (3, H, W) of an image's detail as a GeoTIFF of real numbers, with the band's names; nothing where there are none."""
    if maps is not None:
        save_raster(folder / f"{meta.name}.tif", maps.cpu().numpy(), meta, CLASSES)


def save_raster(path: Path, values: NDArray[Any], meta: SampleMeta, names: tuple[str, ...] = ()) -> None:
    """Write an image (C, H, W) where its sample lies: PNG by its name, else GeoTIFF."""
    form: dict[str, Any] = {"driver": "PNG" if path.suffix == ".png" else "GTiff", "count": len(values), "dtype": values.dtype.name}
    form |= {"height": values.shape[1], "width": values.shape[2]}
    if meta.georeference is not None:
        form |= {"crs": meta.georeference.crs, "transform": Affine(*meta.georeference.transform)}
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(place: Path) -> None:
        with without_warnings(), rasterio.open(place, "w", **form) as file:
            file.write(values)
            for band, name in enumerate(names, start=1):
                file.set_band_description(band, name)

    write_whole(path, write)
