"""speed=fast: the choice by measurement, what it does to a method, its distance from exact, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rsdiff.config import PlaceError, UserError
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference import speed
from rsdiff.inference.speed import EXACT, Arithmetic, Measured
from rsdiff.methods.base import Method, Problem

CPU = torch.device("cpu")
PROBLEM = Problem(2, 3, 3)


class Convolution(Method):
    """A method of one layer that notes how it was let compute."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.seen: list[Arithmetic] = []

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        made: Tensor = self.layer(batch.need("lr"))
        stored = [self.layer.weight, batch.need("lr")]
        last = all(value.is_contiguous(memory_format=torch.channels_last) for value in stored)
        self.seen.append(Arithmetic("bf16" if made.dtype == torch.bfloat16 else "no", last, torch.backends.cuda.matmul.allow_tf32))
        return nn.functional.interpolate(made, size=batch.size)


@pytest.fixture(autouse=True)
def _exact_afterwards() -> object:
    yield
    EXACT.prepare(Convolution())


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        ({"tf32": 0.9, "channels_last": 0.5, "bf16": 3.0}, Arithmetic("no", True, True)),
        ({"tf32": 0.97, "channels_last": 1.4, "bf16": 0.3}, Arithmetic("bf16", False, False)),
        ({"tf32": 1.0, "channels_last": 1.0, "bf16": 1.0}, EXACT),
    ],
)
def test_what_is_faster_is_taken_and_nothing_else(costs: dict[str, float], chosen: Arithmetic, monkeypatch: pytest.MonkeyPatch) -> None:
    method = Convolution()

    def seconds_of(work: object, device: torch.device) -> float:
        work()  # type: ignore[operator]
        now = method.seen[-1]
        used = {"tf32": now.tf32, "channels_last": now.channels_last, "bf16": now.precision == "bf16"}
        return float(torch.tensor([costs[name] for name, is_used in used.items() if is_used]).prod())

    monkeypatch.setattr(speed, "seconds_of", seconds_of)
    monkeypatch.setattr(speed, "candidates", lambda _: list(costs))
    found = speed.measure(method, PROBLEM, {"hr", "lr"}, SamplerConfig(), CPU)
    assert found.arithmetic == chosen
    taken = [cost for cost in costs.values() if cost < speed.WORTHWHILE]
    assert found.ratio == pytest.approx(float(torch.tensor(taken).prod()))
    assert found.distance == 0 if chosen == EXACT else 0 <= found.distance < 0.02
    assert (found.distance > 1e-4) == (chosen.precision == "bf16")
    assert method.seen[-1] == EXACT  # left as it was
    assert speed.words(chosen) in found.told()


def test_this_device_is_measured_in_seconds_of_its_own() -> None:
    found = speed.measure(Convolution(), PROBLEM, {"hr", "lr", "ref"}, SamplerConfig(), CPU)
    assert list(found.ratios) == speed.candidates(CPU)
    assert all(0 < ratio < 100 for ratio in found.ratios.values())


def test_what_a_probe_cannot_have_is_refused() -> None:
    with pytest.raises(UserError, match="a model that needs looks; set precision=bf16"):
        speed.measure(Convolution(), PROBLEM, {"hr", "lr", "looks"}, SamplerConfig(), CPU)


def test_a_choice_is_kept_and_a_damaged_note_is_named(tmp_path: Path) -> None:
    assert speed.recall(tmp_path, Arithmetic) is None
    speed.remember(tmp_path, Measured(Arithmetic(channels_last=True), {"channels_last": 0.6}, 0.6, 1e-7))
    assert speed.recall(tmp_path, Arithmetic) == Arithmetic(channels_last=True)
    assert json.loads((tmp_path / speed.NOTE).read_text())["ratios"] == {"channels_last": 0.6}
    (tmp_path / speed.NOTE).write_text("{")
    with pytest.raises(PlaceError, match="delete it"):
        speed.recall(tmp_path, Arithmetic)
