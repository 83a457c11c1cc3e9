"""Data sets that are folders of images: `folder` (one kind of image) and `paired` (one sub-folder per role, files matched by name)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rsdiff.config import UserError, config
from rsdiff.data.file_dataset import SplitDataset, by_stem, check_root, class_label, folder_of, list_items, no_images, subfolder
from rsdiff.data.files import Item, list_images
from rsdiff.data.packed import is_packed
from rsdiff.data.regions import Region, RegionSource
from rsdiff.data.source import DataError, ImageSource, Split
from rsdiff.data.splits import split_folder
from rsdiff.data.stretching import StretchedSource


@config
class FolderDataset(SplitDataset):
    """A folder of images, nested as it may be; the name of an image's own folder becomes its label 'class'.

    Where the folder of a split (or the root) has sub-folders HR and LR, as in LDCSR's YourData/{Train,Val,Test}/{HR,LR}, only the one that
    `images_are` names is read.
    """

    images_are: Literal["hr", "lr"] = "hr"
    """hr: targets, whose LR a degradation makes; lr: inputs to restore, without targets."""

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample."""
        return frozenset({self.images_are})

    def items(self, folder: Path, prefix: str, scale: float) -> Sequence[Item]:
        """See SplitDataset."""
        return list_items(role_folder(folder, self.images_are), prefix, self.images_are, self.extensions)


@config
class PairedDataset(SplitDataset):
    """Folders of one role each, whose files are matched by name: HR and LR, or HR, another date and a change mask.

    They lie in `root` itself or in root/train and root/test; '{scale}' in a folder or suffix stands for the scale of the run.
    """

    hr_folder: str = "HR"
    """Folder of the targets."""
    lr_folder: str = "LR"
    """Folder of the inputs; empty where a degradation shall make them."""
    ref_folder: str = ""
    """Folder of co-registered targets of another date; empty where there are none."""
    mask_folder: str = ""
    """Folder of grey change masks or land-cover codes; empty where there are none."""
    lr_suffix: str = ""
    """What LR file names have after the HR name, e.g. 'x{scale}' for 0001x4.png."""
    region: Region = "all"
    """Test pixels that count in metrics: all, or those that the mask calls unchanged or changed."""
    unchanged_code: int = 0
    """Value of unchanged ground in the mask files, which decides `region`."""
    stretch_lr: bool = False
    """Stretch every LR image to fill [0, 1], from its darkest to its brightest value over all bands (ARAD_1K)."""

    def __post_init__(self) -> None:
        SplitDataset.__post_init__(self)
        if self.region != "all" and not self.mask_folder:
            raise UserError(f"region is {self.region} without change masks; name their folder in mask_folder, or use region=all.")
        if self.stretch_lr and not self.lr_folder:
            raise UserError("stretch_lr was set without LR images; name their folder in lr_folder, or leave it out.")
        if not self.hr_folder:
            raise UserError(
                "hr_folder is empty; name the folder of the targets, or use dataset=folder dataset.images_are=lr without targets."
            )

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample."""
        return frozenset(self._folders())

    def check(self) -> None:
        """Raise DataError when a folder is missing or empty, or files lack their partner."""
        check_root(self)
        if is_packed(self.root):
            return
        for folder in self._places():
            missing = [name for name in self._folders().values() if "{scale}" not in name and subfolder(folder, name) is None]
            if missing:
                raise DataError(
                    f"{folder} has no folder {missing[0]}; set dataset.hr_folder, lr_folder, ref_folder or mask_folder to its name "
                    f"(empty: there is none)."
                )

    def derived(self, source: ImageSource, split: Split) -> ImageSource:
        """See FileDataset."""
        if self.stretch_lr:
            source = StretchedSource(source)
        return RegionSource(source, self.region, self.unchanged_code) if split == "test" and self.region != "all" else source

    def _folders(self) -> dict[str, str]:
        named = {"hr": self.hr_folder, "lr": self.lr_folder, "ref": self.ref_folder, "change_mask": self.mask_folder}
        return {role: name for role, name in named.items() if name}

    def _places(self) -> list[Path]:
        """Return the folders that hold the role folders: one per split, or the root."""
        root = folder_of(self)
        splits = [split_folder(root, "train"), split_folder(root, "test")]
        return [place for place in splits if place] if self.split in ("auto", "folders") and any(splits) else [root]

    def items(self, folder: Path, prefix: str, scale: float) -> list[Item]:
        """Return one item per HR file; every role must have a file of its name."""
        files: dict[str, dict[str, Path]] = {}
        for role, name in self._folders().items():
            place = subfolder(folder, name.replace("{scale}", f"{scale:g}"))
            if place is None:
                raise DataError(f"{folder} has no folder {name.replace('{scale}', f'{scale:g}')}; correct dataset.{_OPTION[role]}.")
            suffix = self.lr_suffix.replace("{scale}", f"{scale:g}") if role == "lr" else ""
            files[role] = by_stem(list_images(place, self.extensions), place, suffix)
            if not files[role]:
                raise no_images(place, self.extensions)
        for role, found in files.items():
            alone = sorted(set(found) ^ set(files["hr"]))
            if alone:
                has, lacks = ("hr", role) if alone[0] in files["hr"] else (role, "hr")
                raise DataError(
                    f"{files[has][alone[0]]} has no partner in the {lacks} folder ({len(alone)} such files); add it, delete it, or set "
                    f"dataset.lr_suffix where names differ."
                )
        return [Item(prefix + stem, {role: files[role][stem] for role in files}, class_label(stem)) for stem in sorted(files["hr"])]


_OPTION = {"hr": "hr_folder", "lr": "lr_folder", "ref": "ref_folder", "change_mask": "mask_folder"}


def role_folder(folder: Path, role: str) -> Path:
    """Return the sub-folder HR or LR (in any case) of `folder` where it has both, else `folder` itself."""
    roles = {name: subfolder(folder, name) for name in ("hr", "lr")}
    return (roles[role] or folder) if all(roles.values()) else folder
