"""Degradations, metrics and scenes on the pretended accelerator: nothing mixes devices, results stay there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.sample import Batch, SampleMeta, collate
from rsdiff.data.seeding import keyed_generator
from rsdiff.data.views import SampleKey, TrainingSamples
from rsdiff.degradations import degrade, named_cases
from rsdiff.degradations.test_sets import draw_of
from rsdiff.metrics.options import MetricsConfig
from rsdiff.metrics.table import METRICS
from rsdiff.training.trainer import degrade_on
from tests import scene_methods
from tests.devices.pretended import NAME, PretendedAccelerator, device
from tests.runs.pairs import CONF, data_kinds, degradation_for, options, options_of


@pytest.mark.parametrize("kind", ["synthetic", "synthetic48"])
@pytest.mark.parametrize("name", [name for name in options_of(CONF / "degradation") if name != "paired"])
def test_a_degradation_stays_on_the_device(name: str, kind: str) -> None:
    """Two training samples with a second view; degradations of libraries that know only the CPU run in the loader's workers."""
    data = data_kinds(64)[kind]
    chosen = degradation_for(name, data)
    if name in ("bands", "srf") and kind == "synthetic":
        return  # chooses bands that RGB images lack
    scale = 1.0 if name in ("bands", "srf") else float(name[-1]) if name.endswith(("x2", "x3")) else 4.0
    for _, built in named_cases(chosen.build())[:1]:
        source = data.build("train", scale)
        try:
            samples = TrainingSamples(source, scale, 48, 0, draw_of(built, source), views=2, small="pad")
            batch = collate([samples[SampleKey(0, index, 0)] for index in range(2)])
        except UserError:
            assert kind == "synthetic48" or name == "srf", f"{name} takes no images of three bands"
            continue
        with PretendedAccelerator() as tally:
            for tally.phase in ("first step", "step"):
                made = degrade_on(batch, device(), built)
        assert not tally.lines("mismatch")
        for field in ("lr", "hr", "kernel", "noise_level", "lr_clean", "lr_views"):
            value = getattr(made, field)
            assert value is None or value.device.type == NAME, field
        if not chosen.in_workers:
            assert not tally.lines("sync", "step"), tally.lines("sync", "step")


@pytest.mark.parametrize("bands", [3, 8])
def test_every_metric_takes_images_of_the_device(bands: int) -> None:
    built = options().degradations["aniso"].build()
    size = 96
    smooth = torch.rand(1, bands, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
    hr = torch.nn.functional.interpolate(smooth, size=(size, size), mode="bicubic").clamp(0, 1)
    metas = [SampleMeta("image", wavelengths=tuple(400.0 + 40 * band for band in range(bands)))]
    decisions = [built.draw(keyed_generator(0), (bands, size, size), (size // 4, size // 4))]
    batch = degrade(Batch(metas, (size, size), (size // 4, size // 4), hr=hr, decisions=decisions), built)
    masked = replace(batch, valid=(torch.arange(size) > 20).float().expand(1, bands, size, size).clone())
    for name in METRICS:
        evaluator = MetricsConfig(metrics=(name,)).build(bands, True, built, torch.device("cpu"))
        if evaluator.unavailable:
            continue
        for given in (batch, masked):
            with PretendedAccelerator() as tally:
                evaluator = MetricsConfig(metrics=(name,)).build(bands, True, built, device())
                there = given.to(device())
                restored: Tensor = (there.need("hr") * 0.97).clamp(0, 1)
                rows = evaluator.rows(there, restored, 1.0)
                evaluator.summary(rows)
            assert not tally.lines("mismatch"), name


@pytest.mark.parametrize("sampled", [False, True], ids=["regression", "diffusion"])
@pytest.mark.parametrize("cut", [{}, {"batch": 2}, {"fuse": 2}, {"samples": 2}], ids=str)
def test_a_scene_is_restored_on_the_device(sampled: bool, cut: dict[str, int], tmp_path: Path) -> None:
    if not sampled and set(cut) & {"fuse", "samples"}:
        return  # a regression has one answer
    path = scene_methods.write_raster(tmp_path / "in.tif", scene_methods.landscape(3, 40, 44))
    with PretendedAccelerator() as tally:
        method = (scene_methods.diffusion() if sampled else scene_methods.regression()).to(device())
        job = replace(scene_methods.job(tmp_path, path, method, **cut), device=device())
        scene_methods.restored(job)
    assert not tally.lines("mismatch")
    assert sum(tally.launches.values()) > 0


def test_a_loader_pins_every_tensor_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch pins what is inside a dataclass only if it has `pin_memory`; else the copy to the device makes the host wait."""
    pinned: list[int] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(id(self)) or self)
    batch = Batch([SampleMeta("image")], (4, 4), (2, 2), hr=torch.zeros(1, 3, 4, 4), lr=torch.zeros(1, 3, 2, 2))
    torch.utils.data._utils.pin_memory.pin_memory(batch)
    assert pinned == [id(batch.hr), id(batch.lr)]
