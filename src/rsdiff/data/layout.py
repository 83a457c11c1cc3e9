"""Published data sets in the folders they are downloaded in: where their splits lie, how large rasters are cut, what to download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rsdiff.config import UserError, config
from rsdiff.data.file_dataset import SplitDataset, Tiling, advice, check_root, folder_of, list_items, no_images, subfolder
from rsdiff.data.files import list_images
from rsdiff.data.packed import is_packed
from rsdiff.data.pairing import role_of
from rsdiff.data.scanning import Item
from rsdiff.data.source import DataError, Split
from rsdiff.data.splits import Parts, by_list


@config
class LayoutDataset(SplitDataset):
    """A published data set: its images in the folders of the original download or of the authors who used it, optionally cut into tiles."""

    train_folders: tuple[str, ...] = ()
    """Folders of training images below `root`; the first that exists is taken."""
    test_folders: tuple[str, ...] = ()
    """Folders of test images below `root`; the first that exists is taken."""
    image_folders: tuple[str, ...] = ()
    """Folders of all images, for downloads without a split: the first that exists is taken, and `split` divides its images."""
    tile: int = 0
    """Side in pixels of the squares that images are cut into, side by side and whole ones only; 0 leaves images whole."""
    tiles_per_image: int | None = None
    """Most tiles of an image, chosen by their names; None means all."""

    def __post_init__(self) -> None:
        SplitDataset.__post_init__(self)
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
        for place in self._places().values():
            if isinstance(place, DataError):
                continue
            if not list_images(place, self.extensions):
                raise no_images(place, self.extensions)
        if all(isinstance(place, DataError) for place in self._places().values()):
            self.parts(1.0).of("train")

    def items(self, folder: Path, prefix: str, scale: float) -> Sequence[Item]:
        """See SplitDataset. Where targets and inputs lie side by side (img_001_HR.png, img_001_LR.png), the inputs are left out."""
        found = list_items(folder, prefix, "hr", self.extensions)
        roles = [role_of(item.name) for item in found]
        return [item for item, role in zip(found, roles, strict=True) if role != "lr"] if "hr" in roles else found

    def tiling(self, split: Split) -> Tiling | None:
        """See FileDataset."""
        return Tiling(self.tile, self.tiles_per_image) if self.tile else None

    def for_testing(self) -> Self:
        """See FileDataset: where the published folders tell test images from others, nothing changes."""
        if not self.root or is_packed(self.root) or not folder_of(self).is_dir():
            return self
        train, test = self._places().values()
        return super().for_testing() if train == test else self

    def unread_beside_files(self) -> Mapping[str, str]:
        """See FileDataset: where training and test images have folders of their own, only lists divide them further."""
        own = self.dividing_folders(folder_of(self)) if self.root and folder_of(self).is_dir() else ""
        if not own:
            return super().unread_beside_files()
        other = f"leave it out, or divide one folder of images with dataset=folder dataset.root=FOLDER dataset.split={self.split}."
        unread = {} if self.split in ("auto", "folders", "list") else {"split": f"has no effect where {self.root} has {own}; {other}"}
        return unread | {"test_fraction": f"has no effect where {self.root} has {own}; {other.replace('=auto', '=fraction')}"}

    def dividing_folders(self, root: Path) -> str:
        """See SplitDataset."""
        train, test = self._places().values()
        found = [place for place in (train, test) if isinstance(place, Path)]
        return "" if train == test else " and ".join(f"{place.relative_to(root).as_posix()}/" for place in found)

    def parts(self, scale: float) -> Parts[Item]:
        """See FileDataset: each split's own folder where both exist, else the folder of all images, divided by `split`."""
        train, test = self._places().values()
        if isinstance(train, Path) and train == test:
            return self.by_names(self._items_in(train, scale), train)
        if isinstance(train, Path) and isinstance(test, Path):
            shared = sorted(set(list_images(train, self.extensions)) & set(list_images(test, self.extensions)))
            if shared and self.split != "list":
                raise DataError(
                    f"{shared[0]} lies in the training folder {train} and in the test folder {test}; move one out of the other."
                )
        return Parts(self._own(train, "train", scale), self._own(test, "test", scale))

    def _own(self, place: Path | DataError, split: Split, scale: float) -> Sequence[Item] | DataError:
        """Return the images of a split's own folder, or those of them that its list names."""
        if isinstance(place, DataError):
            return place
        items = self._items_in(place, scale)
        if self.split != "list":
            return items
        by_name = {item.name: item for item in items}
        return [by_name[name] for name in by_list(list(by_name), getattr(self, f"{split}_list"), f"{split}_list")]

    def _items_in(self, place: Path, scale: float) -> Sequence[Item]:
        inside = place.relative_to(folder_of(self)).as_posix()
        return self.items(place, "" if inside == "." else f"{inside}/", scale)

    def _places(self) -> dict[Split, Path | DataError]:
        """Return the folder of each split, or why there is none.

        The folder of all images counts only where neither split has a folder of its own: beside one of them, it may hold the same images.
        """
        root = folder_of(self)

        def first(names: Sequence[str]) -> Path | None:
            return next((place for name in names if (place := subfolder(root, name)) is not None), None)

        train, test = first(self.train_folders), first(self.test_folders)
        if train is None and test is None and (everything := first(self.image_folders)) is not None:
            return {"train": everything, "test": everything}

        def named(place: Path | None, other: Path | None, split: Split) -> Path | DataError:
            if place is not None:
                return place
            accepted = ", ".join((*(self.train_folders if split == "train" else self.test_folders), *self.image_folders))
            beside = f" beside {other.relative_to(root).as_posix()}" if other is not None else ""
            own = f"; or split what is there with dataset=folder dataset.root={root} dataset.split=fraction" if other is not None else ""
            return DataError(f"{root} has no folder of {split} images ({accepted}){beside}{own}; {advice(self)}")

        return {"train": named(train, test, "train"), "test": named(test, train, "test")}
