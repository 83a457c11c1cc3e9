"""Data set `hyperspectral`: cubes in any file that `rasters` reads; one large scene is divided into a training and a test region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rsdiff.config import config
from rsdiff.data.files import FileSource, Item, list_images
from rsdiff.data.folder import SplitOptions, check_root, choose_items, folder_of, list_items, no_images, open_split
from rsdiff.data.normalisation import NormaliserConfig
from rsdiff.data.opening import without_warnings
from rsdiff.data.packed import is_packed
from rsdiff.data.rasters import bad_bands, raster_info
from rsdiff.data.source import DataError, ImageSource, Split, Window, cached
from rsdiff.data.tiles import TiledSource

Regions = Literal["auto", "columns", "rows", "none"]


@config
class HyperspectralDataset(SplitOptions):
    """Cubes of many bands: GeoTIFF, ENVI (bsq, bil, bip, with its .hdr beside it), PCIDSK, MATLAB 5 and 7.3, HDF5, NumPy."""

    extensions: tuple[str, ...] = (
        *("tif", "tiff", "mat", "npy", "h5", "he5", "hdf5", "dat", "img", "raw"),
        *("bsq", "bil", "bip", "pix"),
    )
    """Endings of the files that belong to the data set, in any case."""
    regions: Regions = "auto"
    """columns, rows: every scene gives a training and a test region, side by side or one above the other; none: whole files train or test
    (see split); auto: columns where the folder holds one scene."""
    test_fraction: float = 0.25
    """Share of the columns or rows that test, and of the files where these are split."""
    test_side: Literal["last", "first"] = "last"
    """Which columns or rows test."""
    gap: int = 0
    """Columns or rows left out between the regions."""
    area: tuple[int, int, int, int] | None = None
    """(top, left, height, width) of the part of every scene that is used, in pixels; null for all."""
    train_tile: int = 0
    """Side of the tiles that a training region is cut into, some of which validate; 0 for one image."""
    tile: int = 0
    """Side of the tiles that a test region is cut into; 0 for one image."""
    without_bands: tuple[int, ...] = ()
    """Bands to leave out, counted from 1, beside those that bad_bands drops."""
    bad_bands: Literal["drop", "keep"] = "drop"
    """What to do with bands that an ENVI header marks as bad."""
    normaliser: NormaliserConfig = NormaliserConfig(rule="maximum")
    """How stored values become [0, 1]; a rule that keeps 0 keeps spectral angles."""

    def __post_init__(self) -> None:
        SplitOptions.__post_init__(self)
        if min(self.gap, self.train_tile, self.tile) < 0:
            raise ValueError(f"gap={self.gap}, train_tile={self.train_tile} and tile={self.tile} must be 0 or more.")
        if self.area is not None and (min(self.area[:2]) < 0 or min(self.area[2:]) < 1):
            raise ValueError(f"area={list(self.area)} is no part of a scene; give top, left, height and width in pixels.")
        if self.take_bands and self.without_bands:
            raise ValueError("take_bands and without_bands were both given; name the bands to take, or those to leave out.")

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample."""
        return frozenset({"hr"})

    def check(self) -> None:
        """Raise DataError when the folder is missing or holds no cube."""
        check_root(self)
        if not is_packed(self.root) and not list_images(folder_of(self), self.extensions):
            raise no_images(folder_of(self), self.extensions)

    def build(self, split: Split, scale: float) -> ImageSource:
        """Open one split; the normaliser is measured on training pixels alone."""
        if is_packed(self.root):
            return open_split(self, split, scale, self._scenes)
        items = {part: self._items(part) for part in ("train", split)}
        options, dropped = self._without_bad_bands(items[split][0].paths["hr"])
        source = FileSource(items[split], options, scale, items["train"])
        source.left_out = [*source.left_out, *dropped]
        tile = self.train_tile if split == "train" else self.tile
        kept = cached(source, self.cache_mb, scale)
        return TiledSource(kept, tile, None) if tile else kept

    def _scenes(self, folder: Path, prefix: str) -> Sequence[Item]:
        return list_items(folder, prefix, "hr", self.extensions)

    def _items(self, split: Split) -> list[Item]:
        """Return the scenes of a split, or its regions of all scenes."""
        scenes = self._scenes(folder_of(self), "")
        along = ("columns" if len(scenes) == 1 else "none") if self.regions == "auto" else self.regions
        if along == "none":
            return [replace(item, window=self._area(item)) for item in choose_items(self, split, self._scenes)]
        return [self._region(item, split, along) for item in scenes]

    def _area(self, item: Item) -> Window:
        path = item.paths["hr"]
        with without_warnings():
            info = raster_info(path, variable=self.variable)
        window = Window(*self.area) if self.area is not None else Window(0, 0, info.height, info.width)
        if not window.within((info.height, info.width)):
            raise DataError(f"{path} has {info.height}x{info.width} pixels, which dataset.area={list(self.area or ())} leaves; correct it.")
        return window

    def _region(self, item: Item, split: Split, along: Literal["columns", "rows"]) -> Item:
        area = self._area(item)
        length = area.width if along == "columns" else area.height
        test = round(length * self.test_fraction)
        train = length - test - self.gap
        if test < 1 or train < 1:
            raise DataError(
                f"{item.paths['hr']} has {length} {along}, which leave {train} for training and {test} for testing; change "
                "dataset.test_fraction or dataset.gap."
            )
        size = train if split == "train" else test
        start = 0 if (split == "train") == (self.test_side == "last") else length - size
        if along == "columns":
            window = Window(area.top, area.left + start, area.height, size)
        else:
            window = Window(area.top + start, area.left, size, area.width)
        return Item(f"{item.name}_{split}", item.paths, item.labels, window)

    def _without_bad_bands(self, path: Path) -> tuple[HyperspectralDataset, list[tuple[str, str]]]:
        """Return the options that take the good bands only, and (bands, reason) of those dropped."""
        reasons: Mapping[str, Sequence[int]] = {
            "named in dataset.without_bands": self.without_bands,
            "marked as bad in the file's header": bad_bands(path) if self.bad_bands == "drop" and not self.take_bands else (),
        }
        dropped = {band for bands in reasons.values() for band in bands}
        if not dropped:
            return self, []
        with without_warnings():
            count = raster_info(path, variable=self.variable).bands
        if max(dropped) > count:
            raise DataError(f"{path} has {count} bands and band {max(dropped)} shall be left out; correct dataset.without_bands.")
        taken = tuple(band for band in range(1, count + 1) if band not in dropped)
        told = [(f"bands {', '.join(map(str, bands))}", f"they are {reason}") for reason, bands in reasons.items() if bands]
        return replace(self, take_bands=taken, without_bands=()), told
