"""speed=fast as a user types it, in evaluation, restoration and task=check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch._inductor.exc import CppCompileError

from rsdiff.inference import compilation, images, speed
from rsdiff.inference.speed import Arithmetic, Measured
from rsdiff.tasks import speeding
from rsdiff.training.speed import MeasuredTraining, TrainingArithmetic
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

    for task in ((*words, "output=both.png"), ("task=evaluate", "model=bicubic", *DATA)):
        both = run_command(*task, "task.speed=fast", "task.precision=bf16")
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


TRAINING = ("model=rrdb_quick", *DATA, "dataset.train_images=4", "trainer.batch=2", "trainer.patch=32", "trainer.workers=0")


def test_a_training_chooses_says_records_and_keeps_how_it_computes(run_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = TrainingArithmetic("bf16", channels_last=True)
    found = MeasuredTraining(chosen, {"channels_last": 0.6, "bf16": 0.5}, 0.3, 0.001, 0.01)
    monkeypatch.setattr(speeding, "measure", lambda _: found)
    words = (*TRAINING, "trainer.speed=fast", "trainer.validation_images=1", "trainer.steps=3", "trainer.validate_every_steps=2")
    looked_at: list[tuple[bool, str]] = []
    restore = images.restore

    def noted(method: Any, batch: Any, sampler: Any, noise: Any, precision: str = "no") -> Any:
        last = all(weight.is_contiguous(memory_format=torch.channels_last) for weight in method.parameters() if weight.ndim == 4)
        looked_at.append((last, precision))
        return restore(method, batch, sampler, noise, precision)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "restore", noted)
    ended = run_command(*words, "trainer.time_limit_minutes=1e-9")  # one step, then stopped
    assert ended.code == 75, ended.err
    assert "trainer.speed=fast: forward and backward pass take 0.30 of the exact time by precision=bf16 channels_last=true" in ended.out
    monkeypatch.setattr(speeding, "measure", lambda _: pytest.fail("it was measured again"))
    ended = run_command(*words)
    assert ended.code == 0, ended.err
    assert "speed=fast: precision=bf16 channels_last=true, as found when the run began" in ended.out
    assert set(looked_at[:1]) == {(True, "bf16")}, "validation computes as training does"
    assert looked_at[-1] == (False, "no"), "scores are of float32"
    card = json.loads(next(iter(Path("outputs").rglob("checkpoints/*/card.json"))).read_text())
    assert card["computed_with"] == "precision=bf16 channels_last=true"
    assert "precision=bf16 channels_last=true" in next(iter(Path("outputs").rglob("report.html"))).read_text()

    both = run_command(*words, "trainer.precision=bf16")
    assert both.code == 2
    assert "trainer.precision has no effect with trainer.speed=fast; leave it out, or set trainer.speed=exact" in both.err


def test_a_compiler_that_is_too_old_ends_a_training_and_an_evaluation_in_a_sentence(
    run_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(graph: Any, given: Any) -> Any:
        raise CppCompileError(["g++"], "kernel.cpp:12:3: error: unknown intrinsic")

    monkeypatch.setattr(compilation, "BACKEND", fails)
    torch._dynamo.reset()
    said = "torch.compile could not compile here: the compiler said: unknown intrinsic; leave the option compile out, or install g++ 13"
    ended = run_command(*TRAINING, "trainer.steps=2", "trainer.compile=true", "trainer.validation_images=0")
    assert (ended.code, said in ended.err, "a fault of" in ended.err) == (1, True, False), ended.err
    ended = run_command("task=evaluate", "checkpoint=zoo:any_scale", *DATA, "task.compile=true")
    assert (ended.code, said in ended.err, "a fault of" in ended.err) == (1, True, False), ended.err
    torch._dynamo.reset()
