"""What holds for every kind of data set: no image trains and tests, and only training images set the normaliser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from rsdiff.data import (
    DATASETS,
    CnamCdDataset,
    FolderDataset,
    HyperspectralDataset,
    LayoutDataset,
    PackedDataset,
    PairedDataset,
    SecondDataset,
    SyntheticDataset,
)
from rsdiff.data.digests import found_in, short_digests
from rsdiff.data.holdout import hold_out
from rsdiff.data.normalisation import NormaliserConfig
from rsdiff.data.packing import pack
from rsdiff.data.scanning import Item
from rsdiff.data.source import SPLITS, DataError, ImageSource
from rsdiff.data.splits import Parts

SIDE = 16


def picture(path: Path, level: int, side: int = SIDE) -> Path:
    """Write an image of random values from 0 to `level`, which the largest value of the image is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(path.as_posix().encode()[-16:], "big")
    values = np.random.default_rng(seed).integers(0, level, (side, side, 3)).astype(np.uint8)
    values[0, 0] = level
    Image.fromarray(values).save(path)
    return path


def folder(root: Path, train: int, test: int) -> Any:
    for number in range(6):
        picture(root / "train" / "a" / f"{number}.png", train)
        picture(root / "test" / "a" / f"{number}.png", test)
    return FolderDataset(root=str(root))


def layout(root: Path, train: int, test: int) -> Any:
    folder(root, train, test)
    return LayoutDataset(root=str(root), train_folders=("train",), test_folders=("test",), image_folders=(".",))


def paired(root: Path, train: int, test: int) -> Any:
    for split, level in (("train", train), ("test", test)):
        for number in range(4):
            picture(root / split / "HR" / f"{number}.png", level)
            picture(root / split / "LR" / f"{number}.png", level, SIDE // 4)
    return PairedDataset(root=str(root))


def hyperspectral(root: Path, train: int, test: int) -> Any:
    root.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, min(train, test), (5, SIDE, 4 * SIDE)).astype(np.uint16)
    values[:, 0, 0], values[:, 0, -1] = train, test
    np.save(root / "scene.npy", values)
    return HyperspectralDataset(root=str(root))


def reference(kind: type) -> Callable[[Path, int, int], Any]:
    def make(root: Path, train: int, test: int) -> Any:
        for split, level, prefix in (("train", train, "real_LR"), ("test", test, "Bic_LR")):
            for number in range(3):
                for name in ("HR_512", "Ref"):
                    picture(root / split / name / f"{number}.png", level)
                picture(root / split / f"{prefix}_D4_4" / f"{number}.png", level, SIDE // 4)
                mask = root / split / "CD_mask" / f"{number}.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(mask)
        return kind(root=str(root))

    return make


def packed(root: Path, train: int, test: int) -> Any:
    data = replace(folder(root / "in", train, test), normaliser=NormaliserConfig(rule="maximum"))
    pack({split: data.build(split, 4.0) for split in SPLITS}, root / "data.h5", "stop", 4.0, lambda done, total: None)
    return PackedDataset(file=str(root / "data.h5"))


def synthetic(root: Path, train: int, test: int) -> Any:
    return SyntheticDataset(size=SIDE, train_images=4, test_images=3)


KINDS: dict[str, Callable[[Path, int, int], Any]] = {
    "folder": folder,
    "layout": layout,
    "paired": paired,
    "hyperspectral": hyperspectral,
    "second": reference(SecondDataset),
    "cnam_cd": reference(CnamCdDataset),
    "packed": packed,
    "synthetic": synthetic,
}
MEASURED = sorted(set(KINDS) - {"packed", "synthetic"})
RULES: tuple[Literal["percentile", "maximum"], ...] = ("percentile", "maximum")


def names(source: ImageSource) -> set[str]:
    return {source.name(index) for index in range(len(source))}


def test_every_kind_of_data_set_is_tried_here() -> None:
    assert set(KINDS) == set(DATASETS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_trains_and_tests(kind: str, tmp_path: Path) -> None:
    data = KINDS[kind](tmp_path / "data", 100, 200)
    train, test = (data.build(split, 4.0) for split in SPLITS)
    assert not names(train) & names(test)
    assert not found_in(test.contents(), short_digests(train.contents()))
    assert len(train.contents()) == len(train)


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_trains_and_validates(kind: str, tmp_path: Path) -> None:
    everything = KINDS[kind](tmp_path / "data", 100, 200).build("train", 4.0)
    train, held = hold_out(everything, 1, 4.0)
    assert len(held) == 1
    assert not names(train) & names(held)
    assert not set(train.contents()) & set(held.contents())
    if len(everything) == 1:
        (H, W), (_, w) = everything.size(0), train.size(0)
        assert held.size(0) == (H, W - w)
        whole = everything.raw(0).arrays["hr"]
        assert (np.concatenate([train.raw(0).arrays["hr"], held.raw(0).arrays["hr"]], axis=2) == whole).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", MEASURED)
def test_values_are_measured_on_training_images_alone(kind: str, rule: Literal["percentile", "maximum"], tmp_path: Path) -> None:
    data = replace(KINDS[kind](tmp_path / "data", 100, 200), normaliser=NormaliserConfig(rule=rule, percentiles=(0.0, 100.0)))
    train, test = (data.build(split, 4.0) for split in SPLITS)
    assert set(train.normaliser.high) == {100.0}
    assert test.normaliser == train.normaliser
    assert test.lr_normaliser == train.lr_normaliser


@pytest.mark.parametrize("kind", MEASURED)
def test_a_kind_of_data_set_decides_no_split_by_itself(kind: str) -> None:
    """One base class opens splits and measures; a kind that does so itself may decide otherwise for each split."""
    assert "build" not in vars(DATASETS[kind])


# Folders that say only half of what is needed


def outcome(data: Any, split: Literal["train", "test"]) -> set[str] | str:
    try:
        return names(data.build(split, 4.0))
    except DataError as error:
        return str(error)


@dataclass(frozen=True)
class Half:
    """Folders of images, and what becomes of the two splits: their names, or a part of the sentence that refuses them."""

    folders: tuple[str, ...]
    data: Callable[[str], Any]
    train: int | str
    test: int | str


HALVES = {
    "only_train": Half(("train",), lambda root: FolderDataset(root=root), 19, 1),
    "only_test": Half(("test",), lambda root: FolderDataset(root=root), "no folder train/", 20),
    "test_beside_images": Half(("test", "images"), lambda root: FolderDataset(root=root), "dataset.split=fraction", 20),
    "train_beside_images": Half(("train", "images"), lambda root: FolderDataset(root=root), 20, "dataset.split=fraction"),
    "folders_are_asked_for": Half(("train",), lambda root: FolderDataset(root=root, split="folders"), 20, "dataset.split=fraction"),
    "one_published_folder": Half(
        ("UCM_train",),
        lambda root: LayoutDataset(root=root, train_folders=("UCM_train",), test_folders=("UCM_test",), image_folders=(".",)),
        20,
        "dataset=folder",
    ),
    "the_other_published_folder": Half(
        ("UCM_test",),
        lambda root: LayoutDataset(root=root, train_folders=("UCM_train",), test_folders=("UCM_test",), image_folders=(".",)),
        "dataset=folder",
        20,
    ),
}


@pytest.mark.parametrize("case", HALVES)
def test_half_a_layout_never_tests_on_training_images(case: str, tmp_path: Path) -> None:
    half = HALVES[case]
    for name in half.folders:
        for number in range(20):
            picture(tmp_path / name / f"{number}.png", 100)
    found = {split: outcome(half.data(str(tmp_path)), split) for split in SPLITS}
    for split, expected in (("train", half.train), ("test", half.test)):
        got = found[split]
        if isinstance(expected, int):
            assert isinstance(got, set), got
            assert abs(len(got) - expected) <= 3
        else:
            assert isinstance(got, str)
            assert expected in got
    train, test = found["train"], found["test"]
    if isinstance(train, set) and isinstance(test, set):
        assert not train & test


@pytest.mark.parametrize("case", [case for case, half in HALVES.items() if isinstance(half.train, str) or isinstance(half.test, str)])
def test_the_advice_about_half_a_layout_works(case: str, tmp_path: Path) -> None:
    half = HALVES[case]
    for name in half.folders:
        for number in range(20):
            picture(tmp_path / name / f"{number}.png", 100)
    said = next(text for split in SPLITS if isinstance(text := outcome(half.data(str(tmp_path)), split), str))
    typed = dict(re.findall(r"(dataset(?:\.\w+)?)=([^\s,;]+[^\s,;.])", said.split("; ")[-2 if "dataset=folder" in said else -1]))
    data = half.data(str(tmp_path)) if "dataset" not in typed else FolderDataset(root=typed["dataset.root"])
    advised = replace(data, split=typed["dataset.split"])
    train, test = (names(advised.build(split, 4.0)) for split in SPLITS)
    assert len(train) + len(test) == 20 * len(half.folders)
    assert not train & test


def test_every_image_of_a_plain_folder_tests_where_nothing_trains(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / "x" / f"{number}.png", 100)
    alone = FolderDataset(root=str(tmp_path)).for_testing()
    assert len(alone.build("test", 4.0)) == 10
    with pytest.raises(DataError, match=r"set dataset\.split=fraction"):
        alone.build("train", 4.0)
    measured = FolderDataset(root=str(tmp_path), normaliser=NormaliserConfig(rule="maximum")).for_testing()
    assert len(measured.build("test", 4.0)) < 10
    (tmp_path / "test").mkdir()
    picture(tmp_path / "test" / "only.png", 100)
    assert names(FolderDataset(root=str(tmp_path)).for_testing().build("test", 4.0)) == {"test/only"}


def test_a_measured_normaliser_without_training_images_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", 100)
    with pytest.raises(DataError, match=r"measured on training images .*normaliser.rule=fixed"):
        FolderDataset(root=str(tmp_path), split="test", normaliser=NormaliserConfig(rule="maximum")).build("test", 4.0)


# Lists


def listed(tmp_path: Path, train: str, test: str) -> Parts[Item]:
    for name in ("a/0", "b/0", "b/1", "2"):
        picture(tmp_path / "images" / f"{name}.png", 100)
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "test.txt").write_text(test)
    lists = {"train_list": str(tmp_path / "train.txt"), "test_list": str(tmp_path / "test.txt")}
    return FolderDataset(root=str(tmp_path / "images"), split="list", **lists).parts(1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("a/0\nb/1\n", "2\nb/1.png\n", "both name 'b/1'"),
        ("0\n", "2\n", "may be a/0 or b/0; write the name with its folder"),
        ("b/1\n1.png\n", "2\n", r"names 'b/1' twice \(as 'b/1' and '1.png'\)"),
    ],
)
def test_lists_that_say_two_things_are_refused(tmp_path: Path, train: str, test: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        listed(tmp_path, train, test)


def test_a_list_may_leave_folders_out_where_one_image_has_the_name(tmp_path: Path) -> None:
    parts = listed(tmp_path, "a/0.png\n1\n", "2\n")
    assert [item.name for item in parts.of("train")] == ["a/0", "b/1"]


# Validation


def held_names(count: int, images: int) -> set[str]:
    return names(hold_out(SyntheticDataset(size=16, train_images=images).build("train", 1.0), count, 1.0)[1])


def test_an_image_that_trained_never_validates_when_images_are_added() -> None:
    before, after = held_names(8, 100), held_names(8, 140)
    assert len(before) == len(after) == 8
    assert all(int(name[-5:]) >= 100 for name in after - before)


def test_more_validation_images_than_there_are_is_refused_with_a_number_that_works() -> None:
    with pytest.raises(DataError) as caught:
        held_names(9, 5)
    advised = re.search(r"trainer\.validation_images=(\d+)\.$", str(caught.value))
    assert advised is not None
    assert len(held_names(int(advised[1]), 5)) == int(advised[1])


@pytest.mark.parametrize("images", [2, 3, 4])
def test_a_few_images_do_not_validate_on_what_they_train_on(images: int) -> None:
    source = SyntheticDataset(size=16, train_images=images).build("train", 1.0)
    train, held = hold_out(source, 1, 1.0)
    assert (len(train), len(held)) == (images - 1, 1)
