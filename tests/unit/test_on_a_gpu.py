"""What only a real accelerator can show. `make gpu-proof` runs it; RSDIFF_TEST_DEVICE=cpu rehearses it where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.precision import Precision, set_float32
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.inference import compilation
from rsdiff.inference.compilation import compile_regions
from rsdiff.inference.images import Execution, restore_images
from rsdiff.methods.base import Method
from rsdiff.training.config import EmaConfig, TrainerConfig
from rsdiff.training.trainer import Trainer
from tests.devices.stand import Accelerator, Silent, Work, works_for
from tests.runs.pairs import MODELS, fresh, material, options, sampler_of

DEVICE = torch.device(os.environ.get("RSDIFF_TEST_DEVICE", "cuda"))
HOST = torch.device("cpu")
IS_REAL = DEVICE.type == "cuda"
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(IS_REAL and not torch.cuda.is_available(), reason="no CUDA device")]
TRAINED = [name for name in MODELS if not options().models[name].is_ready]
REHEARSED = ["sr3_quick"]
MODELS_HERE = TRAINED if IS_REAL else REHEARSED
NEAR: dict[Precision, float] = {"no": 1e-4, "bf16": 0.02, "fp16": 0.005}
"""Largest difference of a loss from the CPU's in float32, as a share of it."""


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    if not IS_REAL:
        monkeypatch.setattr(compilation, "BACKEND", "eager")  # a CPU's compiler would take minutes


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Let PyTorch raise an error where the host waits for the device."""
    if IS_REAL:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if IS_REAL:
            torch.cuda.set_sync_debug_mode("default")


def trainer_on(work: Work, device: torch.device, precision: Precision, store: Path) -> Trainer:
    given = material(work.pair.data, work.pair.degradation, work.pair.scale, work.views, work.side)
    method = deepcopy(fresh(work.pair.model, given.problem))
    config = TrainerConfig(steps=30, batch=2, precision=precision, ema=EmaConfig(rule="constant"), clip_norm=1.0)
    accelerator: Any = Accelerator(precision, device)
    return Trainer(config, method, given.degradation, lambda step: iter(()), lambda step: {}, Silent(), accelerator, store, {}, 0)


def losses(model: str, device: torch.device, precision: Precision, store: Path, steps: int = 4) -> tuple[list[float], Method, Work]:
    """Return the losses of the first steps of the last stage, the method and what restores; the last step must wait for nothing."""
    for work in works_for(model):
        try:
            trainer = trainer_on(work, device, precision, store)
            stage = trainer.stages[-1][1]
            trainer.method.train()
            trainer.method.prepare_training()
            trainer.method.start_stage(stage)
            batch, found = work.batch(), []
            batch = batch.pin_memory() if device.type == "cuda" else batch
            for step in range(steps):
                if step == steps - 1 and precision != "fp16":
                    with waiting_is_an_error():
                        logged = trainer._optimise(stage, [batch])
                else:
                    logged = trainer._optimise(stage, [batch])
                trainer.step += 1
                found += [float(value) for name, value in sorted(logged.items()) if name.endswith("/total")]
        except UserError:  # too small for the network
            continue
        return found, trainer.method, work
    raise AssertionError(f"no size suits {model}")


@pytest.mark.parametrize("model", MODELS_HERE)
def test_a_method_trains_as_on_the_cpu_and_never_waits(model: str, tmp_path: Path) -> None:
    set_float32(tf32=False, cudnn_benchmark=False)
    exact, _, _ = losses(model, HOST, "no", tmp_path / "cpu")
    for precision, near in NEAR.items():
        found, _, _ = losses(model, DEVICE, precision, tmp_path / precision)
        assert found == pytest.approx(exact, rel=near), precision


@pytest.mark.parametrize("model", MODELS_HERE)
def test_an_image_is_restored_as_on_the_cpu(model: str, tmp_path: Path) -> None:
    set_float32(tf32=False, cudnn_benchmark=False)
    _, method, work = losses(model, HOST, "no", tmp_path, steps=1)
    images = {device: restored(method, work, device) for device in (HOST, DEVICE)}
    assert float((images[HOST] - images[DEVICE]).abs().mean()) < 1e-3


def restored(method: Method, work: Work, device: torch.device, execution: Execution = Execution()) -> Tensor:  # noqa: B008
    given = material(work.pair.data, work.pair.degradation, work.pair.scale, work.views, work.side)
    sampler = sampler_of(work.pair.model)
    if sampler.start.startswith("image") and not options().models[work.pair.model].starts_at_image(given.problem):
        sampler = replace(sampler, start="edm")
    method = deepcopy(method).to(device).eval()
    (found,) = restore_images(method, [given.case], given.degradation, sampler, 0, device, execution=execution, say=lambda lines: None)
    return found.image.cpu()


@pytest.mark.parametrize("execution", [Execution("bf16"), Execution(channels_last=True), Execution(compile="blocks")], ids=str)
def test_other_ways_to_compute_restore_the_same_image(execution: Execution, tmp_path: Path) -> None:
    _, method, work = losses("sr3_quick", HOST, "no", tmp_path, steps=1)
    exact, found = restored(method, work, DEVICE), restored(method, work, DEVICE, execution)
    assert float((exact - found).abs().mean()) < 0.01


def test_graphs_restore_the_same_image_by_every_level(tmp_path: Path) -> None:
    _, method, work = losses("sr3_quick", HOST, "no", tmp_path, steps=1)
    if not IS_REAL:
        with pytest.raises(UserError, match="CUDA graphs"):
            compile_regions(method, "graphs", lambda: None, DEVICE)
        return
    assert float((restored(method, work, DEVICE) - restored(method, work, DEVICE, Execution(compile="graphs"))).abs().max()) < 1e-3


def test_noise_has_the_same_bits_on_both() -> None:
    drawn = [SeededNoise([(0, "a"), (1, "b")]).normal((2, 3, 65, 33), device) for device in (HOST, DEVICE)]
    assert torch.equal(drawn[0], drawn[1].cpu())
