"""What every data set made of files shares: where it lies, which images train and which test, and that training images set the normaliser.

A kind of data set says which images there are (`parts`) and what becomes of them (`tiling`, `derived`); nothing else opens a split.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from rsdiff.config import UserError, config
from rsdiff.config.paths import typed_path
from rsdiff.config.reading import ReadWith
from rsdiff.data.file_options import FileOptions
from rsdiff.data.files import FileSource, list_images
from rsdiff.data.packed import PackedSource, is_packed
from rsdiff.data.scanning import Item
from rsdiff.data.source import SPLITS, DataError, ImageSource, Split, cached
from rsdiff.data.splits import Parts, limited, split_by_names, split_folder
from rsdiff.data.tiles import TiledSource


@dataclass(frozen=True)
class Tiling:
    """Squares that images are cut into; see TiledSource."""

    side: int
    per_image: int | None = None


@config
class FileDataset(FileOptions):
    """Where a data set of files lies and how much of it is used."""

    located: ClassVar[frozenset[str]] = frozenset({"root"})
    read_when_packed: ClassVar[frozenset[str]] = frozenset(
        {"root", "limit", "test_limit", "download", "small", "size_rule", "cache_mb"}  # further ones in subclasses
    )

    root: str = ""
    """Folder with the images, or the packed file that `task=prepare` made of it; must be given."""
    limit: int | None = None
    """Most training images to use; None means all."""
    test_limit: int | None = None
    """Most test images to use; None means all."""
    download: str = ""
    """What to do when the data are not there, in the imperative, for the message that says so."""

    def __post_init__(self) -> None:
        FileOptions.__post_init__(self)
        for name in ("limit", "test_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1, or null for all images.")

    def parts(self, scale: float) -> Parts[Item]:
        """Return the training and the test images, decided once and before limits; see Parts for one that does not exist."""
        raise NotImplementedError

    def tiling(self, split: Split) -> Tiling | None:
        """Return how the images of a split are cut into tiles; None leaves them whole."""
        return None

    def refined(self, parts: Parts[Item]) -> tuple[Self, Sequence[tuple[str, str]]]:
        """Return the options to read the files with, where the files decide some, and (what, reason) of what is left out for it."""
        return self, ()

    def derived(self, source: ImageSource, split: Split) -> ImageSource:
        """Return what a run sees of the images that were read."""
        return source

    def for_testing(self) -> Self:
        """Return the data set as it is evaluated without being trained on: where nothing tells test images from others, all test."""
        return self

    def chosen(self, split: Split, scale: float) -> list[Item]:
        """Return the images of a split that are used, after its limit, which counts tiles where images are cut into tiles."""
        limit = self.limit if split == "train" else self.test_limit
        return _first(self.parts(scale).of(split), None if self.tiling(split) else limit)

    def unread_beside_files(self) -> Mapping[str, str]:
        """Return the options without effect beside the files at `root`; see rsdiff.config.reading.DependsOnFiles."""
        if not self.root or not is_packed(self.root):
            return {}
        kept = {name for base in type(self).__mro__ for name in vars(base).get("read_when_packed", ())}
        sentence = (
            f"has no effect with dataset.root={self.root}, a packed file that records it; leave it out, or give it to the task=prepare "
            "command that makes the file."
        )
        return {option.name: sentence for option in fields(self) if option.name not in kept}

    def build(self, split: Split, scale: float) -> ImageSource:
        """Open the training or the test images; what is measured, such as the range of their values, is measured on training images."""
        check_root(self)
        return self._opened(split, scale, None if is_packed(self.root) else self.parts(scale))

    def build_each(self, scale: float) -> dict[Split, ImageSource]:
        """Open the training and the test images, looking at the folder once."""
        check_root(self)
        parts = None if is_packed(self.root) else self.parts(scale)
        return {split: self._opened(split, scale, parts) for split in SPLITS}

    def _opened(self, split: Split, scale: float, parts: Parts[Item] | None) -> ImageSource:
        """Return one split, of the packed file where there are no parts."""
        limit = self.limit if split == "train" else self.test_limit
        if parts is None:
            return self.derived(cached(PackedSource(folder_of(self), split, scale, limit), self.cache_mb, scale), split)
        options, left_out = self.refined(parts)
        tiling = self.tiling(split)
        files = FileSource(_first(parts.of(split), None if tiling else limit), options, scale, self._measured_on(parts))
        files.left_out = [*files.left_out, *left_out]
        source: ImageSource = files
        if tiling is not None:
            source = TiledSource(source, tiling.side, tiling.per_image, limit)
        return self.derived(cached(source, self.cache_mb, scale), split)

    def _measured_on(self, parts: Parts[Item]) -> Sequence[Item]:
        if isinstance(parts.train, DataError):
            if self.value_rule.is_measured:
                raise DataError(
                    f"dataset.normaliser.rule={self.value_rule.rule} is measured on training images and there are none: "
                    f"{str(parts.train).rstrip('.')}, or set dataset.normaliser.rule=fixed with dataset.normaliser.low and high."
                )
            return parts.of("test")
        usable = [item for item in parts.train if not item.problem]
        return _first(usable, None if self.tiling("train") else self.limit)


@config
class SplitDataset(FileDataset):
    """Options of data sets whose training and test images are distinguished by folders, names or lists."""

    located: ClassVar[frozenset[str]] = frozenset({"train_list", "test_list"})
    read_with: ClassVar[ReadWith] = {
        "test_fraction": ("split", ("fraction", "auto")),
        "train_list": ("split", ("list",)),
        "test_list": ("split", ("list",)),
        "test_pattern": ("split", ("pattern",)),
    }

    split: Literal["auto", "folders", "fraction", "list", "pattern", "all", "test"] = "auto"
    """folders: train/ and test/ (or val/); fraction: drawn from the names; list: text files; pattern: by name; all: every image trains and
    tests; test: every image tests; auto: folders where they exist, else fraction, and test where task=evaluate is given the data alone."""
    test_fraction: float = 0.1
    """Share of test images (fraction)."""
    train_list: str = ""
    """Text file with one training image name per line, or a pickled dictionary of splits (list)."""
    test_list: str = ""
    """The same for test images (list)."""
    test_pattern: str = "test*"
    """Names of test images, with * and ? (pattern)."""

    def __post_init__(self) -> None:
        FileDataset.__post_init__(self)
        if not 0 < self.test_fraction < 1:
            raise UserError(f"test_fraction is {self.test_fraction}; it must lie between 0 and 1.")

    def items(self, folder: Path, prefix: str, scale: float) -> Sequence[Item]:
        """Return the images below a folder, their names beginning with `prefix`."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise DataError when the folder is missing or holds no image."""
        check_root(self)
        if not is_packed(self.root) and not list_images(folder_of(self), self.extensions):
            raise no_images(folder_of(self), self.extensions)

    def for_testing(self) -> Self:
        """See FileDataset. A normaliser that is measured needs training images, so that the names go on telling which test."""
        if self.split != "auto" or self.value_rule.is_measured or not self.root or is_packed(self.root):
            return self
        root = folder_of(self)
        if not root.is_dir() or any(split_folder(root, split) for split in ("train", "test")):
            return self
        return replace(self, split="test")

    def unread_beside_files(self) -> Mapping[str, str]:
        """See FileDataset: names do not divide what folders divide."""
        if not self.root or not folder_of(self).is_dir():
            return super().unread_beside_files()
        own = self.dividing_folders(folder_of(self))
        if not own or self.split != "auto":
            return {}
        return {
            "test_fraction": f"has no effect with dataset.split=auto where {self.root} has {own}; leave it out, or set "
            "dataset.split=fraction."
        }

    def dividing_folders(self, root: Path) -> str:
        """Return the names of the folders below `root` that tell test images from others for split=auto; '' where none do."""
        train, test = split_folder(root, "train"), split_folder(root, "test")
        if train is not None and test is None and not self._others(root, train):
            return ""
        return " and ".join(f"{folder.name}/" for folder in (train, test) if folder is not None)

    def parts(self, scale: float) -> Parts[Item]:
        """See FileDataset."""
        root = folder_of(self)
        train, test = split_folder(root, "train"), split_folder(root, "test")
        if self.split == "folders" or (self.split == "auto" and (train or test)):
            return self._by_folders(root, train, test, scale)
        return self.by_names(self.items(root, "", scale), root)

    def by_names(self, items: Sequence[Item], root: Path) -> Parts[Item]:
        """Return the parts of `items` by list, pattern or fraction."""
        if not items:
            raise no_images(root, self.extensions)
        by_name = {item.name: item for item in items}
        names = split_by_names(list(by_name), self.split, self.test_fraction, self.test_pattern, self.train_list, self.test_list, root)
        return names.of_each(by_name)

    def _by_folders(self, root: Path, train: Path | None, test: Path | None, scale: float) -> Parts[Item]:
        """Return the images of train/ and test/. A part whose folder is missing is asked for, unless nothing can be mistaken."""
        found = {folder: self.items(folder, f"{folder.name}/", scale) for folder in (train, test) if folder is not None}
        if self.split == "auto" and train is not None and test is None and not self._others(root, train):
            return self.by_names(found[train], train)  # a folder of images that happens to be called train

        def part(folder: Path | None, other: Path | None, name: str) -> Sequence[Item] | DataError:
            if folder is not None:
                return found[folder] or no_images(folder, self.extensions)
            has = f" and has {other.name}/" if other is not None else ""
            return DataError(
                f"{root} has no folder {name}{has}, so that it is not said which images are {'training' if name == 'train/' else 'test'} "
                f"images; add the folder, or draw test images from all images there are with dataset.split=fraction."
            )

        return Parts(part(train, test, "train/"), part(test, train, "test/ or val/"))

    def _others(self, root: Path, folder: Path) -> bool:
        return any(not path.is_relative_to(folder) for path in list_images(root, self.extensions))


def _first(items: Sequence[Item], limit: int | None) -> list[Item]:
    by_name = {item.name: item for item in items}
    return [by_name[name] for name in limited(list(by_name), limit)]


def list_items(folder: Path, prefix: str, role: str, extensions: Sequence[str]) -> list[Item]:
    """Return one item per image below `folder`, named by its path without ending."""
    found = by_stem(list_images(folder, extensions), folder)
    return [Item(prefix + stem, {role: path}, class_label(stem)) for stem, path in found.items()]


def by_stem(paths: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Return the paths by their name below `folder`, without ending; two files of one name are refused."""
    found: dict[str, Path] = {}
    start = 0 if folder == Path() else len(str(folder).rstrip(os.sep)) + 1
    for path in paths:
        stem = os.path.splitext(str(path)[start:])[0].replace(os.sep, "/")
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


def folder_of(options: FileDataset) -> Path:
    """Return the root as a path, '~' expanded."""
    return typed_path(options.root)


def check_root(options: FileDataset) -> None:
    """Raise DataError, with what to download where that is known, when the root is missing or neither a folder nor a packed file."""
    if not options.root:
        raise DataError(f"dataset.root is not given; {_get(options)}set dataset.root=FOLDER to the folder that holds the images.")
    root = folder_of(options)
    if not root.exists():
        raise DataError(f"dataset.root={options.root} does not exist; {advice(options)}")
    if not root.is_dir() and not is_packed(options.root):
        raise DataError(f"dataset.root={options.root} is neither a folder nor a packed data set; {advice(options)}")


def advice(options: FileDataset) -> str:
    """Return what to do when the data are not where they should be."""
    if not options.download:
        return f"give the folder that holds the images (seen from {Path.cwd()})."
    return f"{options.download}; or give the place of the data with dataset.root=FOLDER (seen from {Path.cwd()})."


def no_images(folder: Path, extensions: Sequence[str]) -> DataError:
    """Return the error for a folder without images."""
    return DataError(f"{folder} holds no image ({', '.join(extensions)}); give another dataset.root or add to dataset.extensions.")


def _get(options: FileDataset) -> str:
    return f"{options.download} and " if options.download else ""
