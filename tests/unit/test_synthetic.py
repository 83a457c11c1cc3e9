"""Generated scenes."""

import numpy as np
import pytest

from rsdiff.data.scenes import FIRST, SECOND, changed, lay_out, paint, render
from rsdiff.data.synthetic import RGB_NM, SyntheticDataset, SyntheticSource, displayed, wavelengths_of


def test_a_scene_depends_on_seed_split_and_index_only():
    options = SyntheticDataset(size=64, train_images=5)
    forward, backward = SyntheticSource(options, "train"), SyntheticSource(options, "train")
    images = [forward.raw(i).arrays["hr"] for i in range(5)]
    for i in reversed(range(5)):
        np.testing.assert_array_equal(backward.raw(i).arrays["hr"], images[i])
    assert len({image.tobytes() for image in images}) == 5
    assert not np.array_equal(SyntheticSource(options, "test").raw(0).arrays["hr"], images[0])
    assert not np.array_equal(SyntheticSource(SyntheticDataset(size=64, seed=1), "train").raw(0).arrays["hr"], images[0])


@pytest.mark.parametrize("index", range(4))
def test_without_other_light_the_second_date_differs_exactly_inside_the_mask(index: int):
    source = SyntheticSource(SyntheticDataset(size=128, bands=8, illumination=0.0, changes=0.6), "train")
    arrays = source.raw(index).arrays
    differs = (arrays["hr"] != arrays["ref"]).any(axis=0)
    mask = arrays["change_mask"][0] > 0
    assert not differs[~mask].any()
    assert differs[mask].mean() > 0.999  # 16-bit rounding may hide a difference
    assert mask.any()


def test_nothing_changes_at_rate_0_and_everything_but_the_ground_may_at_rate_1():
    still = SyntheticSource(SyntheticDataset(size=96, changes=0.0, illumination=0.0), "train").raw(1).arrays
    np.testing.assert_array_equal(still["hr"], still["ref"])
    assert not still["change_mask"].any()
    moved = [SyntheticSource(SyntheticDataset(size=96, changes=rate), "train").raw(1).arrays["change_mask"].mean() for rate in (0.2, 1.0)]
    assert moved[1] > moved[0]


def test_other_light_changes_pixels_outside_the_mask_too():
    arrays = SyntheticSource(SyntheticDataset(size=96, changes=0.2, illumination=1.0), "train").raw(0).arrays
    outside = arrays["change_mask"][0] == 0
    assert (arrays["hr"] != arrays["ref"]).any(axis=0)[outside].mean() > 0.5


def test_the_colour_picture_is_the_spectral_scene_seen_at_three_wavelengths():
    scene = lay_out((96, 96), np.random.default_rng(3), 0.3)
    painted = paint(scene, FIRST)
    many = wavelengths_of(61)  # 10 nm steps: 650, 560 and 470 nm are among them
    positions = [many.index(nm) for nm in RGB_NM]
    colour, spectral = render(scene, painted, RGB_NM), render(scene, painted, many)
    np.testing.assert_allclose(colour, spectral[positions], atol=2e-6)
    assert np.abs(displayed(colour).astype(int) - displayed(spectral[positions])).max() <= 1


def test_vegetation_has_a_red_edge_and_water_has_none():
    from rsdiff.data.spectra import MATERIALS, reflectances

    red, infrared = reflectances([670.0, 800.0]).T
    rise = dict(zip(MATERIALS, infrared / red, strict=True))
    assert rise["crop"] > 5
    assert rise["tree"] > 5
    assert rise["water"] < 1
    assert 1 < rise["bright_soil"] < 2


def test_dates_share_everything_that_did_not_change():
    scene = lay_out((64, 64), np.random.default_rng(0), 0.0)
    assert not changed(paint(scene, FIRST), paint(scene, SECOND)).any()


@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint16), (48, np.uint16)])
def test_types_bands_and_ranges(bands: int, dtype: type):
    source = SyntheticSource(SyntheticDataset(size=48, bands=bands), "train")
    raw = source.raw(0)
    assert raw.arrays["hr"].shape == (bands, 48, 48)
    assert raw.arrays["hr"].dtype == dtype
    sample = source.read(0)
    assert sample.hr is not None
    assert 0 <= float(sample.hr.min()) < float(sample.hr.max()) <= 1
    assert len(sample.meta.wavelengths) == bands


def test_options_out_of_range_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="size is 8; scenes of 16 to 8192"):
        SyntheticDataset(size=8)
    with pytest.raises(ValueError, match="changes is 2"):
        SyntheticDataset(changes=2)
