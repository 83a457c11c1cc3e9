"""Data set `paired`: one folder per role (HR, LR, another date, change mask), files matched by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from rsdiff.config import UserError, config
from rsdiff.config.reading import NOT_EMPTY, ReadWith
from rsdiff.data.file_dataset import SplitDataset, by_stem, check_root, class_label, folder_of, no_images, subfolder
from rsdiff.data.files import list_images
from rsdiff.data.packed import is_packed
from rsdiff.data.pairing import Affixes, Pairing, Places, pair, recognised, require_one, role_of
from rsdiff.data.regions import Region, RegionSource
from rsdiff.data.scanning import Item
from rsdiff.data.source import SPLITS, DataError, ImageSource, Split
from rsdiff.data.splits import TEST_FOLDERS, TRAIN_FOLDERS, Parts, split_folder
from rsdiff.data.stretching import StretchedSource

SCALES = range(1, 17)
"""Scales at which folders of pairs are looked for where none is given."""
_OPTION = {"hr": "hr_folder", "lr": "lr_folder", "ref": "ref_folder", "change_mask": "mask_folder"}


@config
class PairedDataset(SplitDataset):
    """Folders of one role each, whose files are matched by name: HR and LR, or HR, another date and a change mask.

    They lie in `root` itself or in root/train and root/test; '{scale}' in a folder, prefix or suffix stands for the scale of the run. The
    layouts that DIV2K, DF2K, Set5 and Urban100 are distributed in are recognised, see `pairing`.
    """

    located: ClassVar[frozenset[str]] = frozenset({"hr_folder", "lr_folder", "ref_folder", "mask_folder"})
    read_with: ClassVar[ReadWith] = {
        **dict.fromkeys(("hr_prefix", "hr_suffix", "lr_prefix", "lr_suffix", "stretch_lr"), ("lr_folder", (NOT_EMPTY,))),
        "unchanged_code": ("region", ("unchanged", "changed")),
    }

    read_when_packed: ClassVar[frozenset[str]] = frozenset(
        {"lr_folder", "ref_folder", "mask_folder", "region", "unchanged_code", "stretch_lr"}  # whether there are LR, references and masks
    )

    hr_folder: str = "HR"
    """Folder of the targets."""
    lr_folder: str = "LR"
    """Folder of the inputs; empty where a degradation shall make them."""
    ref_folder: str = ""
    """Folder of co-registered targets of another date; empty where there are none."""
    mask_folder: str = ""
    """Folder of grey change masks or land-cover codes; empty where there are none."""
    hr_prefix: str = ""
    """What HR file names have before what they share with their LR file, e.g. hr_ for hr_01.png; found by itself where one reading fits."""
    hr_suffix: str = ""
    """The same after it, e.g. _HR for 01_HR.png."""
    lr_prefix: str = ""
    """What LR file names have before what they share with their HR file."""
    lr_suffix: str = ""
    """The same after it, e.g. x4 or 'x{scale}' for 0001x4.png."""
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
        """Raise DataError when a folder is missing."""
        check_root(self)
        if is_packed(self.root):
            return
        root = folder_of(self)
        splits = [place for split in SPLITS if (place := split_folder(root, split)) is not None]
        for folder in splits if self.split in ("auto", "folders") and splits else [root]:
            missing = [role for role, name in self._folders().items() if "{scale}" not in name and subfolder(folder, name) is None]
            if missing and not (self._has_default_names() and any(self._recognised(folder, scale) for scale in SCALES)):
                raise self._no_folder(folder, missing[0], self._folders()[missing[0]], "")

    def for_testing(self) -> Self:
        """See FileDataset: folders such as DIV2K_valid_HR tell test images from others."""
        return (
            self
            if self.root and not is_packed(self.root) and folder_of(self).is_dir() and self._divided(folder_of(self))
            else super().for_testing()
        )

    def dividing_folders(self, root: Path) -> str:
        """See SplitDataset."""
        divided = self._divided(root)
        return " and ".join(f"{places.hr.name}/" for places in divided.values()) or super().dividing_folders(root)

    def parts(self, scale: float) -> Parts[Item]:
        """See FileDataset."""
        root = folder_of(self)
        divided = self._divided(root, scale) if self.split in ("auto", "folders") else {}
        if not divided:
            return super().parts(scale)

        def part(split: Split) -> list[Item]:
            return self._match({"hr": divided[split].hr, "lr": divided[split].lr}, f"{divided[split].hr.name}/", scale)

        return Parts(part("train"), part("test"))

    def derived(self, source: ImageSource, split: Split) -> ImageSource:
        """See FileDataset."""
        if self.stretch_lr:
            source = StretchedSource(source)
        return RegionSource(source, self.region, self.unchanged_code) if split == "test" and self.region != "all" else source

    def items(self, folder: Path, prefix: str, scale: float) -> list[Item]:
        """Return one item per HR file; every role must have a file of its name."""
        return self._match(self._role_folders(folder, scale), prefix, scale)

    def _folders(self) -> dict[str, str]:
        named = {"hr": self.hr_folder, "lr": self.lr_folder, "ref": self.ref_folder, "change_mask": self.mask_folder}
        return {role: name for role, name in named.items() if name}

    def _role_folders(self, folder: Path, scale: float) -> dict[str, Path]:
        """Return the folder of each role: those named, or the two that are recognised where HR and LR, the names by default, are not."""
        named = {role: _at_scale(name, scale) for role, name in self._folders().items()}
        found = {role: place for role, name in named.items() if (place := subfolder(folder, name)) is not None}
        missing = [role for role in named if role not in found]
        if not missing:
            return found
        places = self._recognised(folder, scale) if self._has_default_names() else []
        if places:
            chosen = require_one(places, folder)
            return {"hr": chosen.hr, "lr": chosen.lr}
        others = [f"scale={each}" for each in SCALES if self._has_default_names() and self._recognised(folder, each)]
        raise self._no_folder(
            folder, missing[0], named[missing[0]], f", or set {' or '.join(others)}, at which there are pairs" if others else ""
        )

    def _no_folder(self, folder: Path, role: str, name: str, more: str) -> DataError:
        empty = "" if role == "hr" else " (empty: there is none)"
        return DataError(f"{folder} has no folder {name}; set dataset.{_OPTION[role]} to the name that it has{empty}{more}.")

    def _recognised(self, folder: Path, scale: float) -> list[Places]:
        return recognised(folder, scale, [path.stem for path in list_images(folder, self.extensions) if path.parent == folder])

    def _has_default_names(self) -> bool:
        return set(self._folders()) == {"hr", "lr"} and (self.hr_folder, self.lr_folder) == ("HR", "LR")

    def _divided(self, root: Path, scale: float | None = None) -> dict[Split, Places]:
        """Return the pairs of folders of a root whose folder names say which train and which test, or nothing."""
        if not self._has_default_names() or any(split_folder(root, split) for split in SPLITS):
            return {}
        scales = SCALES if scale is None else (scale,)
        for each in scales:
            found = recognised(root, each, ())
            words: dict[Split, set[str]] = {"train": set(TRAIN_FOLDERS), "test": set(TEST_FOLDERS)}
            by_split = {split: [place for place in found if words[split] & set(re.split("[_-]", place.part.lower()))] for split in SPLITS}
            if all(by_split.values()):
                return {split: require_one(places, root) for split, places in by_split.items()}
        return {}

    def _match(self, places: Mapping[str, Path], prefix: str, scale: float) -> list[Item]:
        """Return the samples of the folders of the roles."""
        files = {role: by_stem(list_images(place, self.extensions), place) for role, place in places.items()}
        if "lr" in places and places["lr"] == places["hr"]:  # side by side
            given = self._affixes(scale)
            files = {role: {stem: path for stem, path in files[role].items() if _is_of(role, stem, given)} for role in files}
        for role, found in files.items():
            if not found:
                raise no_images(places[role], self.extensions)
        pairing = (
            self._paired(files, places, scale) if "lr" in files else Pairing(tuple((stem, stem, "") for stem in sorted(files["hr"])), ())
        )
        items = []
        for name, high, low in pairing.pairs:
            stems = {role: low if role == "lr" else high for role in files}
            lacking = next((role for role in files if stems[role] not in files[role]), None)
            paths = {role: files[role][stem] for role, stem in stems.items() if role != lacking}
            problem = f"{paths['hr']} has no partner of its name in {places[lacking]}; add it or delete the file" if lacking else ""
            items.append(Item(prefix + name, paths, class_label(name), problem=problem))
        for role, stem in pairing.alone:
            other = places["lr" if role == "hr" else "hr"]
            _, high, low = pairing.pairs[0]
            known = f"that of {files['hr'][high].name} is {files['lr'][low].name}"
            problem = f"{files[role][stem]} has no partner in {other} ({known}); add it or delete the file"
            items.append(Item(f"{prefix}{stem}" + (" (LR)" if role == "lr" else ""), {role: files[role][stem]}, problem=problem))
        return items

    def _affixes(self, scale: float) -> dict[str, Affixes]:
        return {
            "hr": Affixes(_at_scale(self.hr_prefix, scale), _at_scale(self.hr_suffix, scale)),
            "lr": Affixes(_at_scale(self.lr_prefix, scale), _at_scale(self.lr_suffix, scale)),
        }

    def _paired(self, files: Mapping[str, Mapping[str, Path]], places: Mapping[str, Path], scale: float) -> Pairing:
        """Return which files of HR and LR are pairs; raises DataError where none are."""
        hr, lr = sorted(files["hr"]), sorted(files["lr"])
        found = pair(hr, lr, self._affixes(scale))
        if not found.pairs:
            raise DataError(
                f"no file of {places['hr']} ({files['hr'][hr[0]].name}, ...) has its partner in {places['lr']} ({files['lr'][lr[0]].name}, "
                "...); set what names have before or after what they share by dataset.hr_prefix, hr_suffix, lr_prefix and lr_suffix."
            )
        return found


def _at_scale(text: str, scale: float) -> str:
    return text.replace("{scale}", f"{scale:g}")


def _is_of(role: str, stem: str, given: Mapping[str, Affixes]) -> bool:
    """Say whether a file of a folder that holds both roles is of this one: by the affixes given, else by what its name says."""
    return given[role].core(stem) is not None if given[role] else role_of(stem) == role
