"""task=preview as a user types it, and training with a degradation that works in the loader's processes."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest
from PIL import Image

from tests.conftest import Command

SMALL = ("dataset=synthetic", "dataset.size=64", "dataset.train_images=2", "dataset.test_images=1")


def folder_of(task: str) -> Path:
    (status,) = Path("outputs", task).glob("*/*/status.json")
    return status.parent


@pytest.mark.parametrize("degradation", ["bsrgan", "diffbsr_test", "bicubic"])
def test_a_preview_shows_images_and_what_was_drawn(run_command: Command, degradation: str) -> None:
    options = ("task.images=2", "task.columns=2", "task.draws=12", "task.patch=48")
    ended = run_command("task=preview", f"degradation={degradation}", *SMALL, *options)
    assert ended.code == 0, ended.err
    folder = folder_of("preview")
    assert f"degraded images    {folder / 'degraded.png'}" in ended.out
    with Image.open(folder / "degraded.png") as sheet:
        assert sheet.width > sheet.height / 2
    if degradation == "bicubic":
        assert not (folder / "records.csv").exists()
        return
    assert (folder / "parameters.png").is_file()
    assert len(pandas.read_csv(folder / "records.csv")) == (7 if degradation == "diffbsr_test" else 12)


def test_training_crops_patches_in_workers_and_evaluation_keeps_whole_images(run_command: Command) -> None:
    model = ("model=sr3_quick", "model.width=8", "model.multipliers=[1,2]", "model.norm_groups=4", "sampler.steps=2")
    trainer = ("trainer.steps=2", "trainer.batch=2", "trainer.patch=48", "trainer.workers=1", "trainer.validation_images=1")
    ended = run_command("degradation=bsrgan", "degradation.crop=8", *model, *trainer, *SMALL)
    assert ended.code == 0, ended.err
    rows = pandas.read_csv(folder_of("train") / "evaluation" / "records.csv")
    assert rows["final_jpeg_quality"].between(30, 95).all()
    with Image.open(next((folder_of("train") / "evaluation" / "panels").glob("*.hr.png"))) as target:
        assert target.size == (64, 64)
