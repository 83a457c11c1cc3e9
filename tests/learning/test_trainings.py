"""The trainings of `make learn` can be begun, stopped, continued and judged; what they reach is on docs/trained.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from rsdiff.data.sample import Batch
from rsdiff.methods.blinddiff import BlindDiff
from tests.learning import trainings
from tests.learning.blind import WIDTHS, BlindWorld
from tests.learning.cases import world
from tests.learning.checks import root_mean_square
from tests.learning.trainings import TRAININGS, train, with_references


def test_the_blind_world_knows_what_the_lr_tells_of_the_blur() -> None:
    place = BlindWorld()
    batch = place.batch(192, seed=3)
    posterior, hr = place.posterior(batch.need("lr")), batch.need("hr").double().flatten(1)
    widths = posterior.chances @ place.widths
    prior = sum(WIDTHS) / 2
    true = batch.need("kernel").double()
    drawn = (place.kernels[None] - true[:, None]).square().sum((2, 3)).argmin(1)
    error, blind = (root_mean_square(estimate - place.widths[drawn]) for estimate in (widths, torch.full_like(widths, prior)))
    assert error < 0.9 * blind, "the LR tells something of the blur"
    chance = posterior.chances[torch.arange(len(drawn)), drawn]
    shared = posterior.chances.square().sum(1)
    assert abs(float((chance - shared).mean())) < 3 * float((chance - shared).std()) / len(drawn) ** 0.5, "chances are calibrated"
    one = posterior.parts[len(posterior.parts) // 2].mean
    assert root_mean_square(posterior.mean - hr) < root_mean_square(one - hr), "weighing all blurs is better than assuming one"


def test_a_reference_is_worth_what_its_noise_leaves() -> None:
    place = world()
    batch = with_references(place.batch(64, seed=2), place, seed=4, right=1.0)
    hr, ref = (batch.need(name).double().flatten(1) for name in ("hr", "ref"))
    posterior = place.posterior(batch.need("lr"))
    known = posterior.denoise(ref, torch.full((64,), trainings.REFERENCE_NOISE, dtype=torch.float64))
    assert root_mean_square(known - hr) < min(root_mean_square(posterior.mean - hr), root_mean_square(ref - hr))
    assert root_mean_square(known - hr) == pytest.approx(place.best_error(trainings.REFERENCE_NOISE) ** 0.5, rel=0.05)


def test_a_training_that_was_stopped_goes_on_and_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "VALIDATIONS", 2)
    whole = replace(TRAININGS["liif"], steps=4, batch=4)
    undegraded = trainings.Training.undegraded

    def broken(self: trainings.Training, step: int) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return undegraded(self, step)

    monkeypatch.setattr(trainings.Training, "undegraded", broken)
    with pytest.raises(KeyboardInterrupt):
        train(whole, "liif", tmp_path / "stopped")
    monkeypatch.setattr(trainings.Training, "undegraded", undegraded)
    continued, once = train(whole, "liif", tmp_path / "stopped"), train(whole, "liif", tmp_path / "once")
    assert list(continued["curve"]) == ["2", "4"]
    assert continued["curve"] == once["curve"]


@pytest.mark.timeout(3600)  # the published samplers of SCDM and BlindDiff take 1000 steps
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("danv2", "edm_sr") else [pytest.mark.slow]) for name in TRAININGS]
)
def test_every_training_begins(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "VALIDATIONS", 1)
    monkeypatch.setattr(trainings, "TEXTURES", 2)
    monkeypatch.setattr(trainings, "LOSS_BATCHES", 1)
    monkeypatch.setattr(trainings, "DRAWS", 2)
    training = replace(TRAININGS[name], steps=1, batch=4)
    if training.after is not None:
        monkeypatch.setitem(TRAININGS, training.after, replace(TRAININGS[training.after], steps=1, batch=4))
    found = train(training, name, tmp_path / name)
    measured = found["curve"]["1"]
    assert set(TRAININGS[name].ground().judged) <= set(measured)
    assert ("loss" in measured) == (TRAININGS[name].case is not None)


@pytest.mark.slow
def test_blinddiffs_kernel_head_learns_from_centred_images_alone() -> None:
    """Why the published BlindDiff's kernels are no better than their mean on docs/trained.md: its head averages features of images in
    [0, 1], whose mean drowns the little contrast that tells of the blur. Shown clean targets, on its own, it learns in [-1, 1] only."""
    place = BlindWorld()
    shown = place.batch(128, seed=1)
    true = shown.need("kernel")
    unknowing = root_mean_square(true - true.mean(0))
    errors = {}
    for data_range in ("unit", "signed"):
        torch.manual_seed(0)
        training = replace(TRAININGS["blinddiff"], sizes={**trainings.BLINDDIFF, "data_range": data_range})
        method = cast(BlindDiff, training.build())

        def kernels(batch: Batch, method: BlindDiff = method) -> Tensor:
            hr, lr = method.inside(batch.need("hr")), method.inside(batch.need("lr"))
            return method.network.kernel_head(torch.cat([hr, method.network.enlarge(lr)], 1)).reshape(true[: len(hr)].shape)

        optimiser = torch.optim.Adam(method.network.kernel_head.parameters(), lr=2e-3)
        for step in range(400):
            batch = place.batch(32, seed=10_000 + step)
            optimiser.zero_grad()
            (kernels(batch) - batch.need("kernel")).square().sum((1, 2)).mean().backward()
            optimiser.step()
        with torch.no_grad():
            errors[data_range] = root_mean_square(kernels(shown) - true)
    assert errors["unit"] > 0.95 * unknowing
    assert errors["signed"] < 0.6 * unknowing
