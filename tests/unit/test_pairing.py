"""Pairs of HR and LR files as data sets are distributed, and what is said of files that are none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rsdiff.data import PairedDataset
from rsdiff.data.source import DataError

SCALE = 4


def picture(path: Path, seed: int, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)).save(path)


def write(root: Path, names: dict[str, str], count: int = 3) -> None:
    """Write pairs; `names` are the paths of HR and LR with '{n}' for what identifies the image."""
    for number in range(count):
        for role, side in (("hr", 16), ("lr", 16 // SCALE)):
            picture(root / names[role].format(n=("baby", "bird", "butterfly", "head")[number]), number, side)


LAYOUTS = {
    "plain": ({"hr": "HR/{n}.png", "lr": "LR/{n}.png"}, "HR", "LR"),
    "set5_suffixes": ({"hr": "HR/{n}_HR.png", "lr": "LR/{n}_LR.png"}, "HR", "LR"),
    "prefixes": ({"hr": "HR/hr_{n}.png", "lr": "LR/lr_{n}.png"}, "HR", "LR"),
    "div2k_suffix": ({"hr": "HR/{n}.png", "lr": "LR/{n}x4.png"}, "HR", "LR"),
    "both_sides": ({"hr": "HR/img_{n}_SRF_4_HR.png", "lr": "LR/img_{n}_SRF_4_LR.png"}, "HR", "LR"),
    "selfexsr_side_by_side": ({"hr": "image_SRF_4/img_{n}_SRF_4_HR.png", "lr": "image_SRF_4/img_{n}_SRF_4_LR.png"}, "", ""),
    "one_folder": ({"hr": "{n}_HR.png", "lr": "{n}_LR.png"}, "", ""),
    "one_folder_with_scale": ({"hr": "{n}_HR.png", "lr": "{n}_LRx4.png"}, "", ""),
    "edsr_benchmark": ({"hr": "HR/{n}.png", "lr": "LR_bicubic/X4/{n}x4.png"}, "", ""),
    "df2k": ({"hr": "DF2K_HR/{n}.png", "lr": "DF2K_LR_bicubic/X4/{n}x4.png"}, "", ""),
    "basicsr_benchmark": ({"hr": "GTmod12/{n}.png", "lr": "LRbicx4/{n}.png"}, "", ""),
    "class_folders": ({"hr": "HR/port/{n}_HR.png", "lr": "LR/port/{n}_LR.png"}, "HR", "LR"),
}


def pairs_of(data: PairedDataset) -> set[str]:
    source = data.build("test", SCALE)
    for index in range(len(source)):
        sample = source.raw(index).arrays
        number = ("baby", "bird", "butterfly", "head").index(
            next(w for w in ("baby", "bird", "butterfly", "head") if w in source.name(index))
        )
        assert (sample["lr"] == np.random.default_rng(number).integers(0, 255, (4, 4, 3)).astype(np.uint8).transpose(2, 0, 1)).all()
        assert (sample["hr"] == np.random.default_rng(number).integers(0, 255, (16, 16, 3)).astype(np.uint8).transpose(2, 0, 1)).all()
    return {source.name(index) for index in range(len(source))}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_are_recognised_as_they_are_distributed(layout: str, tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS[layout][0])
    assert len(pairs_of(PairedDataset(root=str(tmp_path), split="all"))) == 3


def test_folders_of_div2k_tell_training_from_test_images(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("valid", 2)):
        write(tmp_path, {"hr": f"DIV2K_{split}_HR/{{n}}.png", "lr": f"DIV2K_{split}_LR_bicubic/X4/{{n}}x4.png"}, count)
    data = PairedDataset(root=str(tmp_path))
    assert [len(data.build(split, SCALE)) for split in ("train", "test")] == [3, 2]
    assert len(data.for_testing().build("test", SCALE)) == 2
    with pytest.raises(DataError, match=r"no folder (LR|HR).* set scale=4"):
        data.build("test", 3)


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ({"hr": "HR/{n}_a.png", "lr": "LR/{n}_b.png"}, {"hr_suffix": "_a", "lr_suffix": "_b"}),
        ({"hr": "HR/a-{n}.png", "lr": "LR/b-{n}x4.png"}, {"hr_prefix": "a-", "lr_prefix": "b-", "lr_suffix": "x{scale}"}),
        (
            {"hr": "both/{n}.high.png", "lr": "both/{n}.low.png"},
            {"hr_folder": "both", "lr_folder": "both", "hr_suffix": ".high", "lr_suffix": ".low"},
        ),
    ],
)
def test_affixes_may_be_given(names: dict[str, str], options: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, names)
    assert pairs_of(PairedDataset(root=str(tmp_path), split="all", **options)) == {"baby", "bird", "butterfly"}


def test_two_sets_of_lr_images_are_a_question_whose_answers_work(tmp_path: Path) -> None:
    write(tmp_path, {"hr": "HR/{n}.png", "lr": "LR_bicubic/X4/{n}x4.png"})
    write(tmp_path, {"hr": "HR/{n}.png", "lr": "LR_unknown/X4/{n}x4.png"})
    data = PairedDataset(root=str(tmp_path), split="all")
    with pytest.raises(DataError, match="several folders; choose") as caught:
        data.build("test", SCALE)
    answers = re.findall(r"dataset\.(hr_folder)=(\S+) dataset\.(lr_folder)=([\w/]+)", str(caught.value))
    assert len(answers) == 2
    for hr, high, lr, low in answers:
        assert len(pairs_of(replace(data, **{hr: high, lr: low}))) == 3


def test_a_file_without_partner_is_named_with_a_pair_that_is_there_and_may_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["set5_suffixes"][0])
    picture(tmp_path / "HR" / "head_HR.png", 9, 16)
    data = PairedDataset(root=str(tmp_path), split="all")
    with pytest.raises(DataError) as caught:
        data.build("test", SCALE)
    said = str(caught.value)
    assert "head_HR.png has no partner in" in said
    for name in re.findall(r"(\w+_[HL]R\.png)", said):
        assert list(tmp_path.rglob(name)), f"{name} is named and is not there"
    advised = re.search(r"dataset\.odd=(\w+)", said)
    assert advised is not None
    kept = replace(data, odd=advised[1])  # type: ignore[arg-type]
    assert len(pairs_of(kept)) == 3
    assert [name for name, _ in kept.build("test", SCALE).left_out] == ["head_HR"]


def test_folders_without_any_pair_name_files_that_are_there(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "HR" / f"{number}.png", number, 16)
        picture(tmp_path / "LR" / f"{'xyz'[number]}.png", number, 4)
    with pytest.raises(DataError, match=r"no file of .*HR \(0\.png.*LR \(x\.png.*hr_prefix, hr_suffix, lr_prefix and lr_suffix"):
        PairedDataset(root=str(tmp_path), split="all").build("test", SCALE)
