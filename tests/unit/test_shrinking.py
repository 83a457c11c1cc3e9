"""Blur and shrink in one step give what they give one after the other, for any size, border, kernel and batch."""

from __future__ import annotations

import pytest
import torch

from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations.blur import blur
from rsdiff.degradations.resizing import ResizeBackend, resize
from rsdiff.degradations.shrinking import blur_and_resize

ROUNDING = 1e-6
"""Of float32 sums of up to 441 values, one after the other: what the slower way is away from the sums themselves (the faster: 2e-7)."""


def images_and_kernels(count: int, bands: int, size: tuple[int, int], taps: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = keyed_generator("shrinking", taps, *size)
    kernels = torch.rand(count, taps, taps, generator=generator)  # without any symmetry
    return torch.rand(count, bands, *size, generator=generator), kernels / kernels.sum((1, 2), keepdim=True)


@pytest.mark.parametrize("how", ["clamped", "matlab", "direct", "dasr", "torch"])
@pytest.mark.parametrize("taps", [1, 6, 11, 21])
@pytest.mark.parametrize("lr", [(11, 12), (31, 40)])
@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_one_step_gives_what_two_give(how: ResizeBackend, taps: int, lr: tuple[int, int], factor: int) -> None:
    images, kernels = images_and_kernels(2, 3, (lr[0] * factor, lr[1] * factor), taps)
    found = blur_and_resize(images, kernels, lr, how, "auto", False)
    assert (found - resize(blur(images, kernels), lr, how)).abs().max() < ROUNDING


@pytest.mark.parametrize("how", ["clamped", "matlab", "direct"])
@pytest.mark.parametrize("taps", [6, 21])
@pytest.mark.parametrize("size", [(48, 64), (37, 50), (600, 520)])
def test_kernels_of_a_column_and_a_row_may_be_taken_apart(how: ResizeBackend, taps: int, size: tuple[int, int]) -> None:
    images, _ = images_and_kernels(3, 2, size, taps)
    generator = keyed_generator("rows", taps)
    down, across = (torch.rand(3, taps, generator=generator) for _ in range(2))
    kernels = (down / down.sum(1, keepdim=True))[:, :, None] * (across / across.sum(1, keepdim=True))[:, None]
    lr = (size[0] // 4, size[1] // 4) if how != "direct" or size[0] % 4 == 0 else size
    found = blur_and_resize(images, kernels, lr, how, "auto", True)
    assert (found - resize(blur(images, kernels), lr, how)).abs().max() < ROUNDING
    alone = blur_and_resize(images[1:2], kernels[1:2], lr, how, "auto", True)
    assert torch.equal(alone[0], found[1])


@pytest.mark.parametrize("size", [(37, 50), (130, 201)])
def test_factors_need_not_be_whole(size: tuple[int, int]) -> None:
    images, kernels = images_and_kernels(2, 1, size, 11)
    lr = (size[0] * 3 // 10, size[1] * 2 // 5)
    assert (
        blur_and_resize(images, kernels, lr, "clamped", "auto", False) - resize(blur(images, kernels), lr, "clamped")
    ).abs().max() < ROUNDING


@pytest.mark.parametrize("how", ["clamped", "direct"])
@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("bands", [1, 3])
def test_an_image_does_not_depend_on_its_batch(how: ResizeBackend, side: int, bands: int) -> None:
    images, kernels = images_and_kernels(9, bands, (side, side), 21)
    together = blur_and_resize(images, kernels, (side // 4, side // 4), how, "auto", False)
    for index in range(len(images)):
        alone = blur_and_resize(images[index, None], kernels[index, None], (side // 4, side // 4), how, "auto", False)
        assert torch.equal(alone[0], together[index])


def test_gradients_and_named_backends_take_two_steps() -> None:
    images, kernels = images_and_kernels(1, 1, (48, 48), 11)
    slow = resize(blur(images, kernels), (12, 12), "clamped")
    assert torch.equal(blur_and_resize(images, kernels, (12, 12), "clamped", "torch", False), slow)
    found = blur_and_resize(images.requires_grad_(), kernels, (12, 12), "clamped", "auto", False)
    assert torch.equal(found, slow)
    assert found.requires_grad
