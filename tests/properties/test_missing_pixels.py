"""What stands in missing pixels changes nothing: they are filled before anything looks beyond a pixel, and do not count afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rsdiff.app.diagnosis import options_of
from rsdiff.data.missing import FILL_REACH, eroded, fill_missing, validity_at
from rsdiff.data.sample import Batch, Sample, SampleMeta, collate
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import PairedConfig, degrade
from rsdiff.degradations.grid import GridConfig
from rsdiff.degradations.practical import PracticalDecisions
from rsdiff.degradations.stages import PoissonNoise, ScaledPoissonNoise
from rsdiff.inference.scene_input import filled
from tests.runs.pairs import CONF, WAVELENGTHS, options

pytestmark = pytest.mark.xdist_group("matrix")  # the options are composed once
SCALE = 4


def holes(bands: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return validity (bands, height, width): every band with holes of its own."""
    mask = torch.ones(bands, height, width)
    for band in range(bands):
        top, left = torch.randint(0, min(height, width) // 2, (2,), generator=keyed_generator("holes", seed, band)).tolist()
        mask[band, top : top + 3, left : left + 5] = 0
    return mask


def test_missing_pixels_are_filled_as_those_of_scenes() -> None:
    image = torch.rand(2, 40, 37, generator=keyed_generator("image"))
    valid = holes(2, 40, 37)
    valid[1, 5:30, 3:30] = 0  # deeper than the fill reaches
    far = torch.where(valid > 0, image, 0).sum((1, 2)) / valid.sum((1, 2))
    expected = filled(image.numpy(), valid.numpy() > 0, far.numpy())
    rubbish = torch.where(valid > 0, image, torch.tensor(float("nan")))
    found = fill_missing(rubbish[None], valid[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    assert torch.equal(fill_missing(torch.where(valid > 0, image, -7.0)[None], valid[None])[0], found)
    assert bool(torch.isfinite(fill_missing(torch.full((1, 1, 9, 9), float("nan")), torch.zeros(1, 1, 9, 9))).all())
    assert FILL_REACH >= 1


def test_erosion_and_other_grids_count_what_is_wholly_known() -> None:
    valid = torch.ones(1, 1, 12, 12)
    valid[..., 6, 6] = 0
    assert int((eroded(valid, 2) == 0).sum()) == 25
    small = validity_at(valid, (3, 3))
    assert small.flatten().tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]
    assert int((validity_at(small, (12, 12)) == 0).sum()) == 16


@pytest.mark.parametrize("name", options_of(CONF / "degradation"))
def test_a_degradation_mixes_no_further_than_it_says(name: str) -> None:
    """Other values in one place change the LR within the stated reach alone, and other bands only where the degradation says so."""
    config = options().degradations[name]
    if isinstance(config, GridConfig | PairedConfig):
        return  # a list of Gaussian ones, and none
    config = config.__class__(**{**vars(config), "wavelengths": WAVELENGTHS}) if name == "srf" else config
    if getattr(config, "crop", None) is not None:
        config = config.for_tests()
    scale = 1 if name in ("bands", "srf") else SCALE
    degradation, bands = config.build(), 48 if scale == 1 else 3
    side = 288 if "esrgan" in name or "bsrgan" in name else 160 if "refdiff_training" in name else 96
    place, seen = 12, 0
    for seed in range(8):
        hr = torch.rand(1, bands, side, side, generator=keyed_generator("hr", seed)) * 0.6 + 0.2
        decisions = degradation.draw(keyed_generator("decisions", seed), (bands, side, side), (side // scale, side // scale))
        if isinstance(decisions[0], PracticalDecisions) and any(
            isinstance(stage, PoissonNoise | ScaledPoissonNoise) for stage in decisions[0].stages
        ):
            continue  # counts of photons are drawn one after the other for a whole image
        other = hr.clone()
        other[0, 0, place : place + 2, place : place + 2] = torch.tensor([[0.05, 0.95], [0.9, 0.1]])
        made, changed = (degradation.apply(image, decisions) for image in (hr, other))
        reach = degradation.reach(decisions[0], float(scale))
        if place + reach.pixels >= side - 16:
            continue
        valid = torch.ones(1, bands, side, side)
        valid[0, 0, place : place + 2, place : place + 2] = 0
        batch = collate([Sample(SampleMeta("a"), hr=hr[0], lr_size=(side // scale, side // scale), valid=valid[0], decisions=decisions)])
        after = degrade(batch, degradation)
        assert after.valid is not None
        assert after.lr_valid is not None
        moved = (made.lr != changed.lr)[after.lr_valid > 0]
        assert not bool(moved.any()), f"{int(moved.sum())} pixels"
        assert not bool((made.hr != changed.hr)[after.valid > 0].any())
        seen += 1
        if seen == 2:
            return
    raise AssertionError(f"{seen} of 8 draws could be looked at")


def test_the_lr_and_the_target_of_degraded_images_do_not_depend_on_missing_pixels() -> None:
    degradation = options().degradations["iso"].build()
    for seed in range(2):
        made = [degraded(seed, rubbish, degradation) for rubbish in (float("nan"), 3.0)]
        for name in ("hr", "lr", "lr_views", "hr_views"):
            assert torch.equal(made[0].need(name), made[1].need(name)), name
            assert bool(torch.isfinite(made[0].need(name)).all())


def degraded(seed: int, rubbish: float, degradation: object) -> Batch:
    views = torch.rand(2, 3, 64, 64, generator=keyed_generator("views", seed))
    masks = torch.stack([holes(3, 64, 64, view) for view in range(2)])
    views = torch.where(masks > 0, views, torch.tensor(rubbish))
    decisions = degradation.draw(keyed_generator(seed), (3, 64, 64), (16, 16), 2)  # type: ignore[attr-defined]
    sample = Sample(
        SampleMeta("a"), hr=views[0], hr_views=views[1:], valid=masks[0], views_valid=masks[1:], lr_size=(16, 16), decisions=decisions
    )
    return degrade(collate([sample]), degradation)  # type: ignore[arg-type]


def test_where_an_own_lr_is_missing_the_target_does_not_count() -> None:
    lr_valid = torch.ones(3, 8, 8)
    lr_valid[1, 2, 2] = 0
    batch = collate([Sample(SampleMeta("a"), hr=torch.rand(3, 32, 32), lr=torch.rand(3, 8, 8), lr_valid=lr_valid, lr_size=(8, 8))])
    assert batch.valid is not None
    assert int((batch.valid == 0).sum()) == 3 * 16
    whole = Sample(SampleMeta("b"), hr=torch.rand(3, 32, 32), lr=torch.rand(3, 8, 8), lr_size=(8, 8))
    masked = Sample(SampleMeta("c"), hr=torch.rand(3, 32, 32), lr=torch.rand(3, 8, 8), lr_size=(8, 8), valid=torch.zeros(1, 32, 32))
    mixed = collate([whole, masked]).valid
    assert mixed is not None
    assert mixed.shape == (2, 3, 32, 32)
    assert mixed.mean((1, 2, 3)).tolist() == [1, 0]
