"""Data sets `second` and `cnam_cd`: images of two dates with a mask of what changed, in the folder layout of Ref-Diff's authors.

<root>/[RefSR_dataset/]
  train/  HR_512  Ref  CD_mask  real_LR_D8_64  real_LR_D16_32  CLASS_Table.txt      512 x 512 targets
  test/   HR_512  Ref  CD_mask  Bic_LR_D8_32   Bic_LR_D16_16                        256 x 256 targets, whatever the folder is called

Files belong together by equal relative names. CD_mask holds one grey code per land-cover class, 'unchanged' being one of them; it reaches
the model as code / 255, as published. Training LR images come from a degradation the authors did not publish, test LR images are bicubic.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.file_dataset import FileDataset, by_stem, class_label, folder_of
from rsdiff.data.files import list_images
from rsdiff.data.packed import is_packed
from rsdiff.data.regions import Region, RegionSource
from rsdiff.data.scanning import Item
from rsdiff.data.source import SPLITS, DataError, ImageSource, Split
from rsdiff.data.splits import Parts

PUBLISHED = "RefSR_dataset"
CLASS_TABLE = "CLASS_Table.txt"
TARGETS, REFERENCES, MASKS = "HR_512", "Ref", "CD_mask"
LR_PREFIX = {"train": "real_LR_D", "test": "Bic_LR_D"}


@config
class RefSrDataset(FileDataset):
    """Triples of target, reference and change mask. See the module for the layout."""

    read_with: ClassVar[ReadWith] = {"unchanged_code": ("region", ("unchanged", "changed"))}
    read_when_packed: ClassVar[frozenset[str]] = frozenset({"lr", "region", "unchanged_code"})

    lr: Literal["files", "degradation"] = "files"
    """files: the published LR images, at x8 and x16; degradation: none are read, the run's degradation makes them at any scale."""
    region: Region = "all"
    """Test pixels that count in metrics: all, or those whose mask says unchanged or changed."""
    unchanged_code: int | None = None
    """Grey code (0 to 255) of unchanged ground; null reads it from CLASS_Table.txt."""
    download: str = "download the reference-SR data linked in the README of github.com/dongrunmin/RefDiff"
    """What to do when the data are not there, in the imperative, for the message that says so."""

    def __post_init__(self) -> None:
        FileDataset.__post_init__(self)
        if self.unchanged_code is not None and not 0 <= self.unchanged_code <= 255:
            raise UserError(f"unchanged_code is {self.unchanged_code}; grey codes are 0 to 255.")

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample."""
        return frozenset({"hr", "ref", "change_mask"} | ({"lr"} if self.lr == "files" else set()))

    def check(self) -> None:
        """Raise DataError when folders are missing: what to download and where to put it."""
        if not self.root:
            raise DataError(f"dataset.root is not given; {self.download} and set dataset.root to the folder {PUBLISHED} of it.")
        if is_packed(self.root):
            return
        missing = [reason for split in SPLITS if (reason := self._missing(split)) is not None]
        if len(missing) == len(SPLITS):  # one split alone may be all that is asked for
            raise missing[0]
        if self.region != "all":
            self._unchanged_code()

    def parts(self, scale: float) -> Parts[Item]:
        """See FileDataset."""
        found: list[list[Item] | DataError] = []
        for split in SPLITS:
            missing = self._missing(split)
            found.append(self._items(split, scale) if missing is None else missing)
        return Parts(*found)

    def derived(self, source: ImageSource, split: Split) -> ImageSource:
        """See FileDataset."""
        return RegionSource(source, self.region, self._unchanged_code()) if split == "test" and self.region != "all" else source

    def _missing(self, split: Split) -> DataError | None:
        """Return what to do about a split without its folders, or None."""
        for name in (TARGETS, REFERENCES, MASKS):
            if not (self._folder() / split / name).is_dir():
                return DataError(
                    f"dataset.root={self.root} has no folder {split}/{name}; {self.download} and set dataset.root to the "
                    f"folder {PUBLISHED} of it."
                )
        return None

    def _folder(self) -> Path:
        root = folder_of(self)
        return root / PUBLISHED if (root / PUBLISHED).is_dir() else root

    def _items(self, split: Split, scale: float) -> list[Item]:
        """Return one item per target, each with a file of its name in every folder."""
        place = self._folder() / split
        folders = {"hr": place / TARGETS, "ref": place / REFERENCES, "change_mask": place / MASKS}
        if self.lr == "files":
            folders["lr"] = lr_folder(place, LR_PREFIX[split], scale)
        files = {role: by_stem(list_images(folder, self.extensions), folder) for role, folder in folders.items()}
        if not files["hr"]:
            raise DataError(f"{folders['hr']} holds no image; {self.download} again.")
        for role, found in files.items():
            missing = sorted(set(files["hr"]) - set(found))
            if missing:
                raise DataError(
                    f"{folders[role]} lacks {missing[0]} of {TARGETS} ({len(missing)} such files); files belong together by equal names: "
                    f"{self.download} again."
                )
        names = sorted(files["hr"])
        return [Item(f"{split}/{name}", {role: files[role][name] for role in files}, class_label(name)) for name in names]

    def _unchanged_code(self) -> int:
        if self.unchanged_code is not None:
            return self.unchanged_code
        if is_packed(self.root):
            raise DataError(f"dataset.region={self.region} needs dataset.unchanged_code with a packed file, which holds no {CLASS_TABLE}.")
        return unchanged_code(read_class_table(find_class_table(self._folder())))


@config
class SecondDataset(RefSrDataset):
    """SECOND as Ref-Diff uses it: 2,668 training and 1,200 test triples, 0.5 to 1 m, several sensors.

    Classes: non-vegetated ground, tree, low vegetation, water, building, playground, unchanged.
    """

    download: str = "download the SECOND reference-SR data linked in the README of github.com/dongrunmin/RefDiff"


@config
class CnamCdDataset(RefSrDataset):
    """CNAM-CD as Ref-Diff uses it: 2,258 training and 1,000 test triples, 0.5 m, Google Earth 2013 to 2022.

    Classes: bare land, vegetation, water, impervious, other, unchanged.
    """

    download: str = "download the CNAM-CD reference-SR data linked in the README of github.com/dongrunmin/RefDiff"


def lr_folder(place: Path, prefix: str, scale: float) -> Path:
    """Return the folder of published LR images at `scale`, e.g. real_LR_D8_64 for 8."""
    found = {int(match[1]): path for path in sorted(place.iterdir()) if (match := re.match(rf"{prefix}(\d+)_\d+$", path.name))}
    if scale not in found:
        has = " and ".join(f"x{known}" for known in sorted(found)) or "none"
        raise DataError(f"{place} has LR images at {has}, not at scale={scale:g}; choose one of these scales, or dataset.lr=degradation.")
    return found[int(scale)]


def find_class_table(folder: Path) -> Path:
    """Return CLASS_Table.txt of the data set, which lies in its folder or in train/ or test/."""
    places = [folder / CLASS_TABLE, folder.parent / CLASS_TABLE, folder / "train" / CLASS_TABLE, folder / "test" / CLASS_TABLE]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise DataError(f"{folder} has no {CLASS_TABLE}, so the code of unchanged ground is not known; set dataset.unchanged_code.")
    return found


def read_class_table(path: Path) -> dict[str, int]:
    """Return the grey code of each class; every line names a class and one whole number from 0 to 255, in either order.

    The published table is not public on its own, so anything else than that is refused rather than guessed.
    """
    codes: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        numbers, name = re.findall(r"\d+", line), " ".join(re.findall(r"[A-Za-z][A-Za-z_-]*", line))
        if not numbers:
            continue  # headings and blank lines
        if len(numbers) != 1 or not name or int(numbers[0]) > 255:
            raise DataError(f"{path} has the line '{line.strip()}', not a class name and one grey code; set dataset.unchanged_code.")
        codes[name.lower()] = int(numbers[0])
    return codes


def unchanged_code(codes: dict[str, int]) -> int:
    """Return the code of the class called unchanged ('no change', 'un-changed')."""
    found = [code for name, code in codes.items() if re.sub("[^a-z]", "", name) in ("unchanged", "nochange")]
    if len(found) != 1:
        raise DataError(f"{CLASS_TABLE} names no class 'unchanged' among {', '.join(codes) or 'none'}; set dataset.unchanged_code.")
    return found[0]
