"""Which images train and which test: by folders, list files, name patterns, or a share that is drawn from the names."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Generic, TypeVar

from rsdiff.config.paths import typed_path
from rsdiff.data.source import DataError, Split

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Parts(Generic[T]):
    """The images of a data set that train and those that test, decided together: no image is in both unless the user asks for it.

    train, test  the images, or the reason why there are none, which is raised when they are asked for
    """

    train: Sequence[T] | DataError
    test: Sequence[T] | DataError

    def of(self, split: Split) -> Sequence[T]:
        """Return the images of one split; raises DataError where there are none."""
        found = self.train if split == "train" else self.test
        if isinstance(found, DataError):
            raise found
        return found

    def of_each(self, other: Mapping[T, U]) -> Parts[U]:
        """Return the same parts of what `other` has for every image."""

        def mapped(part: Sequence[T] | DataError) -> Sequence[U] | DataError:
            return part if isinstance(part, DataError) else [other[name] for name in part]

        return Parts(mapped(self.train), mapped(self.test))


def split_by_names(
    names: Sequence[str], rule: str, test_fraction: float, test_pattern: str, train_list: str, test_list: str, root: Path
) -> Parts[str]:
    """Return the training and test names by `rule`: list, pattern, all, test, or a fraction for anything else."""
    match rule:
        case "all":
            return Parts(names, names)
        case "test":
            reason = (
                f"dataset.split=test lets every image of {root} test, so that none trains; to train on some, set dataset.split=fraction."
            )
            return Parts(DataError(reason), names)
        case "list":
            return by_lists(names, train_list, test_list)
        case "pattern":
            return by_pattern(names, test_pattern)
        case _:
            return by_fraction(names, test_fraction, str(root))


def name_position(name: str) -> float:
    """Return a number in [0, 1) that depends on `name` alone, so that a split does not change when files are added."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


def by_fraction(names: Sequence[str], test_fraction: float, where: str) -> Parts[str]:
    """Return the names whose position lies under `test_fraction` as test names, the others as training names.

    When no name (or every name) lies under it, the lowest (highest) one is moved, so that neither part is empty.
    """
    if len(names) < 2:
        reason = DataError(
            f"{where} holds one image, which cannot be split; add images, or train and test on all of them with dataset.split=all."
        )
        return Parts(reason, reason)
    positions = {name: name_position(name) for name in names}
    ranked = sorted(names, key=positions.__getitem__)
    count = sum(position < test_fraction for position in positions.values())
    count = min(max(count, 1), len(names) - 1)
    chosen = set(ranked[:count])
    return Parts([name for name in names if name not in chosen], [name for name in names if name in chosen])


def by_lists(names: Sequence[str], train_list: str, test_list: str) -> Parts[str]:
    """Return the names that two list files have; a name in both is refused, a list that was not given is asked for when it is needed."""
    parts: dict[str, list[str] | DataError] = {}
    for option, place in (("train_list", train_list), ("test_list", test_list)):
        try:
            parts[option] = by_list(names, place, option)
        except DataError as reason:
            if place:
                raise
            parts[option] = reason
    train, test = parts["train_list"], parts["test_list"]
    if not isinstance(train, DataError) and not isinstance(test, DataError) and (shared := sorted(set(train) & set(test))):
        raise DataError(f"{train_list} and {test_list} both name '{shared[0]}' ({len(shared)} such images); take them out of one.")
    return Parts(train, test)


def by_list(names: Sequence[str], list_file: str, option: str) -> list[str]:
    """Return the names that `list_file` has, with or without the ending of the file name.

    list_file  text with one name per line, or a .pkl of {"train": [names], "test": [names]} (LDCSR's AID_split.pkl), of which the list
               of `option`, train_list or test_list, is read
    A line may be the last part of a name where one image alone has it; a line that means an image named before is refused.
    """
    path = typed_path(list_file)
    if not list_file or not path.is_file():
        raise DataError(f"dataset.{option}={list_file or '(empty)'} is not a file; give a text file with one image name per line.")
    if path.suffix == ".pkl":
        wanted = pickled_names(path, option.removesuffix("_list"))
    else:
        wanted = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    whole = set(names)
    by_last: dict[str, list[str]] = {}
    for name in names:
        by_last.setdefault(name.rsplit("/", 1)[-1], []).append(name)
    chosen: dict[str, str] = {}
    for line in wanted:
        name = _named(line, whole, by_last, path)
        if name in chosen:
            raise DataError(f"{path} names '{name}' twice (as '{chosen[name]}' and '{line}'); delete one of the lines.")
        chosen[name] = line
    if not chosen:
        raise DataError(f"{path} names no image; give one name per line.")
    return list(chosen)


def _named(line: str, whole: set[str], by_last: Mapping[str, Sequence[str]], path: Path) -> str:
    """Return the image that a line of a list means."""
    for text in (line, str(Path(line).with_suffix(""))):
        if text in whole:
            return text
        found = by_last.get(text, [])
        if len(found) > 1:
            raise DataError(f"{path} names '{line}', which may be {found[0]} or {found[1]}; write the name with its folder.")
        if found:
            return found[0]
    raise DataError(
        f"{path} names '{line}', which is not among the {len(whole)} images of the data set; write names as it has them, below its "
        f"folder, such as '{min(whole)}'."
    )


class _DataOnly(pickle.Unpickler):
    """An unpickler of plain lists, dictionaries, strings and numbers: a file that asks for any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise DataError(f"it asks for {module}.{name}, which a list of names has no use for")

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("it refers to an object outside of itself")


def pickled_names(path: Path, split: str) -> list[str]:
    """Return the list of strings under key `split` of a pickled dictionary; nothing in the file is executed.

    Raises DataError for a file that holds anything but plain values, or no such list.
    """
    try:
        with path.open("rb") as stream:
            content = _DataOnly(stream).load()
    except (DataError, pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as lists of names ({error}); give a text file with one name per line.") from None
    names = content.get(split) if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} has no list of names under '{split}'; give a text file with one name per line.")
    return names


def by_pattern(names: Sequence[str], test_pattern: str) -> Parts[str]:
    """Return the names that match `test_pattern` (as whole names or last parts) as test names, the others as training names."""
    test = {name for name in names if fnmatchcase(name, test_pattern) or fnmatchcase(name.rsplit("/", 1)[-1], test_pattern)}

    def part(wanted: bool, which: str) -> list[str] | DataError:
        chosen = [name for name in names if (name in test) == wanted]
        return chosen or DataError(
            f"{which} image matches dataset.test_pattern={test_pattern}; the names look like {names[0]}: correct the pattern."
        )

    return Parts(part(False, "every"), part(True, "no"))


def split_folder(root: Path, split: Split) -> Path | None:
    """Return the sub-folder of `root` that holds a split ('train', 'Test', 'val', ...), or None."""
    wanted = TRAIN_FOLDERS if split == "train" else TEST_FOLDERS
    found = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return next((found[name] for name in wanted if name in found), None)


def limited(names: Sequence[str], limit: int | None) -> list[str]:
    """Return at most `limit` names, chosen by their position (spread over classes and places), in the given order."""
    if limit is None or limit >= len(names):
        return list(names)
    chosen = set(sorted(names, key=name_position)[:limit])
    return [name for name in names if name in chosen]
