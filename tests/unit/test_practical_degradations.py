"""BSRGAN's and Real-ESRGAN's degradations: laws of their stages, their decisions, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import (
    BsrganConfig,
    BsrganPlusConfig,
    PairPool,
    PracticalDecisions,
    RealEsrganConfig,
    degrade,
    degrade_array,
)
from rsdiff.degradations.blur import blur_mirrored, blur_opencv
from rsdiff.degradations.camera import CameraNoise, demosaic, draw_camera, inverse_tone_curve, mosaic, tone_curve
from rsdiff.degradations.camera_kernels import shaped_kernel, shifted_row, sinc_kernel
from rsdiff.degradations.draws import Draws
from rsdiff.degradations.interpolation import INTERPOLATIONS, interpolate, resize_matrix
from rsdiff.degradations.jpeg import jpeg_differentiable, jpeg_libjpeg
from rsdiff.degradations.sharpening import sharpen
from rsdiff.degradations.stages import GaussianNoise, IsotropicBlur, Jpeg, run_stages

HR, LR = (3, 48, 40), (12, 10)
BUSY = {"camera": 0.5, "poisson": 0.5, "speckle": 0.5}
CONFIGS: list[Any] = [
    BsrganConfig(camera=0.5),
    BsrganConfig(backend="torch", jpeg="differentiable"),
    BsrganPlusConfig(sharpen=True, shuffle=0.5, **BUSY),
    BsrganPlusConfig(backend="torch", **BUSY),
    RealEsrganConfig(),
    RealEsrganConfig(target="raw", backend="torch", jpeg="libjpeg", sharpening="dense"),
]


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    """A smooth image with some noise in [0, 1]."""
    noise = torch.rand(*shape, generator=keyed_generator("practical", seed))
    return 0.8 * torch.nn.functional.avg_pool2d(noise, 5, 1, 2) + 0.2 * noise


def decided(config: Any, count: int, hr: tuple[int, int, int] = HR, lr: tuple[int, int] = LR) -> list[PracticalDecisions]:
    return [config.build().draw(keyed_generator("decisions", index), hr, lr)[0] for index in range(count)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{type(config).__name__}-{config.backend}")
def test_a_batch_is_degraded_as_its_images_are_one_by_one(config: Any) -> None:
    hr, decisions, degradation = image(6, *HR), decided(config, 6), config.build()
    together = degradation.apply(hr, decisions)
    assert together.lr.shape == (6, 3, *LR)
    assert together.lr.min() >= 0
    assert together.lr.max() <= 1
    for index, decision in enumerate(decisions):
        alone = degradation.apply(hr[index : index + 1], [decision])
        difference = (alone.lr[0] - together.lr[index]).abs()
        # Batched convolutions sum in another order; at a rounding boundary that moves a value by a grey level, a JPEG block by a few.
        assert (difference > 1e-5).float().mean() < 0.2
        assert difference.max() < 8 / 255
        torch.testing.assert_close(alone.hr[0], together.hr[index], rtol=0, atol=5e-4)


@pytest.mark.parametrize("config", CONFIGS[:3:2] + CONFIGS[4:5], ids=lambda config: type(config).__name__)
def test_the_same_decisions_on_the_same_image_give_the_same_result(config: Any) -> None:
    hr, degradation = image(4, *HR), config.build()
    first, again = (degradation.apply(hr, decided(config, 4)).lr for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{type(config).__name__}-{config.backend}")
def test_the_image_given_is_not_changed(config: Any) -> None:
    hr = image(3, *HR)
    before = hr.clone()
    config.build().apply(hr, decided(config, 3))
    assert torch.equal(hr, before)


@pytest.mark.parametrize("bands", [1, 2, 5])
@pytest.mark.parametrize("config", [BsrganConfig(), BsrganPlusConfig(poisson=1.0, speckle=1.0), RealEsrganConfig()], ids=repr)
def test_any_number_of_bands_is_degraded(config: Any, bands: int) -> None:
    shape = (bands, *HR[1:])
    made = config.build().apply(image(5, *shape), decided(config, 5, shape))
    assert made.lr.shape == (5, bands, *LR)


def test_a_crop_keeps_the_target_and_all_beside_it_on_the_same_ground() -> None:
    degradation = BsrganConfig(crop=5).build()
    hr = image(2, *HR)
    decisions = decided(BsrganConfig(crop=5), 2)
    batch = Batch(
        metas=[SampleMeta(name="a"), SampleMeta(name="b")],
        size=HR[1:],
        lr_size=LR,
        hr=hr,
        ref=hr,
        change_mask=hr[:, :1],
        decisions=[[d] for d in decisions],
    )
    made = degrade(batch, degradation)
    assert made.need("lr").shape[-2:] == (5, 5) == made.lr_size
    assert made.size == (20, 20)
    for index, decision in enumerate(decisions):
        top, left = 4 * decision.crop.top, 4 * decision.crop.left
        assert torch.equal(made.need("hr")[index], hr[index, :, top : top + 20, left : left + 20])
    assert torch.equal(made.need("ref"), made.need("hr"))
    assert torch.equal(made.need("change_mask"), made.need("hr")[:, :1])
    assert BsrganConfig(crop=5).for_tests().crop is None


def test_views_share_everything_but_their_noise() -> None:
    first, second = BsrganConfig().build().draw(keyed_generator(3), HR, LR, views=2)
    assert BsrganConfig().build().record(first) == BsrganConfig().build().record(second)
    noise = [next(stage for stage in view.stages if isinstance(stage, GaussianNoise)) for view in (first, second)]
    assert not torch.equal(noise[0].field, noise[1].field)


def test_what_cannot_work_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="set scale to a whole number"):
        BsrganConfig().build().draw(keyed_generator(0), (3, 48, 40), (19, 16))
    with pytest.raises(ValueError, match=r"crop=20 is larger than the LR of 12x10"):
        RealEsrganConfig(crop=20).build().draw(keyed_generator(0), HR, LR)
    with pytest.raises(ValueError, match="needs images of 3 bands, and these have 4"):
        BsrganConfig(camera=1.0).build().draw(keyed_generator(0), (4, 48, 40), LR)
    with pytest.raises(ValueError, match=r"quality=\[90, 30\]"):
        BsrganConfig(quality=(90, 30))
    with pytest.raises(ValueError, match="is not a probability"):
        RealEsrganConfig(final_sinc=1.5)
    with pytest.raises(ValueError, match="no gradient"):
        jpeg_libjpeg(image(1, *HR).requires_grad_(), torch.tensor([50]))


@pytest.mark.parametrize("mode", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(7, 9), (12, 20), (33, 29), (48, 40), (60, 11), (96, 80)])
def test_opencv_s_resizing_equals_its_matrices(mode: Any, size: tuple[int, int]) -> None:
    images = image(2, *HR)
    torch.testing.assert_close(
        interpolate(images, size, mode, "opencv_matrix"), interpolate(images, size, mode, "opencv"), rtol=0, atol=3e-6
    )


@pytest.mark.parametrize("mode", INTERPOLATIONS)
@pytest.mark.parametrize("enlarges", [False, True])
def test_resizing_keeps_a_constant_image(mode: Any, enlarges: bool) -> None:
    rows = resize_matrix(17, 23 if enlarges else 5, mode, enlarges).sum(1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


@pytest.mark.parametrize("size", [3, 9, 13, 17, 25])
def test_both_blurs_equal_ndimage_s_convolution(size: int) -> None:
    kernel = shaped_kernel(size, 2.4, 1.1, 0.6)
    images = image(1, 3, 30, 11)  # smaller than the largest kernel
    expected = np.stack([ndimage.convolve(band, kernel.numpy(), mode="mirror") for band in images[0].double().numpy()])
    np.testing.assert_allclose(blur_opencv(images, [kernel])[0], expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(blur_mirrored(images, kernel[None])[0], expected, rtol=0, atol=2e-6)


def test_kernels_sum_to_one_and_a_width_of_zero_is_a_delta() -> None:
    for kernel in (shaped_kernel(15, 2.0, 0.4, 1.0, "plateau", 1.4), sinc_kernel(13, 1.2), shifted_row(25, 0.7, 1.5)):
        assert float(kernel.sum()) == pytest.approx(1.0)
    assert float(shaped_kernel(9, 0.0, 0.0, 0.3)[4, 4]) == 1.0


def test_a_shifted_row_has_its_centre_of_mass_up_and_left() -> None:
    row = shifted_row(25, 1.2, 1.5)
    assert float((row * (torch.arange(25) - 12)).sum()) == pytest.approx(-1.5, abs=1e-9)


def test_stages_of_different_orders_and_sizes_run_together() -> None:
    blur, jpeg = IsotropicBlur(name="blur", size=7, width=1.0), Jpeg(name="jpeg", quality=60)
    images = [image(3, 16, 16), image(3, 16, 16, seed=1), image(3, 9, 20, seed=2)]
    plans = [[blur, jpeg], [jpeg, blur, jpeg], []]
    together = run_stages(images, plans)
    for one, plan, made in zip(images, plans, together, strict=True):
        assert torch.equal(run_stages([one], [plan])[0], made)


def test_differentiable_jpeg_has_a_gradient_and_higher_quality_is_nearer() -> None:
    images = image(1, 3, 21, 30).requires_grad_()
    errors = [(jpeg_differentiable(images, torch.tensor([q])) - images).square().mean().item() for q in (20.0, 60.0, 95.0)]
    assert errors[0] > errors[1] > errors[2]
    (gradient,) = torch.autograd.grad(jpeg_differentiable(images, torch.tensor([60.0]), smooth_rounding=True).square().sum(), images)
    assert gradient.abs().sum() > 0


def test_a_band_of_its_own_is_coded_as_a_grey_jpeg() -> None:
    images = image(1, 2, 24, 24)
    pixels = (images[0, 1] * 255).round().to(torch.uint8).numpy()
    _, stream = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 40])
    expected = torch.from_numpy(cv2.imdecode(stream, cv2.IMREAD_GRAYSCALE)).float() / 255
    torch.testing.assert_close(jpeg_libjpeg(images, torch.tensor([40]))[0, 1], expected)


def test_sharpening_leaves_a_flat_image_alone_and_its_back_ends_agree() -> None:
    flat = torch.full((1, 3, 20, 30), 0.4)
    images = image(1, *HR)
    dense = sharpen(images, backend="dense")
    for backend in ("opencv", "separable", "dense"):
        torch.testing.assert_close(sharpen(flat, backend=backend), flat)  # type: ignore[arg-type]
        torch.testing.assert_close(sharpen(images, backend=backend), dense, rtol=0, atol=5e-4)  # type: ignore[arg-type]


def test_the_tone_curve_is_inverted() -> None:
    x = torch.linspace(0, 1, 101)
    torch.testing.assert_close(tone_curve(inverse_tone_curve(x)), x, rtol=0, atol=1e-6)


def test_demosaicing_restores_what_is_constant_and_keeps_what_was_measured() -> None:
    constant = torch.tensor([0.2, 0.5, 0.7])[None, :, None, None].expand(1, 3, 9, 12)
    torch.testing.assert_close(demosaic(mosaic(constant)), constant)
    values = mosaic(image(1, *HR))
    torch.testing.assert_close(mosaic(demosaic(values)), values)


def test_a_camera_without_noise_keeps_a_constant_colour() -> None:
    camera = draw_camera(Draws(keyed_generator(1)), "camera", (8, 10))
    quiet: CameraNoise = replace(camera, shot_noise=0.0, read_noise=0.0)
    colour = torch.tensor([0.3, 0.4, 0.35])[None, :, None, None].expand(1, 3, 8, 10)
    torch.testing.assert_close(quiet.run(colour, [quiet]), colour, rtol=0, atol=2e-3)
    assert not torch.equal(camera.run(colour, [camera]), quiet.run(colour, [quiet]))


def test_weighted_choices_never_take_what_weighs_nothing() -> None:
    draws = Draws(keyed_generator(0))
    assert {draws.weighted("abc", (0.0, 1.0, 0.0)) for _ in range(50)} == {"b"}
    assert {draws.integer(2, 4) for _ in range(100)} == {2, 3, 4}
    assert sorted(draws.shuffled(range(7))) == list(range(7))


def test_the_pool_keeps_pairs_together_and_loses_none() -> None:
    pool, generator, seen = PairPool(6), keyed_generator(2), []
    for push in range(20):
        ids = torch.arange(2.0) + 2 * push
        lr, hr = pool.exchange(ids, 10 * ids, generator)
        assert torch.equal(hr, 10 * lr)
        seen += lr.tolist()
    with pytest.raises(ValueError, match="multiple of the batch"):
        pool.exchange(torch.zeros(4), torch.zeros(4), generator)
    assert len(set(seen[6:])) == len(seen[6:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_array_is_degraded_in_its_own_type_and_layout(dtype: Any) -> None:
    values = image(3, 42, 37).numpy().transpose(1, 2, 0)
    array = values if dtype is np.float32 else np.round(values * np.iinfo(dtype).max).astype(dtype)
    lr, hr, decisions = degrade_array(array, "bsrgan", scale=4, seed=5)
    assert lr.dtype == hr.dtype == dtype
    assert (lr.shape, hr.shape) == ((10, 9, 3), (40, 36, 3))
    assert np.array_equal(hr, array[:40, :36])
    assert np.array_equal(lr, degrade_array(array, "bsrgan", scale=4, seed=5)[0])
    assert not np.array_equal(lr, degrade_array(array, "bsrgan", scale=4, seed=6)[0])
    assert "final_jpeg_quality" in BsrganConfig().build().record(decisions)
    assert degrade_array(array[..., 0], "real_esrgan", scale=2, crop=8)[0].shape == (8, 8)


def test_arrays_that_are_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'nonsense' is not a degradation of one image; choose among .*bsrgan"):
        degrade_array(np.zeros((8, 8)), "nonsense")
    with pytest.raises(ValueError, match="values from 0 to 255"):
        degrade_array(np.array([[0.0, 255.0]]), "bsrgan")
    with pytest.raises(ValueError, match="give uint8, uint16 or floats"):
        degrade_array(np.zeros((8, 8), np.int32), "bsrgan")
