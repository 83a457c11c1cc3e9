"""Which images train and which test: by folders, list files, name patterns, or a share that is drawn from the names."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rsdiff.data.source import DataError, Split

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")


def name_position(name: str) -> float:
    """Return a number in [0, 1) that depends on `name` alone, so that a split does not change when files are added."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


def by_fraction(names: Sequence[str], split: Split, test_fraction: float, where: str) -> list[str]:
    """Return the names of one split: those whose position lies under `test_fraction` test, the others train.

    When no name (or every name) lies under it, the lowest (highest) one is moved, so that neither split is empty.
    """
    if len(names) < 2:
        raise DataError(
            f"{where} holds one image, which cannot be split; add images, or train and test on all of them with dataset.split=all."
        )
    ranked = sorted(names, key=name_position)
    count = sum(name_position(name) < test_fraction for name in names)
    count = min(max(count, 1), len(names) - 1)
    chosen = set(ranked[:count] if split == "test" else ranked[count:])
    return [name for name in names if name in chosen]


def by_list(names: Sequence[str], list_file: str, option: str) -> list[str]:
    """Return the names that `list_file` has, with or without the ending of the file name.

    list_file  text with one name per line, or a .pkl of {"train": [names], "test": [names]} (LDCSR's AID_split.pkl), of which the list
               of `option`, train_list or test_list, is read
    """
    path = Path(list_file).expanduser()
    if not list_file or not path.is_file():
        raise DataError(f"dataset.{option}={list_file or '(empty)'} is not a file; give a text file with one image name per line.")
    if path.suffix == ".pkl":
        wanted = pickled_names(path, option.removesuffix("_list"))
    else:
        wanted = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    known = {**{name.rsplit("/", 1)[-1]: name for name in names}, **{name: name for name in names}}
    chosen = []
    for line in wanted:
        stem = line if line in known else str(Path(line).with_suffix(""))
        if stem not in known:
            raise DataError(f"{path} names '{line}', which is not among the {len(names)} images of the data set; correct the list.")
        chosen.append(known[stem])
    if not chosen:
        raise DataError(f"{path} names no image; give one name per line.")
    return chosen


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


def by_pattern(names: Sequence[str], split: Split, test_pattern: str) -> list[str]:
    """Return test names (those that match `test_pattern`, as whole names or last parts) or the others."""
    chosen = [
        name
        for name in names
        if (fnmatchcase(name, test_pattern) or fnmatchcase(name.rsplit("/", 1)[-1], test_pattern)) == (split == "test")
    ]
    if not chosen:
        which = "no image matches" if split == "test" else "every image matches"
        raise DataError(f"{which} dataset.test_pattern={test_pattern}; the names look like {names[0]}.")
    return chosen


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
