"""What the pretended accelerator says of faults that run well on a CPU: one planted in each of five packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.data.sample import Batch
from rsdiff.degradations import resizing
from rsdiff.diffusion import schedules
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.networks import layers
from rsdiff.training.optimisers import GroupOptimiser
from tests.devices.pretended import Kind, PretendedAccelerator, Tally
from tests.devices.stand import Work, train
from tests.runs.pairs import Pair

MODEL = Work(Pair("sr3_tiny", "synthetic", "bicubic", 4.0), 32)


def noise_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def normal(self: SeededNoise, shape: Any, device: Any = "cpu", dtype: Any = torch.float32) -> Tensor:
        return torch.randn(*shape).to(device, dtype)

    monkeypatch.setattr(SeededNoise, "normal", normal)


def levels_left_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "per_image", lambda values, image: values.reshape(-1, *[1] * (image.ndim - 1)).to(image.dtype))


def matrices_copied_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(*size: Any) -> list[tuple[int, Tensor]]:
        *taps, device, dtype = size
        return [(first, matrix.to(device, dtype)) for first, matrix in resizing._blocks(*resizing.cubic_taps(*taps))]

    monkeypatch.setattr(resizing, "_cubic_blocks", blocks)


def a_value_read_in_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: Callable[..., Tensor] = layers.ResidualBlock.forward  # type: ignore[attr-defined]

    def forward(self: Any, *args: Any) -> Tensor:
        out = plain(self, *args)
        return out if float(out.abs().max()) < 1e9 else out.clamp(-1e9, 1e9)

    monkeypatch.setattr(layers.ResidualBlock, "forward", forward)  # type: ignore[attr-defined]


def a_gradient_read_before_the_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = GroupOptimiser.update

    def update(self: GroupOptimiser) -> None:
        if all(bool(parameter.grad.isfinite().all()) for parameter in self.parameters[:2] if parameter.grad is not None):
            plain(self)

    monkeypatch.setattr(GroupOptimiser, "update", update)


def a_batch_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batch, "to", lambda self, device: _moved(self, device))


def _moved(batch: Batch, device: torch.device) -> Batch:
    found = {name: value.to(device) for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return replace(batch, **found)  # type: ignore[arg-type]


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Kind]] = {
    "data: a batch copied while the host waits": (a_batch_waited_for, "sync"),
    "degradations: matrices copied in every step": (matrices_copied_in_every_step, "sync"),
    "diffusion: noise drawn on the host": (noise_of_the_host, "host draw"),
    "diffusion: levels left on the host": (levels_left_on_the_host, "mismatch"),
    "networks: a value read in a layer": (a_value_read_in_a_layer, "sync"),
    "training: gradients read in every step": (a_gradient_read_before_the_optimiser, "sync"),
}


def steady(store: Path) -> Tally:
    """Return the tally of a third training step and of a second restoration, as phase 'steady'."""
    with PretendedAccelerator() as tally:
        method = train(MODEL, store, tally)
        for tally.phase in ("warm-up", "restore"):
            MODEL.restore(method)
    return tally


def lines(tally: Tally, kind: Kind) -> list[str]:
    return tally.lines(kind, "step") + tally.lines(kind, "restore")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_shows(fault: str, tmp_path: Path) -> None:
    plant, kind = FAULTS[fault]
    with pytest.MonkeyPatch.context() as monkeypatch:
        plant(monkeypatch)
        assert lines(steady(tmp_path), kind)


def test_without_a_fault_nothing_shows(tmp_path: Path) -> None:
    tally = steady(tmp_path)
    kinds: tuple[Kind, ...] = ("sync", "host draw", "mismatch")
    assert not [line for kind in kinds for line in lines(tally, kind)]
