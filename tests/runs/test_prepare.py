"""task=prepare as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsdiff.data import PackedDataset
from tests.conftest import Command
from tests.unit.test_files import broken_jpeg, folder_of

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def test_a_folder_is_packed_and_the_user_told_what_to_run_next(run_command: Command, tmp_path: Path):
    folder_of(tmp_path / "in", 6)
    ended = run_command("task=prepare", "dataset=folder", "source=in", "output=packed.h5", "dataset.split=all")
    assert ended.code == 0, ended.err
    assert "packed.h5 holds 6 images" in ended.out
    assert "dataset=packed dataset.file=packed.h5" in ended.out
    assert len(PackedDataset(file="packed.h5").build("train", 4.0)) == 6


def test_bad_images_end_it_in_one_sentence_or_are_listed(run_command: Command, tmp_path: Path):
    broken_jpeg(folder_of(tmp_path / "in", 6) / "broken.jpg")
    arguments = ("task=prepare", "dataset=folder", "source=in", "output=packed.h5", "dataset.split=all")
    ended = run_command(*arguments)
    assert ended.code == 1
    assert "broken.jpg is truncated or damaged" in ended.err
    assert "task.on_error=skip" in ended.err
    ended = run_command(*arguments, "task.on_error=skip")
    assert ended.code == 0, ended.err
    assert "1 images were left out" in ended.out
    assert "broken: " in ended.out


@pytest.mark.parametrize(("arguments", "words"), [(["source=nowhere"], "nowhere does not exist"), ([], "dataset.root is not given")])
def test_missing_data_are_told_before_anything_is_written(run_command: Command, tmp_path: Path, arguments: list[str], words: str):
    ended = run_command("task=prepare", "dataset=folder", "output=packed.h5", *arguments)
    assert ended.code == 1
    assert words in ended.err
    assert not list(tmp_path.glob("packed*"))


def test_generated_scenes_can_be_packed_without_a_source(run_command: Command):
    ended = run_command(
        "task=prepare", "dataset=synthetic", "dataset.size=32", "dataset.train_images=2", "dataset.test_images=1", "output=a.h5"
    )
    assert ended.code == 0, ended.err
    assert "a.h5 holds 3 images (2 train, 1 test; hr, ref, change_mask; 3 bands" in ended.out
    assert "source=nowhere does not exist" in run_command("task=prepare", "dataset=folder", "source=nowhere", "output=b.h5").err
