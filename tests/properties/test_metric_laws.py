"""Laws that hold for every image: identity, symmetry, order under noise, invariance to what does not count."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsdiff.metrics.kernel import kernel_psnr
from rsdiff.metrics.no_reference import average_gradient, entropy
from rsdiff.metrics.psnr import cpsnr, ergas, mse, psnr
from rsdiff.metrics.spectral import cc, mpsnr, mrae, rmse, sam, uiqi
from rsdiff.metrics.ssim import ssim

Pairwise = Callable[..., float]

seeds = st.integers(0, 10_000)
bands = st.sampled_from([1, 3, 4, 12])


def image(seed: int, count: int, height: int = 24, width: int = 30) -> torch.Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 255


@given(seeds, bands)
@settings(max_examples=15, deadline=None)
def test_an_image_is_identical_to_itself(seed: int, count: int) -> None:
    x = image(seed, count)
    assert psnr(x, x) == math.inf
    assert psnr(x, x, identical=100.0) == 100
    assert cpsnr(x, x) == math.inf
    assert ssim(x, x) == pytest.approx(1, abs=1e-12)
    assert mse(x, x) == 0
    assert ergas(x, x, 4) == 0


@given(seeds, bands)
@settings(max_examples=15, deadline=None)
def test_symmetric_measures_do_not_care_which_image_is_the_reference(seed: int, count: int) -> None:
    x, y = image(seed, count), image(seed + 1, count)
    for measure in (psnr, ssim, mse):
        assert measure(x, y) == pytest.approx(measure(y, x), rel=1e-12)


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_more_noise_is_never_better(seed: int) -> None:
    x = image(seed, 3)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    noisy = [x + level * noise for level in (1, 4, 16, 64)]
    assert [psnr(y, x) for y in noisy] == sorted((psnr(y, x) for y in noisy), reverse=True)
    assert [ssim(y, x) for y in noisy] == sorted((ssim(y, x) for y in noisy), reverse=True)
    assert [ergas(y, x, 4) for y in noisy] == sorted(ergas(y, x, 4) for y in noisy)


@given(seeds, bands)
@settings(max_examples=10, deadline=None)
def test_band_order_does_not_matter(seed: int, count: int) -> None:
    x, y = image(seed, count), image(seed + 1, count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    for measure in (psnr, ssim, mse):
        assert measure(x[order], y[order]) == pytest.approx(measure(x, y), rel=1e-12)


@pytest.mark.parametrize("measure", [psnr, ssim, mse, cpsnr, lambda x, y, valid: ergas(x, y, 4, valid)])
@pytest.mark.parametrize("filling", [math.nan, 1e30, -5.0])
def test_nodata_pixels_do_not_count_whatever_they_hold(measure: Pairwise, filling: float) -> None:
    x, y = image(0, 4), image(1, 4)
    valid = torch.ones(1, *x.shape[-2:], dtype=torch.bool)
    valid[:, 3:6, :9] = False
    value = measure(x, y, valid=valid)
    spoilt_x, spoilt_y = x.clone(), y.clone()
    spoilt_x[:, ~valid[0]], spoilt_y[:, ~valid[0]] = filling, math.nan
    assert math.isfinite(value)
    assert measure(spoilt_x, spoilt_y, valid=valid) == value


@pytest.mark.parametrize("measure", [psnr, ssim, mse, cpsnr])
def test_a_mask_of_ones_changes_nothing_and_a_mask_of_zeros_gives_no_value(measure: Pairwise) -> None:
    x, y = image(0, 3), image(1, 3)
    ones = torch.ones(1, *x.shape[-2:], dtype=torch.bool)
    assert measure(x, y, valid=ones) == pytest.approx(measure(x, y), rel=1e-12)
    assert math.isnan(measure(x, y, valid=~ones))


@pytest.mark.parametrize("measure", [psnr, ssim, mse, cpsnr, lambda x, y, valid: ergas(x, y, 4, valid), cc, uiqi, rmse, sam, mrae])
@pytest.mark.parametrize("filling", [math.nan, 1e30])
def test_missing_values_of_one_band_leave_the_others_alone(measure: Pairwise, filling: float) -> None:
    x, y = image(0, 4), image(1, 4)
    valid = torch.ones(4, *x.shape[-2:], dtype=torch.bool)
    valid[1, 3:6, :9] = False
    valid[2] = False
    value = measure(x, y, valid=valid)
    spoilt_x, spoilt_y = torch.where(valid, x, filling), torch.where(valid, y, math.nan)
    assert measure(spoilt_x, spoilt_y, valid=valid) == pytest.approx(value, rel=1e-12, nan_ok=True)
    assert math.isfinite(value) == (measure is not sam)  # a pixel without one of its bands has no spectrum
    if measure in (mse, psnr):
        kept = torch.cat([x[0].flatten(), x[1][valid[1]], x[3].flatten()])[None, None]
        other = torch.cat([y[0].flatten(), y[1][valid[1]], y[3].flatten()])[None, None]
        assert value == pytest.approx(measure(kept, other), rel=1e-12)


def test_bands_without_signal_in_the_reference_are_left_out_of_relative_measures() -> None:
    x, y = image(0, 3), image(1, 3)
    y[1] = 0
    assert ergas(x, y, 4) == pytest.approx(ergas(x[[0, 2]], y[[0, 2]], 4))
    x[1] = 0
    assert mpsnr(x, y, 255.0) == pytest.approx(mpsnr(x[[0, 2]], y[[0, 2]], 255.0))


def test_no_reference_measures_leave_nodata_out() -> None:
    gray = image(0, 1)
    valid = torch.ones(1, *gray.shape[-2:], dtype=torch.bool)
    valid[:, :, 20:] = False
    spoilt = gray.clone()
    spoilt[~valid] = math.nan
    assert average_gradient(spoilt, valid) == pytest.approx(average_gradient(gray[..., :20]))
    assert entropy(spoilt, valid) == pytest.approx(entropy(gray[..., :20]))


def test_a_flat_image_has_no_gradient_and_no_entropy() -> None:
    flat = torch.full((1, 9, 9), 77.0)
    assert average_gradient(flat) == 0
    assert entropy(flat) == 0


def test_kernels_are_compared_on_their_common_centre_and_against_the_true_peak() -> None:
    kernel = torch.zeros(5, 5, dtype=torch.float64)
    kernel[2, 2] = 1
    assert kernel_psnr(kernel, torch.nn.functional.pad(kernel, (3, 3, 3, 3))) == math.inf
    assert kernel_psnr(0.5 * kernel, 0.4 * kernel) == pytest.approx(10 * math.log10(0.25 * 25 / 0.01))
