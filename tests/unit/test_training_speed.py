"""trainer.speed=fast: what is chosen by measurement, what it leaves of a method, its distance from exact, and a compiler that fails."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from rsdiff.inference import compilation, speed
from rsdiff.training import speed as training_speed
from rsdiff.training.config import TrainerConfig
from rsdiff.training.optimisers import build_optimiser
from rsdiff.training.speed import EXACT, Passes, TrainingArithmetic, changes_on, images_to_try, measure
from tests.devices.stand import works_for
from tests.runs.pairs import fresh, material

CPU = torch.device("cpu")
BF16 = TrainingArithmetic("bf16")


def passes_of(model: str) -> Passes:
    (work, *_) = works_for(model)
    given = material(work.pair.data, work.pair.degradation, work.pair.scale, work.views, work.side)
    method = deepcopy(fresh(work.pair.model, given.problem))
    return Passes(method, given.degradation, CPU, 0, work.batch(range(images_to_try(method, 8, CPU))))


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        ({"channels_last": 0.5, "bf16": 3.0}, TrainingArithmetic(channels_last=True)),
        ({"channels_last": 1.2, "bf16": 0.3}, BF16),
        ({"channels_last": 0.97, "bf16": 1.0}, EXACT),
    ],
)
def test_what_is_faster_is_taken_with_its_distance(
    costs: dict[str, float], chosen: TrainingArithmetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = passes_of("sr3_quick")
    seen: list[TrainingArithmetic] = []
    run = Passes.run

    def noted(self: Passes, arithmetic: TrainingArithmetic) -> Any:
        seen.append(arithmetic)
        return run(self, arithmetic)

    def seconds_of(work: Any, device: torch.device) -> float:
        work()
        now = seen[-1]
        return (costs["channels_last"] if now.channels_last else 1.0) * (costs["bf16"] if now.precision == "bf16" else 1.0)

    monkeypatch.setattr(Passes, "run", noted)
    monkeypatch.setattr(speed, "seconds_of", seconds_of)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    changes = {"channels_last": {"channels_last": True}, "bf16": {"precision": "bf16"}}
    monkeypatch.setattr(training_speed, "changes_on", lambda _: changes)
    before = {name: value.clone() for name, value in passes.method.state_dict().items()}
    found = measure(passes)
    assert found.arithmetic == chosen
    assert found.ratio == pytest.approx(min(1.0, *costs.values()) if chosen != EXACT else 1.0)
    if chosen == EXACT:
        assert found.loss == found.gradients == 0
    assert found.loss < (0.02 if chosen == BF16 else 1e-5)
    assert (found.gradients > 1e-4) == (chosen == BF16)
    assert speed.words(chosen) in found.told()
    assert all(torch.equal(value, before[name]) for name, value in passes.method.state_dict().items())
    assert all(value.is_contiguous() and value.grad is None for value in passes.method.parameters())


@pytest.mark.parametrize("model", ["sr3_tiny", "idm_tiny", "scdm_tiny"])
def test_the_masks_of_dropout_count_for_no_distance(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    last = TrainingArithmetic(channels_last=True)
    monkeypatch.setattr(training_speed, "fastest", lambda *_: (last, {"channels_last": 0.9}, 0.9))
    passes = passes_of(model)
    droppers = [module for module in passes.method.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0]
    found = measure(passes)
    assert droppers
    assert all(module.training for module in droppers)
    assert found.loss < 1e-5
    assert found.gradients < 1e-3


def test_bf16_that_moves_the_loss_too_far_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_speed, "changes_on", lambda _: {"bf16": {"precision": "bf16"}})
    monkeypatch.setattr(training_speed, "fastest", lambda *_: (BF16, {"bf16": 0.4}, 0.4))
    monkeypatch.setattr(training_speed, "FARTHEST", 0.0)
    found = measure(passes_of("sr3_quick"))
    assert (found.arithmetic, found.ratio, found.loss) == (EXACT, 1.0, 0.0)
    assert "bf16 is not taken, for it moves a loss by" in found.told()


def test_a_compiler_that_fails_is_said_and_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(graph: Any, given: Any) -> Any:
        raise RuntimeError("no compiler")

    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", fails)
    monkeypatch.setattr(training_speed, "changes_on", lambda _: {"compile": {"compile": "blocks"}})
    passes = passes_of("sr3_quick")
    found = measure(passes)
    assert found.arithmetic == EXACT
    assert found.told().endswith("; torch.compile could not compile here: RuntimeError: no compiler")
    assert not any(module._compiled_call_impl for module in passes.method.modules())
    torch._dynamo.reset()


def test_a_device_tries_what_it_has() -> None:
    assert list(changes_on(CPU)) == ["channels_last", *(["bf16"] if speed.has_bf16(CPU) else [])]


def test_one_kernel_moves_the_weights_as_many_do() -> None:
    """The step of a CPU's fused Adam is that of the ordinary one but for rounding."""
    weights = []
    for fused in (False, True):
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 1000))
        optimiser = build_optimiser(TrainerConfig().optimiser, [parameter], fused)
        for step in range(3):
            parameter.grad = torch.sin(torch.arange(1000.0) + step)
            optimiser.step()
        weights.append(parameter.detach())
    assert float((weights[0] - weights[1]).abs().max()) < 1e-6
