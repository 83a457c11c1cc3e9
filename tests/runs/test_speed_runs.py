"""speed=fast as a user types it, in evaluation, restoration and task=check."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsdiff.inference import speed
from rsdiff.inference.speed import Arithmetic, Measured
from tests.conftest import Command

DATA = ("dataset=synthetic", "dataset.size=48", "dataset.test_images=2", "metrics.metrics=[psnr]", "metrics.panels=0", "scale=2")


@pytest.fixture
def _bf16_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Measured(Arithmetic("bf16", channels_last=True), {"channels_last": 0.5, "bf16": 0.5}, 0.25, 0.01)
    monkeypatch.setattr(speed, "measure", lambda *_: found)


def test_what_is_measured_is_said_and_noted(run_command: Command) -> None:
    ended = run_command("task=evaluate", "model=bicubic", *DATA, "task.speed=fast")
    assert ended.code == 0, ended.err
    assert "speed=fast: restoring takes" in ended.out
    (note,) = Path("outputs").rglob("speed.json")
    assert json.loads(note.read_text())["ratios"].keys() == set(speed.candidates(torch.device("cpu")))

    checked = run_command("task=check", "model=rrdb_tiny", *DATA, "dataset.train_images=4", "task.speed=true")
    assert "speed=fast: restoring takes" in checked.out
    assert "speed=fast" not in run_command("task=check", "model=rrdb_tiny", *DATA, "dataset.train_images=4").out


@pytest.mark.usefixtures("_bf16_is_fastest")
def test_what_is_chosen_is_computed_with(run_command: Command) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save("small.png")
    images = {}
    words = ("task=restore", "checkpoint=zoo:any_scale", "scale=2", "input=small.png", "task.preview=false")
    for name in ("exact", "fast"):
        ended = run_command(*words, f"output={name}.png", f"task.speed={name}")
        assert ended.code == 0, ended.err
        images[name] = np.asarray(Image.open(f"{name}.png")).astype(int)
    assert 0 < np.abs(images["fast"] - images["exact"]).max() < 30

    for task in (words, ("task=evaluate", "model=bicubic", *DATA)):
        both = run_command(*task, "output=both.png", "task.speed=fast", "task.precision=bf16")
        assert both.code == 2
        assert "task.precision has no effect with task.speed=fast; leave it out, or set task.speed=exact" in both.err


@pytest.mark.usefixtures("_bf16_is_fastest")
def test_a_run_goes_on_as_it_began(run_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("task=evaluate", "model=bicubic", *DATA, "task.speed=fast")
    assert run_command(*words).code == 0
    (status,) = Path("outputs").rglob("status.json")
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "interrupted"}))
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("it was measured again"))
    again = run_command(*words)
    assert again.code == 0, again.err
    assert "speed=fast: precision=bf16 channels_last=true, as found when the run began" in again.out
