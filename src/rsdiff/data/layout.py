"""Published data sets in the folders they are downloaded in: where their splits lie, how large rasters are cut, what to download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsdiff.config import UserError, config
from rsdiff.data.files import FileSource, Item, list_images
from rsdiff.data.folder import SplitOptions, advice, check_root, folder_of, list_items, no_images, split_names, subfolder
from rsdiff.data.packed import PackedSource, is_packed
from rsdiff.data.source import DataError, ImageSource, Split, cached
from rsdiff.data.splits import limited
from rsdiff.data.tiles import TiledSource


@config
class LayoutDataset(SplitOptions):
    """A published data set: its images in the folders of the original download or of the authors who used it, optionally cut into tiles."""

    train_folders: tuple[str, ...] = ()
    """Folders of training images below `root`; the first that exists is taken."""
    test_folders: tuple[str, ...] = ()
    """Folders of test images below `root`; the first that exists is taken."""
    image_folders: tuple[str, ...] = ()
    """Folders of all images, for downloads without a split; `split` tells train from test. The first that exists is taken."""
    tile: int = 0
    """Side in pixels of the squares that images are cut into, side by side and whole ones only; 0 leaves images whole."""
    tiles_per_image: int | None = None
    """Most tiles of an image, chosen by their names; None means all."""

    def __post_init__(self) -> None:
        SplitOptions.__post_init__(self)
        if bool(self.train_folders) != bool(self.test_folders) or not (self.train_folders or self.image_folders):
            raise UserError("train_folders and test_folders belong together; give both, or image_folders, or all three.")
        if self.tile < 0 or (self.tiles_per_image is not None and self.tiles_per_image < 1):
            raise UserError(f"tile={self.tile}, tiles_per_image={self.tiles_per_image}: give 0 or more pixels, and 1 or more tiles.")
        if self.tiles_per_image is not None and self.tile == 0:
            raise UserError("tiles_per_image has no effect with tile=0; set dataset.tile.")

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample."""
        return frozenset({"hr"})

    def check(self) -> None:
        """Raise DataError, with what to download, when the folders are not there or hold no image."""
        check_root(self)
        if is_packed(self.root):
            return
        splits: tuple[Split, ...] = ("train", "test")
        for place in dict.fromkeys(self._place(split) for split in splits):
            if not list_images(place, self.extensions):
                raise no_images(place, self.extensions)

    def build(self, split: Split, scale: float) -> ImageSource:
        """Open the training or the test images."""
        self.check()
        limit = self.limit if split == "train" else self.test_limit
        if is_packed(self.root):
            return PackedSource(folder_of(self), split, scale, limit)
        items = self._items(split, None if self.tile else limit)
        measured_on = items if split == "train" or self.normaliser.rule != "percentile" else self._items("train", self.limit)
        source: ImageSource = FileSource(items, self, scale, measured_on)
        if self.tile:
            source = TiledSource(source, self.tile, self.tiles_per_image, limit)
        return cached(source, self.cache_mb, scale)

    def _place(self, split: Split) -> Path:
        """Return the folder that holds the images of `split` (perhaps among those of the other)."""
        root = folder_of(self)
        own = self.train_folders if split == "train" else self.test_folders
        for name in (*own, *self.image_folders):
            place = subfolder(root, name)
            if place is not None:
                return place
        accepted = ", ".join((*own, *self.image_folders))
        raise DataError(f"{root} has no folder of {split} images ({accepted}); {advice(self)}")

    def _items(self, split: Split, limit: int | None) -> Sequence[Item]:
        """Return the image files of one split, at most `limit`."""
        place = self._place(split)
        inside = place.relative_to(folder_of(self)).as_posix()
        items = {i.name: i for i in list_items(place, "" if inside == "." else f"{inside}/", "hr", self.extensions)}
        names = list(items)
        if self.split == "list" or self._place("train") == self._place("test"):
            names = split_names(self, split, names, place)
        return [items[name] for name in limited(names, limit)]
