"""Options of data sets that the files at `root` leave without effect are refused where typed; the others are accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsdiff.config import ConfigError
from rsdiff.config.reading import require_effect
from rsdiff.data import DATASETS, FolderDataset, HyperspectralDataset, LayoutDataset, PairedDataset
from rsdiff.data.file_dataset import FileDataset
from rsdiff.tasks.prepare import prepare
from tests.unit.test_options_of_data_and_metrics import picture


def refused(data: Any) -> set[str]:
    """Return the options of a data set that are refused."""
    found: dict[str, str] = {}
    for field in fields(data):
        try:
            require_effect({"dataset": data}, [f"dataset.{field.name}"])
        except ConfigError as error:
            found[field.name] = str(error)
    assert all(text.startswith(f"dataset.{name} has no effect ") and "leave it out, or " in text for name, text in found.items()), found
    return set(found)


def own_folders(root: Path) -> Any:
    for number in range(4):
        picture(root / ("a" if number < 2 else "b") / f"{number}.png", number, (16, 16))
    return LayoutDataset(root=str(root), train_folders=("a",), test_folders=("b",), image_folders=("c",))


def train_and_test(root: Path) -> Any:
    for number in range(4):
        picture(root / ("train" if number < 2 else "test") / f"{number}.png", number, (16, 16))
    return FolderDataset(root=str(root))


def div2k(root: Path) -> Any:
    for split in ("train", "valid"):
        picture(root / f"DIV2K_{split}_HR" / "0001.png", 1, (16, 16))
        picture(root / f"DIV2K_{split}_LR_bicubic" / "X4" / "0001x4.png", 1, (4, 4))
    return PairedDataset(root=str(root))


def cubes(root: Path, count: int) -> Any:
    root.mkdir()
    for number in range(count):
        np.save(root / f"{number}.npy", np.full((3, 8, 8), number, np.uint16))
    return HyperspectralDataset(root=str(root))


LISTS = {"train_list", "test_list", "test_pattern"}
CASES: dict[str, tuple[Callable[[Path], Any], set[str]]] = {
    "folders of a layout": (own_folders, {"test_fraction", *LISTS}),
    "folders of a layout, drawn": (lambda root: replace(own_folders(root), split="fraction"), {"split", "test_fraction", *LISTS}),
    "folders of a layout, listed": (lambda root: replace(own_folders(root), split="list"), {"test_fraction", "test_pattern"}),
    "no folders of a layout's own": (
        lambda root: replace(own_folders(root), train_folders=("x",), test_folders=("y",), image_folders=("a",)),
        LISTS,
    ),
    "train and test": (train_and_test, {"test_fraction", *LISTS}),
    "train and test, drawn": (lambda root: replace(train_and_test(root), split="fraction"), LISTS),
    "DIV2K": (div2k, {"test_fraction", "unchanged_code", *LISTS}),
    "one scene": (lambda root: cubes(root, 1), {"split", *LISTS}),
    "scenes": (lambda root: cubes(root, 3), {"test_side", "gap", *LISTS}),
    "scenes by lists": (lambda root: replace(cubes(root, 3), split="all"), {"test_side", "gap", "test_fraction", *LISTS}),
    "no files": (lambda root: FolderDataset(root=str(root)), LISTS),
}


@pytest.mark.parametrize("case", CASES)
def test_an_option_that_the_files_leave_without_effect_is_refused(case: str, tmp_path: Path) -> None:
    make, expected = CASES[case]
    assert refused(make(tmp_path / "data")) == expected


def test_an_option_that_a_packed_file_records_is_refused(tmp_path: Path) -> None:
    packed = tmp_path / "packed.h5"
    prepare(train_and_test(tmp_path / "data"), packed, "stop", lambda done, total: None)
    kept = {"root", "limit", "test_limit", "download", "small", "size_rule", "cache_mb"}
    roles = {"images_are", "lr", "lr_folder", "ref_folder", "mask_folder", "region", "unchanged_code", "stretch_lr"}
    seen = 0
    for kind in DATASETS:
        cls = DATASETS[kind]
        if issubclass(cls, FileDataset):
            given = {"image_folders": ("a",)} if cls is LayoutDataset else {}
            accepted = {field.name for field in fields(cls)} - refused(cls(root=str(packed), **given))
            assert kept <= accepted, kind
            assert accepted <= kept | roles, (kind, accepted)
            seen += 1
    assert seen > 5
