"""task=downstream: objects found and scenes recognised in bicubic, SR and HR, as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsdiff.reporting.records import read_records
from tests.conftest import Command


def the_run() -> Path:
    (run,) = Path("outputs").glob("downstream/*/*")
    return run


def test_buildings_are_found_best_in_hr_and_the_table_says_so(run_command: Command) -> None:
    words = ["task=downstream", "model=bicubic", "dataset=synthetic", "dataset.mask=buildings", "dataset.second_date=false", "scale=4"]
    few = ["dataset.size=128", "dataset.train_images=24", "dataset.test_images=6", "task.steps=120", "task.patch=64", "task.width=8"]
    ended = run_command(*words, *few)
    assert ended.code == 0, ended.err
    run = the_run()
    records = read_records(run / "evaluation")
    assert len(records) == 6
    np.testing.assert_array_equal(records["SR_iou"], records["bicubic_iou"])  # model=bicubic is what it is compared with
    assert records["HR_iou"].mean() > records["SR_iou"].mean() + 0.05
    assert records["HR_iou"].mean() > 0.3
    text = (run / "results.md").read_text()
    assert "| seen | IoU | boundary F1 | objects found | 1 to 64 px | 65 to 256 px | 257 to 1024 px | over 1024 px |" in text
    assert "| iou, HR - SR | +" in text
    panels = sorted((run / "panels").glob("*.png"))
    assert len(panels) == 4
    assert Image.open(panels[0]).size == (3 * 128, 128)
    refused = run_command(*words, "dataset.mask=changes")
    assert refused.code == 1
    assert "dataset=synthetic dataset.mask=buildings" in refused.err


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes that differ in their finest texture, which bicubic of x4 loses, and a split list of none."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for label in ("fine", "smooth"):
            for number in range(count):
                image = np.full((48, 48, 3), 128.0) + generator.normal(0, 4, (48, 48, 3))
                if label == "fine":
                    image += 40 * (-1) ** (np.indices((48, 48)).sum(0))[..., None]
                path = tmp_path / "classes" / split / label / f"{split}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return tmp_path / "classes"


def test_scenes_are_recognised_by_class_folders(run_command: Command, classes: Path) -> None:
    few = ["task.steps=30", "task.patch=32", "task.width=8", "degradation=gaussian8_x4", "degradation.only=[width1.8,width3.2]"]
    ended = run_command("task=downstream", "model=bicubic", "dataset=folder", f"dataset.root={classes}", "scale=4", *few)
    assert ended.code == 0, ended.err
    records = read_records(the_run() / "evaluation")
    assert set(records["degradation"]) == {"width1.8", "width3.2"}  # every test set of a grid
    assert len(records) == 2 * 8
    assert records["HR_right"].mean() == 1
    assert records["SR_right"].mean() == 0.5
    assert "| HR | 1.000 |" in (the_run() / "results.md").read_text()
