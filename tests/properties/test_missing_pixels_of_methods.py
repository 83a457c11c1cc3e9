"""Every method: what stands in missing pixels changes no loss and no gradient, and what is missing does not count."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rsdiff.data.sample import Batch
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import degrade
from rsdiff.diffusion.noise import SeededNoise
from tests.properties.trials import SIDE, TRAINED, losses_and_gradients, trial
from tests.runs.pairs import options, sampler_of

pytestmark = pytest.mark.xdist_group("matrix")  # the options are composed once
SAMPLED = ("rrdb_tiny", "sr3_tiny", "liif_tiny", "spectral_linear")


def with_holes(batch: Batch, rubbish: float) -> Batch:
    """Return the batch with a missing corner and, in the second image, one band that misses a place of its own."""

    def holed(images: Tensor, size: int) -> tuple[Tensor, Tensor]:
        valid = torch.ones_like(images)
        valid[..., : size // 8, : size // 8] = 0
        valid[-1, ..., 0, -size // 8 :, -size // 8 :] = 0
        return torch.where(valid > 0, images, torch.tensor(rubbish)), valid

    hr, valid = holed(batch.need("hr"), SIDE)
    found = replace(batch, hr=hr, valid=valid)
    if batch.hr_views is not None:
        hr_views, views_valid = holed(batch.hr_views, SIDE)
        found = replace(found, hr_views=hr_views, views_valid=views_valid)
    if batch.ref is not None:
        ref, ref_valid = holed(batch.ref, SIDE)
        found = replace(found, ref=ref, ref_valid=ref_valid)
    if batch.lr is not None:
        lr, lr_valid = holed(batch.lr, batch.lr_size[0])
        found = replace(found, lr=lr, lr_valid=lr_valid)
    return found


def require_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert set(first) == set(second)
    for name, value in first.items():
        assert bool(torch.isfinite(value).all()), name
        assert torch.equal(value, second[name]), f"{name}: {float((value - second[name]).abs().max())}"


@pytest.mark.parametrize("model", TRAINED)
def test_what_stands_in_missing_pixels_changes_no_loss_and_no_gradient(model: str) -> None:
    """Before the degradation, and of the target after it: neither what was missing nor what was made of it counts."""
    given = trial(model)
    torch.manual_seed(0)
    one, other = (degrade(with_holes(given.batch, rubbish), given.degradation) for rubbish in (float("nan"), 40.0))
    assert other.valid is not None
    assert 0.05 < float(other.valid.mean()) < 0.99
    rubbish = torch.rand(other.need("hr").shape, generator=keyed_generator("rubbish"))
    other = replace(other, hr=torch.where(other.valid > 0, other.hr, rubbish))
    require_same(losses_and_gradients(given.method, one), losses_and_gradients(given.method, other))


@pytest.mark.parametrize("model", [name if name in SAMPLED else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED])
def test_known_pixels_count(model: str) -> None:
    """The masks are no trick: other values of known pixels change the loss, and a mask of ones changes none beyond rounding."""
    given = trial(model)
    whole = degrade(given.batch, given.degradation)
    hr = whole.need("hr")
    masked = replace(whole, valid=torch.ones_like(hr), lr_valid=torch.ones_like(whole.need("lr")))
    first, second = losses_and_gradients(given.method, whole), losses_and_gradients(given.method, masked)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5 * max(1.0, float(value.abs().max())), msg=name)
    moved = losses_and_gradients(given.method, replace(masked, hr=(hr + 0.1).clamp(0, 1)))
    assert any(not torch.equal(moved[name], value) for name, value in second.items())


@pytest.mark.parametrize("model", [name if name in SAMPLED else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED])
def test_what_stands_in_missing_pixels_changes_nothing_restored(model: str) -> None:
    """Where the data bring an LR (and another date) with missing pixels, the whole restored image stays the same, bit for bit."""
    given = trial(model)
    whole = degrade(given.batch, given.degradation)
    restored = []
    for rubbish in (float("nan"), 40.0):
        batch = replace(with_holes(replace(whole, hr_views=None), rubbish), lr_views=None)
        method = deepcopy(given.method).eval()
        noise = SeededNoise([(0,), (1,)], shared=(2,))
        sampler = sampler_of(model)
        if sampler.start.startswith("image") and not options().models[model].starts_at_image(given.problem):
            sampler = replace(sampler, start="edm")
        if hasattr(method, "latent_scale"):
            method.latent_scale.fill_(1.0)  # what the first batch of a training measures
        restored.append(method.restore(batch, sampler, noise))
    assert bool(torch.isfinite(restored[0]).all())
    assert torch.equal(*restored)
