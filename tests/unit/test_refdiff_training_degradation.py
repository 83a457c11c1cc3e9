"""Ref-Diff's training degradation: drawn apart from its application, bounded, and doing nothing where nothing is asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations.refdiff_training import RefDiffTrainingConfig, motion_kernel

PLAIN = RefDiffTrainingConfig(width=(0, 0), noise=(0, 0), quality=(100, 100), blurs=("isotropic",), shrinks=("area",))


def picture(bands: int = 3) -> torch.Tensor:
    return torch.rand(2, bands, 64, 64, generator=torch.Generator().manual_seed(0))


def draw(options: RefDiffTrainingConfig, images: torch.Tensor, scale: int = 8) -> list:
    size = (images.shape[-2] // scale, images.shape[-1] // scale)
    degradation = options.build()
    return [degradation.draw(keyed_generator(index), tuple(images.shape[1:]), size)[0] for index in range(len(images))]


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("scale", [8, 16])
def test_any_bands_and_scales_give_images_in_range(bands, scale):
    images = picture(bands)
    made = RefDiffTrainingConfig().build().apply(images, draw(RefDiffTrainingConfig(), images, scale))
    assert made.lr.shape == (2, bands, 64 // scale, 64 // scale)
    assert made.lr.min() >= 0
    assert made.lr.max() <= 1
    assert made.hr is images


def test_without_blur_noise_and_compression_it_is_the_mean_of_each_cell():
    images = picture()
    lr = PLAIN.build().apply(images, draw(PLAIN, images)).lr
    expected = images.unflatten(-1, (8, 8)).unflatten(-3, (8, 8)).mean((-1, -3))
    torch.testing.assert_close(lr, expected, atol=0.51 / 255, rtol=0)


def test_the_same_decisions_give_the_same_image_alone_or_in_a_batch():
    images, options = picture(), RefDiffTrainingConfig()
    decisions = draw(options, images)
    both = options.build().apply(images, decisions).lr
    assert torch.equal(both[1:], options.build().apply(images[1:], decisions[1:]).lr)


def test_views_share_the_degradation_and_differ_in_noise():
    first, second = RefDiffTrainingConfig().build().draw(keyed_generator(0), (3, 64, 64), (8, 8), views=2)
    assert replace(first, field=second.field) == replace(second)
    assert not torch.equal(first.field, second.field)


@pytest.mark.parametrize("kind", ["isotropic", "anisotropic", "motion"])
def test_kernels_sum_to_one_and_are_centred(kind):
    options = RefDiffTrainingConfig(blurs=(kind,))
    images = picture()
    kernels = options.build().apply(images, draw(options, images)).kernel
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(2))
    offsets = torch.arange(21.0) - 10
    for kernel in kernels:
        assert abs(float((kernel.sum(0) * offsets).sum())) < 1e-3
        assert abs(float((kernel.sum(1) * offsets).sum())) < 1e-3


def test_a_motion_along_x_blurs_rows_only():
    kernel = motion_kernel(9.0, 0.0, 21)
    assert float(kernel[10].sum()) == pytest.approx(1)
    assert int((kernel[10] > 0).sum()) in (9, 10, 11)
    np.testing.assert_allclose(motion_kernel(9.0, np.pi / 2, 21), kernel.T, atol=1e-6)


def test_compression_costs_more_at_lower_quality():
    images = torch.nn.functional.avg_pool2d(picture(), 2)
    errors = []
    for quality in (95, 30):
        options = replace(PLAIN, quality=(quality, quality))
        made = options.build().apply(images, draw(options, images, 1))
        errors.append(float((made.lr - made.lr_clean).square().mean()))
    assert errors[0] < errors[1]


def test_decisions_are_recorded_in_result_rows():
    images = picture()
    row = RefDiffTrainingConfig().build().record(draw(RefDiffTrainingConfig(), images)[0])
    assert set(row) == {"blur", "width", "second_width", "angle", "shrink", "noise", "quality"}


@pytest.mark.parametrize("wrong", [{"kernel_size": 20}, {"blurs": ()}, {"noise": (5, 1)}, {"quality": (0, 90)}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match=r"choose|name|qualities"):
        RefDiffTrainingConfig(**wrong)
