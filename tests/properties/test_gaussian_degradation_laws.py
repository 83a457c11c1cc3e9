"""Laws of kernels, blur, resizing and the whole Gaussian degradation."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsdiff.config import UserError
from rsdiff.data.augmentation import augment
from rsdiff.data.ranges import to_signed_range, to_unit_range
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import GaussianDegradationConfig
from rsdiff.degradations.blur import blur
from rsdiff.degradations.kernels import anisotropic_kernels, gaussian_kernels, isotropic_kernels, peak_index
from rsdiff.degradations.resizing import cubic_taps, resize, resize_cubic, shift_pixels
from rsdiff.degradations.rounding import round_to_grey_levels, to_uint8

widths = st.floats(0, 6)
angles = st.floats(-math.pi, math.pi)
sizes = st.integers(1, 24)
peaks = st.sampled_from(["upper", "lower"])
seeds = st.integers(0, 2**32 - 1)
ROUNDING = 2e-6  # a few float32 rounding steps of values near 1, summed over some hundred taps


def uniform(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=keyed_generator(seed))


def kernel(width: float, second_width: float, angle: float, size: int, peak: Any = "upper") -> torch.Tensor:
    values = (torch.tensor([value], dtype=torch.float64) for value in (width, second_width, angle))
    return anisotropic_kernels(*values, size, peak, dtype=torch.float64)[0]


@given(widths, widths, angles, sizes, peaks)
def test_a_kernel_is_a_distribution(width: float, second_width: float, angle: float, size: int, peak: Any) -> None:
    weights = kernel(width, second_width, angle, size, peak)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    assert weights.max() == weights[peak_index(size, peak), peak_index(size, peak)]


@given(widths, widths, angles, sizes)
def test_a_quarter_turn_exchanges_the_widths_and_a_half_turn_nothing(w: float, w2: float, angle: float, size: int) -> None:
    torch.testing.assert_close(kernel(w, w2, angle + math.pi / 2, size), kernel(w2, w, angle, size), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(kernel(w, w2, angle + math.pi, size), kernel(w, w2, angle, size), rtol=1e-6, atol=1e-9)


@given(widths, angles, sizes, peaks)
def test_equal_widths_give_the_isotropic_kernel_at_any_angle(width: float, angle: float, size: int, peak: Any) -> None:
    expected = isotropic_kernels(torch.tensor([width], dtype=torch.float64), size, peak, torch.float64)[0]
    torch.testing.assert_close(kernel(width, width, angle, size, peak), expected, rtol=1e-6, atol=1e-9)


@given(sizes, peaks)
def test_a_kernel_of_width_0_is_a_delta(size: int, peak: Any) -> None:
    expected = torch.zeros(size, size, dtype=torch.float64)
    expected[peak_index(size, peak), peak_index(size, peak)] = 1
    assert torch.equal(kernel(0, 0, 0, size, peak), expected)


@given(st.floats(0, 3), st.integers(1, 15), st.floats(0, 14))
def test_a_kernel_with_its_mean_between_pixels_still_sums_to_1(width: float, size: int, mean: float) -> None:
    covariance = torch.eye(2, dtype=torch.float64)[None] * max(width, 1e-2) ** 2
    assert gaussian_kernels(covariance, size, mean)[0].sum() == pytest.approx(1, abs=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["symmetric", "clamped"]), st.booleans())
def test_resizing_weights_sum_to_1_and_read_inside_the_image(length: int, out: int, border: Any, antialias: bool) -> None:
    indices, weights = cubic_taps(length, out, out / length, border, antialias)
    assert indices.min() >= 0
    assert indices.max() < length
    torch.testing.assert_close(weights.sum(1), torch.ones(out, dtype=torch.float64))


@pytest.mark.parametrize("backend", ["matlab", "clamped", "dasr", "torch", "opencv", "pillow", "pillow_truncated", "direct"])
def test_a_constant_image_stays_constant_under_every_back_end(backend: Any) -> None:
    level = 102 / 255
    shrunk = resize(torch.full((1, 2, 24, 36), level), (6, 9), backend)
    torch.testing.assert_close(shrunk, torch.full((1, 2, 6, 9), level), rtol=0, atol=ROUNDING)


@given(seeds, st.integers(2, 30), st.integers(2, 30), st.integers(1, 30), st.integers(1, 30))
def test_cubic_resizing_commutes_with_flips_and_the_transpose(seed: int, H: int, W: int, h: int, w: int) -> None:
    image = uniform(seed, 2, H, W)
    for border in ("symmetric", "clamped"):
        expected = resize_cubic(image, (h, w), border)
        torch.testing.assert_close(resize_cubic(image.flip(-1), (h, w), border).flip(-1), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(resize_cubic(image.mT, (w, h), border).mT, expected, rtol=0, atol=1e-5)


@given(seeds, st.integers(1, 80), st.integers(1, 80))
def test_resizing_to_the_same_size_changes_nothing(seed: int, H: int, W: int) -> None:
    image = uniform(seed, 1, 1, H, W)
    for backend in ("matlab", "clamped", "dasr", "direct"):
        torch.testing.assert_close(resize(image, (H, W), backend), image, rtol=0, atol=ROUNDING)


@given(st.sampled_from([2, 3, 4, 5, 6, 8, 9]), st.integers(2, 6))
def test_the_border_modes_agree_in_the_interior(scale: int, cells: int) -> None:
    image = uniform(scale, 1, 1, (cells + 8) * scale, 8 * scale)
    size = (cells + 8, 8)
    matlab, clamped, dasr = (resize(image, size, backend) for backend in ("matlab", "clamped", "dasr"))
    torch.testing.assert_close(matlab[..., 2:-2, 2:-2], clamped[..., 2:-2, 2:-2], rtol=0, atol=ROUNDING)
    torch.testing.assert_close(clamped, dasr, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("scale", [7.0, 1.6])
def test_dropping_taps_as_published_is_wrong_by_about_a_hundredth_at_7_and_1_6(scale: float) -> None:
    out = 20
    image = uniform(0, 1, 1, int(out * scale), int(out * scale))
    difference = (resize(image, (out, out), "dasr") - resize(image, (out, out), "clamped")).abs().max()
    assert 0.003 < difference < 0.03


@given(seeds, st.integers(1, 13), st.integers(1, 9))
def test_blur_keeps_constants_and_its_kernel_order(seed: int, bands: int, size: int) -> None:
    kernels = uniform(seed, 2, size, size) + 0.1
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    constant = torch.full((2, bands, 9, 11), 0.7)
    torch.testing.assert_close(blur(constant, kernels), constant, rtol=0, atol=ROUNDING)
    # An impulse shows the kernel turned by 180 degrees: correlation, not convolution.
    impulse = torch.zeros(2, 1, 19, 19)
    impulse[:, :, 9, 9] = 1
    before, after = size // 2, (size - 1) // 2
    response = blur(impulse, kernels)[:, 0, 9 - after : 9 + before + 1, 9 - after : 9 + before + 1]
    torch.testing.assert_close(response.flip(1, 2), kernels, rtol=0, atol=ROUNDING)


@given(st.floats(-4, 4))
def test_shifting_a_ramp_shifts_its_values(offset: float) -> None:
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    expected = (torch.arange(12.0) + offset).clamp(0, 11).expand(1, 1, 12, 12)
    torch.testing.assert_close(shift_pixels(ramp, offset), expected, rtol=0, atol=1e-5)


@st.composite
def configs(draw: Any) -> GaussianDegradationConfig:
    return GaussianDegradationConfig(
        kernel=draw(st.sampled_from(["none", "isotropic", "anisotropic"])),
        kernel_size=draw(st.integers(1, 11)),
        width=draw(st.sampled_from([0.0, 1.3, (0.2, 4.0)])),
        second_width=draw(st.sampled_from([0.4, (0.2, 4.0)])),
        disturbance=draw(st.sampled_from([0.0, 0.25])),
        order=draw(st.sampled_from(["blur_first", "resize_first"])),
        resize=draw(st.sampled_from(["matlab", "clamped", "torch", "direct"])),
        noise=draw(st.sampled_from([0.0, 15.0, (0.0, 25.0)])),
        clamp=draw(st.sampled_from(["always", "with_noise", "never"])),
        rounding=False,
    )


@given(configs(), seeds, st.integers(1, 13))
def test_a_batch_equals_its_images_one_by_one(settings: GaussianDegradationConfig, seed: int, bands: int) -> None:
    degradation = settings.build()
    hr = uniform(seed, 3, bands, 24, 32)
    decisions = [degradation.draw(keyed_generator(seed, i), (bands, 24, 32), (12, 16))[0] for i in range(3)]
    together = degradation.apply(hr, decisions)
    for index in range(3):
        alone = degradation.apply(hr[index : index + 1], decisions[index : index + 1])
        torch.testing.assert_close(alone.lr[0], together.lr[index], rtol=0, atol=1e-5)


@given(configs(), seeds, st.integers(1, 13))
def test_bands_are_treated_alike(settings: GaussianDegradationConfig, seed: int, bands: int) -> None:
    degradation = settings.build()
    order = torch.randperm(bands, generator=keyed_generator(seed))
    hr = uniform(seed, 1, bands, 24, 32)
    decisions = degradation.draw(keyed_generator(seed), (bands, 24, 32), (12, 16))
    clean = degradation.apply(hr, decisions).lr_clean
    permuted = degradation.apply(hr[:, order], decisions).lr_clean
    assert clean is not None
    assert permuted is not None
    torch.testing.assert_close(permuted, clean[:, order], rtol=0, atol=1e-5)


@given(configs(), seeds)
def test_views_share_the_scene_and_differ_in_their_noise(settings: GaussianDegradationConfig, seed: int) -> None:
    first, second = settings.build().draw(keyed_generator(seed), (2, 24, 32), (12, 16), views=2)
    assert first.parameters == second.parameters
    assert first.disturbance_field is second.disturbance_field
    if first.noise_field is None or second.noise_field is None:
        assert first.parameters.noise == 0
    else:
        assert not torch.equal(first.noise_field, second.noise_field)


@given(configs(), seeds)
def test_the_clean_lr_is_linear_in_the_hr_and_its_gradient_is_the_adjoint(settings: GaussianDegradationConfig, seed: int) -> None:
    degradation = settings.build()
    decisions = degradation.draw(keyed_generator(seed), (1, 24, 32), (12, 16))
    hr = uniform(seed, 1, 1, 24, 32).double().requires_grad_()
    other, probe = uniform(seed + 1, 1, 1, 24, 32).double(), uniform(seed + 2, 1, 1, 12, 16).double()
    clean = degradation.apply(hr, decisions).lr_clean
    assert clean is not None
    (adjoint,) = torch.autograd.grad((clean * probe).sum(), hr)
    of_other = degradation.apply(other, decisions).lr_clean
    assert of_other is not None
    assert (of_other * probe).sum().item() == pytest.approx((other * adjoint).sum().item(), rel=1e-9)


@given(seeds, st.booleans(), st.booleans(), st.booleans())
def test_augmentation_is_undone_by_its_inverse(seed: int, horizontal: bool, vertical: bool, transpose: bool) -> None:
    image = uniform(seed, 3, 4, 6)
    turned = augment(image, horizontal, vertical, transpose)
    back = augment(turned.mT if transpose else turned, horizontal, vertical, False)
    assert torch.equal(back, image)


@given(seeds)
def test_rounding_is_idempotent_and_keeps_8_bit_images(seed: int) -> None:
    grey = torch.randint(0, 256, (4, 5), generator=keyed_generator(seed), dtype=torch.uint8)
    assert torch.equal(to_uint8(grey / 255), grey)
    assert torch.equal(to_uint8(round_to_grey_levels(grey / 255)), grey)
    overshoot = torch.tensor([-0.1, 1.1])
    assert torch.equal(to_uint8(overshoot), torch.tensor([0, 255], dtype=torch.uint8))
    assert (round_to_grey_levels(overshoot) - overshoot).abs().max() < 0.5 / 255


@given(seeds)
def test_the_signed_range_is_undone_by_the_unit_range(seed: int) -> None:
    image = uniform(seed, 5)
    torch.testing.assert_close(to_unit_range(to_signed_range(image)), image, rtol=0, atol=ROUNDING)


@given(seeds, st.integers(1, 24), st.sampled_from(["isotropic", "anisotropic"]), st.sampled_from(["reflect", "circular"]))
def test_the_back_ends_of_blur_agree_and_images_do_not_depend_on_their_batch(seed: int, size: int, family: str, border: Any) -> None:
    """Separable kernels, small ones, strips and Fourier transforms: by width and size a kernel takes another way."""
    random = uniform(seed, 3, 3).double() * 5
    second = random[0] if family == "isotropic" else random[1]
    kernels = anisotropic_kernels(random[0], second, random[2], size)
    images = uniform(seed + 1, 3, 2, 30, 26)
    fast = blur(images, kernels, border, "auto")
    assert (fast - blur(images, kernels, border, "torch")).abs().max() < ROUNDING
    assert torch.equal(blur(images[1:2], kernels[1:2], border, "auto"), fast[1:2])


def test_auto_blurs_by_torch_where_a_gradient_is_needed() -> None:
    images, kernels = uniform(0, 1, 1, 30, 30).requires_grad_(), anisotropic_kernels(*uniform(1, 3, 1).double(), 21)
    blur(images, kernels, backend="auto").sum().backward()
    assert images.grad is not None
    with pytest.raises(UserError, match="backend=torch"):
        blur(images, kernels, backend="opencv")
