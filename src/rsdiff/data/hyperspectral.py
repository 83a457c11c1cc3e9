"""Data set `hyperspectral`: cubes in any file that `rasters` reads; one large scene is divided into a training and a test region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.file_dataset import SplitDataset, Tiling, folder_of, list_items, no_images
from rsdiff.data.files import list_images
from rsdiff.data.normalisation import NormaliserConfig
from rsdiff.data.opening import without_warnings
from rsdiff.data.rasters import bad_bands, raster_info
from rsdiff.data.scanning import Item
from rsdiff.data.source import DataError, Split, Window
from rsdiff.data.splits import Parts

Regions = Literal["auto", "columns", "rows", "none"]


@config
class HyperspectralDataset(SplitDataset):
    """Cubes of many bands: GeoTIFF, ENVI (bsq, bil, bip, with its .hdr beside it), PCIDSK, MATLAB 5 and 7.3, HDF5, NumPy."""

    read_with: ClassVar[ReadWith] = {
        "test_fraction": (),  # of columns or rows as well
        "split": ("regions", ("none", "auto")),
        **dict.fromkeys(("test_side", "gap"), ("regions", ("auto", "columns", "rows"))),
    }

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
        SplitDataset.__post_init__(self)
        if min(self.gap, self.train_tile, self.tile) < 0:
            raise UserError(f"gap={self.gap}, train_tile={self.train_tile} and tile={self.tile} must be 0 or more.")
        if self.area is not None and (min(self.area[:2]) < 0 or min(self.area[2:]) < 1):
            raise UserError(f"area={list(self.area)} is no part of a scene; give top, left, height and width in pixels.")
        if self.take_bands and self.without_bands:
            raise UserError("take_bands and without_bands were both given; name the bands to take, or those to leave out.")

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample."""
        return frozenset({"hr"})

    def items(self, folder: Path, prefix: str, scale: float) -> Sequence[Item]:
        """See SplitDataset."""
        return [replace(item, window=self._area(item)) for item in list_items(folder, prefix, "hr", self.extensions)]

    def tiling(self, split: Split) -> Tiling | None:
        """See FileDataset."""
        side = self.train_tile if split == "train" else self.tile
        return Tiling(side) if side else None

    def unread_beside_files(self) -> Mapping[str, str]:
        """See FileDataset: `split` divides whole scenes only, and sides and gaps belong to regions."""
        if not self.root or not folder_of(self).is_dir():
            return super().unread_beside_files()
        scenes = len(list_images(folder_of(self), self.extensions))
        beside = f"has no effect with dataset.regions={self.regions} where {self.root} holds {scenes} scene{'s' * (scenes != 1)}"
        if self.regions in ("columns", "rows") or (self.regions == "auto" and scenes == 1):
            whole = f"{beside}; leave it out, or set dataset.regions=none."
            return dict.fromkeys(("split", "train_list", "test_list", "test_pattern"), whole)
        unread = dict(super().unread_beside_files())
        if self.regions == "auto" and scenes:
            unread |= dict.fromkeys(("test_side", "gap"), f"{beside}; leave it out, or set dataset.regions=columns or rows.")
        if self.split not in ("fraction", "auto"):
            unread["test_fraction"] = f"{beside} and dataset.split={self.split}; leave it out, or set dataset.split=fraction."
        return unread

    def parts(self, scale: float) -> Parts[Item]:
        """See FileDataset: regions of every scene, or whole scenes."""
        if self.regions == "none":
            return super().parts(scale)
        scenes = list_items(folder_of(self), "", "hr", self.extensions)
        if not scenes:
            raise no_images(folder_of(self), self.extensions)
        if self.regions == "auto" and len(scenes) > 1:
            return super().parts(scale)
        along: Literal["columns", "rows"] = "rows" if self.regions == "rows" else "columns"
        return Parts([self._region(item, "train", along) for item in scenes], [self._region(item, "test", along) for item in scenes])

    def refined(self, parts: Parts[Item]) -> tuple[Self, Sequence[tuple[str, str]]]:
        """See FileDataset: the bands that the first header marks as bad are not read, in neither split."""
        train = parts.train
        first = parts.of("test")[0] if isinstance(train, DataError) else train[0]
        return self._without_bad_bands(first.paths["hr"])

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

    def _without_bad_bands(self, path: Path) -> tuple[Self, list[tuple[str, str]]]:
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
