"""What users get wrong, typed as they type it: one sentence, a non-zero exit, nothing half-written."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Command, Ended
from tests.runs.test_training import SMALL

TINY = [a for a in SMALL if not a.startswith("dataset")] + ["trainer.workers=0"]


def write_images(folder: Path, count: int = 6, size: int = 32, mode: str = "RGB") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        shape = (size, size) if mode in ("L", "I;16") else (size, size, len(mode))
        values = rng.integers(0, 256, shape)
        pixels = values.astype(np.uint16) * 256 if mode == "I;16" else values.astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def assert_refused(ended: Ended, *words: str) -> None:
    """One sentence on stderr that holds all words, and a code that says failure."""
    assert ended.code in (1, 2), ended.out
    (sentence,) = [line for line in ended.err.splitlines() if line.startswith("error")]
    assert sentence.rstrip().endswith(".")
    assert "Traceback" not in ended.err
    for word in words:
        assert word in sentence, sentence


def folder_run(run_command: Command, root: Path, outputs: Path, *more: str) -> Ended:
    return run_command(*TINY, "dataset=folder", f"dataset.root={root}", f"outputs={outputs}", *more)


def test_a_missing_folder_is_named(run_command: Command, tmp_path: Path) -> None:
    assert_refused(folder_run(run_command, tmp_path / "nowhere", tmp_path / "out"), "nowhere", "does not exist")


def test_an_empty_folder_is_named(run_command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(folder_run(run_command, tmp_path / "empty", tmp_path / "out"), "empty", "no image")


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_truncated_image_is_named(run_command: Command, tmp_path: Path, ending: str) -> None:
    images = write_images(tmp_path / "images", 12)
    whole = Image.open(images / "3.png")
    whole.save(images / f"broken.{ending}")
    content = (images / f"broken.{ending}").read_bytes()
    (images / f"broken.{ending}").write_bytes(content[: len(content) // 2])
    ended = folder_run(run_command, images, tmp_path / "out", "dataset.split=all")
    assert_refused(ended, f"broken.{ending}")


def test_an_image_smaller_than_the_crop_is_named(run_command: Command, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 8)
    Image.new("RGB", (12, 12)).save(images / "small.png")
    assert_refused(folder_run(run_command, images, tmp_path / "out", "dataset.split=all"), "small", "12x12", "trainer.patch")


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_an_odd_image_among_colour_images_is_named(run_command: Command, tmp_path: Path, mode: str) -> None:
    images = write_images(tmp_path / "images", 8)
    shutil.move(write_images(tmp_path / "odd", 1, mode=mode) / "0.png", images / "odd.png")
    assert_refused(folder_run(run_command, images, tmp_path / "out"), "odd")


def test_images_of_mixed_sizes_train_and_evaluate(run_command: Command, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 8)
    write_images(images / "larger", 4, size=45)
    ended = folder_run(run_command, images, tmp_path / "out", "dataset.test_fraction=0.4", "trainer.steps=1")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_four_band_images_train_as_they_are(run_command: Command, tmp_path: Path, mode: str) -> None:
    images = write_images(tmp_path / "images", 8, mode=mode)
    ended = folder_run(run_command, images, tmp_path / "out", "trainer.steps=1")
    assert ended.code == 0, ended.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small_disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_too_small_is_told_at_the_start(run_command: Command, small_disk: Path) -> None:
    ended = run_command(*SMALL, "trainer.workers=0", "model.width=32", f"outputs={small_disk}")
    assert_refused(ended, "MiB", "outputs=FOLDER")
    assert not list(small_disk.rglob("step_*"))


def test_a_disk_that_fills_while_saving_leaves_nothing_half_written(
    run_command: Command, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsdiff.runs.run_folder import RunFolder

    monkeypatch.setattr(RunFolder, "require_space", lambda self, needed: None)  # as if others filled the disk later
    ended = run_command(*SMALL, "trainer.workers=0", "model.width=32", f"outputs={small_disk}")
    assert_refused(ended, "full")
    assert not list(small_disk.rglob("*.partial"))
    assert not list(small_disk.rglob("step_*"))


def test_an_output_folder_that_cannot_be_written_is_named(run_command: Command, tmp_path: Path) -> None:
    place = tmp_path / "read_only"
    place.mkdir()
    if os.geteuid() == 0:  # root may write anywhere but here
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)], capture_output=True, check=False).returncode:
            pytest.skip("root needs to mount a read-only file system for this test and may not")
    else:
        place.chmod(0o500)
    try:
        assert_refused(run_command(*SMALL, f"outputs={place}"), "read-only" if os.geteuid() == 0 else "permission")
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(place)], check=True)


def test_an_unknown_option_is_corrected(run_command: Command) -> None:
    assert_refused(run_command("model=sr3_tinny"), "sr3_tinny", "did you mean sr3_tiny?")


def test_a_checkpoint_of_another_model_is_refused(run_command: Command, tmp_path: Path) -> None:
    ended = run_command(*SMALL, "trainer.steps=1", "trainer.workers=0", f"outputs={tmp_path / 'out'}")
    assert ended.code == 0, ended.err
    (run,) = (tmp_path / "out").glob("train/*/*")
    other = run_command("task=evaluate", "model=edm_sr_tiny", f"checkpoint={run}", f"outputs={tmp_path / 'out'}")
    assert_refused(other, "model=sr3_quick", "model=edm_sr_tiny")
    bands = run_command("task=evaluate", f"checkpoint={run}", "dataset.bands=4", f"outputs={tmp_path / 'out'}")
    assert_refused(bands, "bands")


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_a_hostile_file_does_not_execute(run_command: Command, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    hostile = tmp_path / "weights.pth"
    hostile.write_bytes(pickle.dumps({"state_dict": Hostile(target)}))
    ended = run_command("task=import", "model=sr3", f"source={hostile}", f"outputs={tmp_path / 'out'}")
    assert_refused(ended)
    assert not target.exists()
    direct = run_command("task=evaluate", f"checkpoint={hostile}", f"outputs={tmp_path / 'out'}")
    assert_refused(direct, "task=import")
    assert not target.exists()
