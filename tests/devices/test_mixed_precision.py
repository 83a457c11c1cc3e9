"""Every method trains in bf16 and fp16 by CUDA's rules: three steps whose losses stay near those of float32."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rsdiff.config import UserError
from rsdiff.data.precision import Precision
from tests.devices import autocast
from tests.devices.pretended import PretendedAccelerator
from tests.devices.stand import FIRST_SCALE, works_for
from tests.runs.pairs import MODELS, options

NEAR: dict[Precision, float] = {"bf16": 0.02, "fp16": 0.005}
"""Largest difference of a loss from that of float32, as a share of it."""
FURTHER: dict[str, dict[Precision, float]] = {"drsr_quick": {"bf16": 0.03, "fp16": 0.01}}
"""Of DRSR, whose contrastive loss divides similarities of vectors of 16 bits by 0.1: measured 0.019 and 0.006."""
EXACT = ("spectral_linear",)
"""Fitted in closed form, in float32 whatever the precision."""
CHEAP = ("sr3_quick", "rrdb_quick")
TRAINED = [name for name in MODELS if not options().models[name].is_ready]


@pytest.fixture(autouse=True)
def lists_of_cuda() -> None:
    autocast.register()  # not when tests are only collected: the process would have the device for good


def losses(model: str, precision: Precision, store: Path, steps: int = 3) -> tuple[list[float], float]:
    """Return the losses of every group over the first steps of every stage, and the sum of the weights that they lead to."""
    for work in works_for(model):
        try:
            with PretendedAccelerator():
                batch = work.batch()
                trainer = work.trainer(store, precision)
                trainer.method.train()
                trainer.method.prepare_training()
                found = []
                for _, stage in trainer.stages:
                    trainer.method.start_stage(stage)
                    for _ in range(steps):
                        logged = trainer._optimise(stage, [batch])
                        found += [float(value) for name, value in logged.items() if name.endswith("/total")]
                        trainer.step += 1
                scaler = trainer.accelerator.scaler
                weights = sum(float(weight.detach().double().sum()) for weight in trainer.method.parameters())
                assert scaler is None or scaler.get_scale() == FIRST_SCALE, "a gradient overflowed"
        except UserError:  # too small for the network
            continue
        return found, weights
    raise AssertionError(f"no size suits {model}")


@pytest.mark.timeout(1800)  # SPSR takes minutes on the pretended device
@pytest.mark.parametrize("model", [name if name in CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED])
def test_three_steps_in_mixed_precision_are_near_those_of_float32(model: str, tmp_path: Path) -> None:
    exact, exact_weights = losses(model, "no", tmp_path / "no")
    for precision, near in FURTHER.get(model, NEAR).items():
        found, weights = losses(model, precision, tmp_path / precision)
        assert (weights != exact_weights) == (model not in EXACT), f"what {precision} changed"
        worst = max(abs(a - b) / (abs(b) + 1e-8) for a, b in zip(found, exact, strict=True))
        print(f"{model} {precision}: {worst:.1e}")
        assert all(map(math.isfinite, found))
        assert worst < near, f"{precision}: {found} instead of {exact}"


def test_the_loss_scale_moves_once_a_step_whatever_the_groups(tmp_path: Path) -> None:
    (work, *_) = works_for("bsrgan_quick")
    with PretendedAccelerator():
        trainer = work.trainer(tmp_path, "fp16")
        scaler = trainer.accelerator.scaler
        assert scaler is not None
        scaler.set_growth_interval(1)
        trainer.method.train()
        trainer.method.prepare_training()
        stage = trainer.stages[-1][1]
        trainer.method.start_stage(stage)
        assert len(stage.groups) == 2
        trainer._optimise(stage, [work.batch()])
        assert scaler.get_scale() == 2 * FIRST_SCALE
