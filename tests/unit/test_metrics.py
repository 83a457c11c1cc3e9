"""Metrics against references written here with NumPy and SciPy, and the conventions that decide their values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg, ndimage

from rsdiff.metrics import METRICS, niqe, opensr
from rsdiff.metrics.colour import border_width, crop, luma, quantise, to_space
from rsdiff.metrics.fid import frechet_distance, kernel_distance
from rsdiff.metrics.phase_correlation import subpixel_shift
from rsdiff.metrics.psnr import cpsnr, ergas, pooled_psnr, psnr
from rsdiff.metrics.ssim import ssim


def images(seed: int = 0, shape: tuple[int, ...] = (3, 40, 44)) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth image of 0..255 and a noisy version."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random(shape), (0, 2, 2))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255
    return torch.from_numpy(np.round(smooth)), torch.from_numpy(np.round(np.clip(smooth + 9 * rng.standard_normal(shape), 0, 255)))


def test_psnr_equals_its_definition() -> None:
    hr, sr = images()
    assert psnr(sr, hr) == pytest.approx(10 * math.log10(255**2 / np.mean((sr.numpy() - hr.numpy()) ** 2)), rel=1e-12)


def test_ssim_equals_a_gaussian_filter_of_scipy() -> None:
    hr, sr = images()

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, (0, 1.5, 1.5), truncate=3.5)[:, 5:-5, 5:-5]

    x, y = sr.numpy(), hr.numpy()
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    expected = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert ssim(sr, hr) == pytest.approx(expected, rel=1e-9)


def test_ssim_of_an_image_below_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="11x11"):
        ssim(torch.zeros(3, 10, 40), torch.zeros(3, 10, 40))


def test_ergas_follows_the_band_means_of_the_reference() -> None:
    hr, sr = images()
    error = ((sr - hr) ** 2).mean((1, 2)) / hr.mean((1, 2)) ** 2
    assert ergas(sr, hr, 4) == pytest.approx(25 * math.sqrt(float(error.mean())))


def test_psnr_of_studio_luma_is_20_log10_of_255_over_219_above_full_range_luma() -> None:
    hr, sr = images()
    studio = psnr(luma(sr, "y_studio"), luma(hr, "y_studio"))
    full = psnr(luma(sr, "y_full"), luma(hr, "y_full"))
    assert studio - full == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)


def test_quantisation_rounds_ties_to_even_and_clamps() -> None:
    values = torch.tensor([[-0.1, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1.2]], dtype=torch.float64)
    assert quantise(values).tolist() == [[0, 0, 2, 2, 255]]
    assert quantise(values, "none")[0, -1] == pytest.approx(306)


@pytest.mark.parametrize(("rule", "expected"), [("none", 0), ("scale", 4), ("ceil_scale", 4), ("scale_plus_6", 10), (128, 128)])
def test_border_rules(rule: str | int, expected: int) -> None:
    assert border_width(rule, 4) == expected  # type: ignore[arg-type]


def test_border_of_a_fractional_scale_is_rounded_up_or_refused() -> None:
    assert border_width("ceil_scale", 2.5) == 3
    with pytest.raises(ValueError, match="ceil_scale"):
        border_width("scale", 2.5)


def test_a_border_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing"):
        crop(torch.zeros(1, 8, 20), 4)


def test_luma_of_two_bands_is_refused_and_of_many_uses_the_chosen_bands() -> None:
    with pytest.raises(ValueError, match="rgb_bands"):
        luma(torch.zeros(2, 4, 4), "y_full")
    many = torch.rand(12, 8, 8, dtype=torch.float64) * 255
    assert torch.equal(to_space(many, "y_full", (3, 2, 1)), luma(many[[3, 2, 1]], "y_full"))


def test_pooled_psnr_is_the_psnr_of_the_mean_error() -> None:
    errors = [10.0, 400.0, 90.0]
    values = [10 * math.log10(255**2 / e) for e in errors]
    assert pooled_psnr(values) == pytest.approx(10 * math.log10(255**2 / np.mean(errors)))


def test_cpsnr_finds_a_shift_and_a_brightness_offset() -> None:
    hr, _ = images(shape=(3, 60, 60))
    # An even shift; odd ones are never tried by the published measure.
    assert cpsnr(hr.roll((4, -2), (1, 2)) + 7.0, hr) > 100


def test_frechet_distance_equals_the_matrix_square_root_with_many_and_with_few_samples() -> None:
    rng = np.random.default_rng(0)
    for count, dimension in ((60, 6), (8, 12)):
        x, y = rng.standard_normal((count, dimension)), rng.standard_normal((count, dimension)) * 1.3 + 0.2
        sx, sy = np.cov(x.T), np.cov(y.T)
        root = linalg.sqrtm(sx @ sy).real
        expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sx + sy - 2 * root)
        assert frechet_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=2e-5)


def test_kernel_distance_of_two_halves_of_one_set_is_near_zero() -> None:
    features = torch.randn(400, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(kernel_distance(features[:200], features[200:])) < 0.05


def test_distances_of_one_image_are_refused() -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="two images"):
            distance(torch.zeros(1, 4), torch.zeros(5, 4))


def test_phase_correlation_finds_a_fractional_shift() -> None:
    scene = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(1).random((64, 64)), 1.5, mode="wrap"))
    moved = torch.from_numpy(ndimage.fourier_shift(np.fft.fft2(scene.numpy()), (1.3, -2.6)))
    assert subpixel_shift(scene, torch.fft.ifft2(moved).real) == pytest.approx((-1.3, 2.6), abs=0.03)


def test_histogram_matching_gives_the_reference_its_own_values_back() -> None:
    reference = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    matched = opensr.match_histograms(reference.square() * 3, reference)
    torch.testing.assert_close(matched, reference)


def test_opensr_calls_a_perfect_restoration_an_improvement_and_an_enlarged_input_an_omission() -> None:
    hr = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(2).random((3, 96, 96)), (0, 1, 1))).float()
    lr = torch.nn.functional.interpolate(hr[None], scale_factor=0.25, mode="bilinear", antialias=True)[0]
    options = opensr.OpensrConfig(match_histograms=False)
    perfect = opensr.correctness(opensr.prepare(lr, hr, hr, options), options).values
    enlarged = torch.nn.functional.interpolate(lr[None], size=(96, 96), mode="bilinear", antialias=True)[0]
    lazy = opensr.correctness(opensr.prepare(lr, enlarged, hr, options), options).values
    assert max(perfect, key=perfect.__getitem__) == "improvement"
    assert max(lazy, key=lazy.__getitem__) == "omission"


def test_opensr_shifts_the_restored_image_onto_the_reference_where_asked_for() -> None:
    """The figures are what Metrics(harm_apply_spatial=False) and Metrics() of the package opensr-test 1.3.3 compute with OpenCV 5."""
    hr = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(2).random((3, 96, 96)), (0, 1, 1))).float()
    lr = torch.nn.functional.interpolate(hr[None], scale_factor=0.5, mode="bilinear", antialias=True)[0]
    sr = 0.35 * hr.roll((1, -2), (1, 2)) + 0.65 * hr.roll((1, -1), (1, 2))
    for align, expected in ((False, (0.05745646, 0.16883926, 0.77370429)), (True, (0.51087624, 0.35003939, 0.13908438))):
        options = opensr.OpensrConfig(align=align)
        found = opensr.correctness(opensr.prepare(lr, sr, hr, options), options).values
        assert tuple(found.values()) == pytest.approx(expected, abs=1e-5)
    far = hr.roll(9, 2)
    assert torch.equal(opensr.aligned(far, hr), far)  # a shift of more than 5 pixels is not believed


def test_opensr_refuses_a_border_that_the_scale_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r"choose 15"):
        opensr.prepare(torch.zeros(3, 20, 20), torch.zeros(3, 60, 60), None, opensr.OpensrConfig())


def test_niqe_model_survives_a_file_and_the_official_file_is_read(tmp_path: Path) -> None:
    model = niqe.NiqeModel(torch.rand(36, dtype=torch.float64), torch.eye(36, dtype=torch.float64), 48)
    niqe.write_model(tmp_path / "own.npz", model, {"luma": "studio"})
    again = niqe.read_model(tmp_path / "own.npz")
    assert torch.equal(again.mean, model.mean)
    assert again.block == 48
    np.savez(tmp_path / "official.npz", mu_pris_param=model.mean.numpy()[None], cov_pris_param=model.covariance.numpy())
    assert niqe.read_model(tmp_path / "official.npz").block == 96
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="no NIQE model"):
        niqe.read_model(tmp_path / "other.npz")


def test_niqe_of_too_few_blocks_is_not_a_number() -> None:
    model = niqe.NiqeModel(torch.zeros(36, dtype=torch.float64), torch.eye(36, dtype=torch.float64), 32)
    luma_image = torch.rand(64, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 255
    assert math.isnan(niqe.niqe(luma_image, model, min_blocks=4))
    assert math.isnan(niqe.niqe(luma_image[:20], model))
    assert math.isfinite(niqe.niqe(luma_image, model))


def test_niqe_fit_needs_more_blocks_than_features() -> None:
    with pytest.raises(ValueError, match="37"):
        niqe.fit([torch.rand(64, 64, dtype=torch.float64) * 255], block=32)


def test_every_metric_is_described() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.title
        assert metric.meaning
        assert (metric.build is None) != (metric.build_set is None), name
        assert metric.low < metric.high
