"""What users type on folders of their own: every image that tests is new to the model, and every run says how many images it used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Command, Ended

TRAIN = (
    "model=rrdb_tiny",
    "trainer=minimal",
    "trainer.steps=2",
    "trainer.validate_every_steps=2",
    "scale=2",
    "trainer.patch=16",
    "metrics.panels=0",
)
EVALUATE = ("task=evaluate", "model=bicubic", "scale=2", "metrics.metrics=[psnr]", "metrics.panels=0")


def images(folder: Path, count: int, first: int = 0, side: int = 24) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        values = np.random.default_rng(number).integers(0, 255, (side // 4, side // 4, 3)).astype(np.uint8)
        Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


def counts(ended: Ended) -> dict[str, int]:
    """Return how many images a run says that it uses."""
    line = next(line for line in ended.out.splitlines() if line.startswith("data "))
    return {what: int(number) for number, what in re.findall(r"(\d+) (training|validation|test)", line)}


def results(folder: Path) -> str:
    (found,) = folder.rglob("results.md")
    return found.read_text()


def test_evaluating_a_plain_folder_takes_all_of_it_and_says_so(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "mine", 12)
    ended = run_command(*EVALUATE, "dataset=folder", "dataset.root=mine")
    assert ended.code == 0, ended.err
    assert counts(ended) == {"test": 12}
    said = results(tmp_path / "outputs")
    assert "12 test images; 3 bands; stored values from 0 to 255 become 0 to 1; scored rounded to whole numbers with peak 255" in said
    (records,) = (tmp_path / "outputs").rglob("records.csv")
    assert len(records.read_text().splitlines()) == 1 + 12
    share = run_command(*EVALUATE, "dataset=folder", "dataset.root=mine", "dataset.split=fraction")
    assert counts(share) == {"test": 1}


@pytest.fixture
def trained(run_command: Command, tmp_path: Path) -> Path:
    images(tmp_path / "mine", 12)
    ended = run_command(*TRAIN, "dataset=folder", "dataset.root=mine")
    assert ended.code == 0, ended.err
    assert counts(ended) == {"training": 10, "validation": 1, "test": 1}
    (run,) = (tmp_path / "outputs" / "train").glob("*/*")
    assert "10 training, 1 validation, 1 test images" in results(run)
    (card,) = run.rglob("card.json")
    assert len(json.loads(card.read_text())["trained_on"]) == 10 * 8
    return run


def test_a_checkpoint_is_never_tested_on_its_training_images_unasked(run_command: Command, tmp_path: Path, trained: Path) -> None:
    evaluate = ("task=evaluate", f"checkpoint={trained}", "metrics.metrics=[psnr]", "metrics.panels=0")
    own = run_command(*evaluate)
    assert counts(own) == {"test": 1}
    same_folder = run_command(*evaluate, "dataset=folder", f"dataset.root={tmp_path / 'mine'}")
    assert "already finished" in same_folder.out  # the same test image, wherever the folder is said to be

    images(tmp_path / "copy", 14)  # the same twelve images and two new ones, elsewhere
    refused = run_command(*evaluate, "dataset=folder", "dataset.root=copy")
    assert refused.code == 1
    assert "was trained on 10 of the 14 images" in refused.err
    advised = re.search(r"set (dataset\.split=\w+)", refused.err)
    assert advised is not None
    all_the_same = run_command(*evaluate, "dataset=folder", "dataset.root=copy", advised[1])
    assert all_the_same.code == 0, all_the_same.err
    assert counts(all_the_same) == {"test": 14}
    assert "caution  10 of the 14 test images are images that" in all_the_same.out

    images(tmp_path / "new", 3, first=100)
    new = run_command(*evaluate, "dataset=folder", "dataset.root=new")
    assert counts(new) == {"test": 3}
    assert "caution" not in new.out


def test_copies_of_training_images_among_the_test_images_are_told(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "mine" / "train", 8)
    images(tmp_path / "mine" / "test", 3, first=6)
    ended = run_command(*TRAIN, "dataset=folder", "dataset.root=mine")
    assert ended.code == 0, ended.err
    assert "caution  2 of the 3 test images have the content of training images" in ended.out
    assert "test/6, test/7" in ended.out


@pytest.mark.slow
def test_training_and_testing_on_all_images_is_done_when_asked_and_told(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "mine", 6)
    ended = run_command(*TRAIN, "dataset=folder", "dataset.root=mine", "dataset.split=all")
    assert ended.code == 0, ended.err
    assert counts(ended) == {"training": 5, "validation": 1, "test": 6}
    assert "caution  6 of the 6 test images are training images, too" in ended.out


def test_a_data_set_that_is_all_for_testing_is_not_trained_on(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "data" / "dior" / "HR", 6)
    refused = run_command(*TRAIN, "dataset=dior")
    assert refused.code == 1
    advised = re.search(r"set (dataset\.split=\w+)", refused.err)
    assert advised is not None
    ended = run_command(*TRAIN, "dataset=dior", advised[1])
    assert ended.code == 0, ended.err
    assert counts(run_command(*EVALUATE, "dataset=dior")) == {"test": 6}


def test_images_added_to_a_plain_folder_are_evaluated(run_command: Command, tmp_path: Path) -> None:
    """All images test, so each of them is part of what the run is, whatever a fraction would have made of it."""
    images(tmp_path / "mine", 5)
    assert counts(run_command(*EVALUATE, "dataset=folder", "dataset.root=mine")) == {"test": 5}
    images(tmp_path / "mine", 1, first=5)
    assert counts(run_command(*EVALUATE, "dataset=folder", "dataset.root=mine")) == {"test": 6}
