"""Data sets that are folders of images: `folder` (one kind of image) and `paired` (one sub-folder per role, files matched by name)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rsdiff.config import UserError, config
from rsdiff.data.files import FileOptions, FileSource, Item, list_images
from rsdiff.data.packed import PackedSource, is_packed
from rsdiff.data.regions import Region, RegionSource
from rsdiff.data.source import DataError, ImageSource, Split, cached
from rsdiff.data.splits import by_fraction, by_list, by_pattern, limited, split_folder
from rsdiff.data.stretching import StretchedSource


@config
class SplitOptions(FileOptions):
    """Options of data sets that lie in a folder of their own: where, and how training and test images are told apart."""

    root: str = ""
    """Folder with the images, or the packed file that `task=prepare` made of it; must be given."""
    split: Literal["auto", "folders", "fraction", "list", "pattern", "all"] = "auto"
    """folders: train/ and test/ (or val/); fraction: drawn from the names; list: text files; pattern: by name; all: every image in both;
    auto: folders where they exist, else fraction."""
    test_fraction: float = 0.1
    """Share of test images (fraction)."""
    train_list: str = ""
    """Text file with one training image name per line, or a pickled dictionary of splits (list)."""
    test_list: str = ""
    """The same for test images (list)."""
    test_pattern: str = "test*"
    """Names of test images, with * and ? (pattern)."""
    limit: int | None = None
    """Most training images to use; None means all."""
    test_limit: int | None = None
    """Most test images to use; None means all."""
    download: str = ""
    """What to do when the data are not there, in the imperative, for the message that says so."""

    def __post_init__(self) -> None:
        FileOptions.__post_init__(self)
        if not 0 < self.test_fraction < 1:
            raise UserError(f"test_fraction is {self.test_fraction}; it must lie between 0 and 1.")
        for name in ("limit", "test_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1, or null for all images.")


@config
class FolderDataset(SplitOptions):
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

    def check(self) -> None:
        """Raise DataError when the folder is missing or holds no image."""
        check_root(self)
        if not is_packed(self.root) and not list_images(folder_of(self), self.extensions):
            raise no_images(folder_of(self), self.extensions)

    def build(self, split: Split, scale: float) -> ImageSource:
        """Open the training or the test images."""
        return open_split(
            self,
            split,
            scale,
            lambda folder, prefix: list_items(role_folder(folder, self.images_are), prefix, self.images_are, self.extensions),
        )


@config
class PairedDataset(SplitOptions):
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
        SplitOptions.__post_init__(self)
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

    def build(self, split: Split, scale: float) -> ImageSource:
        """Open the training or the test pairs."""
        source = open_split(self, split, scale, lambda folder, prefix: self._match(folder, prefix, scale))
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

    def _match(self, folder: Path, prefix: str, scale: float) -> list[Item]:
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


def open_split(options: SplitOptions, split: Split, scale: float, items_of: Callable[[Path, str], Sequence[Item]]) -> ImageSource:
    """Return the source of one split; `items_of(folder, name prefix)` lists the items below a folder."""
    check_root(options)
    if is_packed(options.root):
        limit = options.limit if split == "train" else options.test_limit
        return PackedSource(folder_of(options), split, scale, limit)
    wanted, training = choose_items(options, split, items_of), None
    if options.normaliser.rule in ("percentile", "maximum"):
        training = wanted if split == "train" else choose_items(options, "train", items_of)
    return cached(FileSource(wanted, options, scale, training or wanted), options.cache_mb, scale)


def choose_items(options: SplitOptions, split: Split, items_of: Callable[[Path, str], Sequence[Item]]) -> list[Item]:
    """Return the items of one split, after its limit."""
    root = folder_of(options)
    place = split_folder(root, split)
    limit = options.limit if split == "train" else options.test_limit
    if options.split == "folders" or (options.split == "auto" and place is not None):
        if place is None:
            accepted = "train/" if split == "train" else "test/ or val/"
            raise DataError(f"{root} has no folder {accepted}; add it, or use dataset.split=fraction.")
        items = items_of(place, f"{place.name}/")
        names = [item.name for item in items]
    else:
        items = items_of(root, "")
        names = split_names(options, split, [item.name for item in items], root)
    if not items:
        raise no_images(place or root, options.extensions)
    by_name: Mapping[str, Item] = {item.name: item for item in items}
    return [by_name[name] for name in limited(names, limit)]


def split_names(options: SplitOptions, split: Split, names: Sequence[str], root: Path) -> list[str]:
    """Return the names of a split by list, pattern or fraction."""
    if not names:
        raise no_images(root, options.extensions)
    match options.split:
        case "all":
            return list(names)
        case "list":
            option = f"{split}_list"
            return by_list(names, getattr(options, option), option)
        case "pattern":
            return by_pattern(names, split, options.test_pattern)
        case _:
            return by_fraction(names, split, options.test_fraction, str(root))


def role_folder(folder: Path, role: str) -> Path:
    """Return the sub-folder HR or LR (in any case) of `folder` where it has both, else `folder` itself."""
    roles = {name: subfolder(folder, name) for name in ("hr", "lr")}
    return (roles[role] or folder) if all(roles.values()) else folder


def list_items(folder: Path, prefix: str, role: str, extensions: Sequence[str]) -> list[Item]:
    """Return one item per image below `folder`, named by its path without ending."""
    found = by_stem(list_images(folder, extensions), folder, "")
    return [Item(prefix + stem, {role: path}, class_label(stem)) for stem, path in found.items()]


def by_stem(paths: Sequence[Path], folder: Path, suffix: str) -> dict[str, Path]:
    """Return the paths by their name below `folder`, without ending and `suffix`; two files of one name are refused."""
    found: dict[str, Path] = {}
    for path in paths:
        stem = path.relative_to(folder).with_suffix("").as_posix().removesuffix(suffix)
        if stem in found:
            raise DataError(f"{found[stem]} and {path.name} have the same name; choose one ending with dataset.extensions=[png].")
        found[stem] = path
    return found


def class_label(stem: str) -> tuple[tuple[str, str], ...]:
    """Return the label 'class' of an image in a sub-folder, or nothing."""
    return (("class", stem.rsplit("/", 2)[-2]),) if "/" in stem else ()


def subfolder(folder: Path, name: str) -> Path | None:
    """Return folder/name in any case of letters, or None."""
    place = folder
    for part in Path(name).parts:
        found = {path.name.lower(): path for path in sorted(place.iterdir(), reverse=True) if path.is_dir()}
        if part.lower() not in found:
            return None
        place = place / part if (place / part).is_dir() else found[part.lower()]
    return place


def folder_of(options: SplitOptions) -> Path:
    """Return the root as a path, '~' expanded."""
    return Path(options.root).expanduser()


def check_root(options: SplitOptions) -> None:
    """Raise DataError, with what to download where that is known, when the root is missing or neither a folder nor a packed file."""
    if not options.root:
        raise DataError("dataset.root is not given; set dataset.root=FOLDER to the folder that holds the images.")
    root = folder_of(options)
    if not root.exists():
        raise DataError(f"dataset.root={options.root} does not exist; {advice(options)}")
    if not root.is_dir() and not is_packed(options.root):
        raise DataError(f"dataset.root={options.root} is neither a folder nor a packed data set; {advice(options)}")


def advice(options: SplitOptions) -> str:
    """Return what to do when the data are not where they should be."""
    if not options.download:
        return f"give the folder that holds the images (seen from {Path.cwd()})."
    return f"{options.download}; or give the place of the data with dataset.root=FOLDER (seen from {Path.cwd()})."


def no_images(folder: Path, extensions: Sequence[str]) -> DataError:
    """Return the error for a folder without images."""
    return DataError(f"{folder} holds no image ({', '.join(extensions)}); give another dataset.root or add to dataset.extensions.")
