"""How many micro-batches share the images of a step changes nothing, or the method says so and the trainer refuses to."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.data.sample import Batch
from rsdiff.degradations import degrade
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.methods.base import Method, Problem
from rsdiff.methods.perceptual import PerceptualLossConfig
from rsdiff.networks.degradation_aware import ContrastConfig, MomentumContrast
from rsdiff.networks.running_regression import RunningRegression
from rsdiff.training.config import TrainerConfig
from rsdiff.training.trainer import Trainer
from tests.properties.trials import TRAINED, trial
from tests.runs.pairs import options

pytestmark = pytest.mark.xdist_group("matrix")  # the options are composed once
COUPLED = {"blindsrsnf", "bsrgan", "dasr", "diffbsr", "diffbsr_ddpm", "diffbsr_srdiff", "drsr", "esrgan", "lcmsr", "ldcsr", "ldcsr_vae"}
COUPLED |= {"real_esrgan", "refdiff", "spsr"}
COUNT = 2


def halves(batch: Batch) -> list[Batch]:
    """Return the two images of a batch as batches."""

    def part(value: Any, index: int) -> Any:
        if isinstance(value, dict):
            return {name: part(item, index) for name, item in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: part(getattr(value, field.name), index) for field in fields(value) if field.init})
        return value[index : index + 1] if isinstance(value, Tensor | list) else value

    names = [field.name for field in fields(batch) if field.init and field.name != "step_images"]
    return [replace(batch, **{name: part(getattr(batch, name), index) for name in names}, step_images=COUNT) for index in range(COUNT)]


def step(method: Method, micro_batches: list[Batch], keys: list[list[tuple[int, ...]]]) -> dict[str, Tensor]:
    """Return losses, gradients and buffers after the passes of the last stage on a copy of the method."""
    copy, found = deepcopy(method).train(), {}
    for module in copy.modules():
        for name in ("p", "drop_prob", "drop_path"):  # dropout differs between micro-batches, by design: it is drawn anew for each
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    stage = copy.stages()[-1]
    copy.prepare_training()
    copy.start_stage(stage)
    for part in copy.passes(stage):
        for batch, own in zip(micro_batches, keys, strict=True):
            for group, losses in copy.losses(batch, part, SeededNoise(own, shared=(9,))).items():
                (losses.total / len(micro_batches)).backward()
                found[group] = found.get(group, torch.zeros(())) + losses.total.detach() / len(micro_batches)
    copy.after_step(stage, 0)
    found |= {f"d{name}": p.grad for name, p in copy.named_parameters() if p.grad is not None}
    return found | dict(copy.named_buffers())


@pytest.mark.parametrize("model", TRAINED)
def test_a_step_is_the_same_however_many_micro_batches_share_it(model: str) -> None:
    given = trial(model)
    coupled = given.method.coupling
    assert bool(coupled) == given.method.couples_batch == (model.removesuffix("_tiny").removesuffix("_quick") in COUPLED), coupled
    if coupled:
        with pytest.raises(UserError, match=r"share trainer\.batch=2; use trainer\.accumulate=1 .* trainer\.split_coupled=true"):
            refused(given.method, TrainerConfig(batch=2), 2)
        refused(given.method, TrainerConfig(batch=2), 1)
        refused(given.method, TrainerConfig(batch=2, split_coupled=True), 2)
        return
    refused(given.method, TrainerConfig(batch=2), 2)
    whole = degrade(given.batch, given.degradation)
    hr = whole.need("hr")
    valid = torch.ones_like(hr)
    valid[1, :, :20] = 0  # images of which unequal parts count
    whole = replace(whole, valid=valid)
    at_once = step(given.method, [whole], [[(0,), (1,)]])
    shared = step(given.method, halves(whole), [[(0,)], [(1,)]])
    assert set(at_once) == set(shared)
    for name, value in at_once.items():
        largest = float(value.abs().max()) if value.numel() else 0.0
        torch.testing.assert_close(shared[name], value, rtol=2e-3, atol=1e-4 * max(largest, 1e-3), msg=f"{model} {name}")


def refused(method: Method, config: TrainerConfig, accumulate: int) -> None:
    """Ask the trainer whether it may share out a batch, without making one."""
    stub: Any = SimpleNamespace(method=method, config=config, accelerator=SimpleNamespace(num_processes=1))
    Trainer.require_whole_batches(stub, accumulate)


@pytest.mark.parametrize("kind", ["ttsr", "masa_sr", "datsr"])
def test_a_perceptual_norm_over_a_batch_couples_its_images(kind: str) -> None:
    norm = PerceptualLossConfig(weight=1.0, layers=("relu5_1",), layer_weights=(1.0,), distance="norm")
    config = replace(options().models[f"{kind}_tiny"], perceptual=norm)
    if kind == "masa_sr":
        config = replace(config, adversarial=replace(config.adversarial, weight=0.0))
    method = config.build(Problem(4, 3, 3))
    assert "norm over the images" in method.coupling


def test_a_queue_and_its_key_encoder_advance_once_per_step() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 8)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), self.layer(x)

    torch.manual_seed(0)
    first = MomentumContrast(ContrastConfig(width=2, queue_size=16, momentum=0.5), Encoder())
    with torch.no_grad():
        for parameter in first.query_encoder.parameters():
            parameter.add_(1.0)
    second = deepcopy(first)
    query, key = torch.rand(4, 4), torch.rand(4, 4)
    logits = first.contrast(query, key)[1]
    first.after_step()
    parts = [second.contrast(a, b)[1] for a, b in zip(query.split(2), key.split(2), strict=True)]
    second.after_step()
    torch.testing.assert_close(torch.cat(parts), logits)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert int(second.queue_position) == 4


def test_a_running_regression_knows_the_pixels_of_finished_steps() -> None:
    torch.manual_seed(0)
    image, target = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 8, 8)
    at_once, shared = (RunningRegression(3, 4, ridge=1e-6) for _ in range(2))
    at_once.accumulate(image, target)
    at_once.solve()
    for one, wanted in zip(image.split(1), target.split(1), strict=True):
        shared.accumulate(one, wanted)
        assert not bool(shared.solution.any())
    shared.solve()
    torch.testing.assert_close(shared.solution, at_once.solution)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = at_once(image)
    assert torch.equal(rounded, at_once(image))
