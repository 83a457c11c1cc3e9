"""Kernels in the Fourier domain obey what they mean in space."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rsdiff.degradations.blur import blur
from rsdiff.degradations.kernels import isotropic_kernels
from rsdiff.degradations.transfer import apply_transfer, kernel_of, least_squares_inverse, transfer_function
from rsdiff.losses.kernel_target import lr_kernel
from rsdiff.networks.dcls import collapse_filters
from rsdiff.networks.degradation_aware import nt_xent
from rsdiff.networks.layers import filter_each, shuffle_upscale


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@settings(max_examples=15, deadline=None)
@given(taps=st.sampled_from([1, 3, 5]), height=st.integers(5, 9), width=st.integers(5, 9))
def test_a_transfer_function_convolves_periodic_images(taps: int, height: int, width: int) -> None:
    image, kernel = noise(2, 3, height, width), noise(2, taps, taps)
    # `blur` correlates: convolution is correlation with the kernel turned around.
    expected = blur(image, kernel.flip(-2, -1), "circular")
    transfer = transfer_function(kernel, (height, width))
    torch.testing.assert_close(apply_transfer(image, transfer[:, None]), expected)
    torch.testing.assert_close(kernel_of(transfer, (height, width), taps), kernel)


def test_without_a_smoother_the_inverse_undoes_the_blur() -> None:
    image, kernel = noise(1, 12, 10), isotropic_kernels(torch.tensor([0.5]), 5, dtype=torch.float64)
    blurred = transfer_function(kernel, (12, 10))
    inverse = least_squares_inverse(blurred, torch.zeros_like(blurred))
    torch.testing.assert_close(apply_transfer(apply_transfer(image, blurred), inverse), image)


def test_a_kernel_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="use larger images"):
        transfer_function(torch.ones(1, 7, 7), (6, 9))


def test_the_kernel_between_an_image_and_its_blur_is_found() -> None:
    sharp = noise(1, 3, 24, 24)
    kernel = isotropic_kernels(torch.tensor([0.8], dtype=torch.float64), 11, dtype=torch.float64)
    found = lr_kernel(apply_transfer(sharp, transfer_function(kernel, (24, 24))[:, None]), sharp, 11)
    # Weights below a threshold are dropped and the rest is rescaled: compare where the kernel lies, and how wide it is.
    assert int(found.argmax()) == int(kernel.argmax()) == 60
    assert float((found - kernel).abs().max()) < 0.01


def test_a_chain_of_filters_is_the_filter_it_collapses_to() -> None:
    filters = [noise(1, 4, 1, 3, 3), noise(1, 4, 4, 3, 3), noise(1, 1, 4, 1, 1)]
    image = noise(1, 1, 12, 12)
    chained = image
    for layer in filters:
        chained = torch.nn.functional.conv2d(chained, layer[0])
    collapsed = collapse_filters(filters)
    assert collapsed.shape == (1, 1, 5, 5)
    torch.testing.assert_close(torch.nn.functional.conv2d(image, collapsed), chained)


def test_every_channel_of_every_image_meets_its_own_kernel() -> None:
    x, kernels = noise(2, 3, 6, 7), noise(2, 3, 3, 3)
    one = torch.nn.functional.conv2d(x[1:, 2:], kernels[1:, 2:], padding=1)
    torch.testing.assert_close(filter_each(x, kernels)[1:, 2:], one)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
def test_pixels_are_shuffled_to_the_scale(scale: int) -> None:
    assert shuffle_upscale(4, 2, scale)(torch.zeros(1, 4, 3, 5)).shape == (1, 2, 3 * scale, 5 * scale)


def test_nt_xent_rewards_partners_that_agree_and_does_not_tell_views_apart() -> None:
    first, second = noise(4, 8), noise(4, 8).flip(1)
    assert nt_xent(first, first, 0.1) < nt_xent(first, second, 0.1)
    torch.testing.assert_close(nt_xent(first, second, 0.1), nt_xent(second, first, 0.1))
    torch.testing.assert_close(nt_xent(first, second, 0.1), nt_xent(3 * first, second, 0.1))
