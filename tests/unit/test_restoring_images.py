"""Restoring test images: together as alone, in mixed precision as in float32, turned with everything they have."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.data.modality import Modality
from rsdiff.data.precision import Precision, mixed
from rsdiff.data.sample import Batch, Sample, SampleMeta
from rsdiff.data.views import TestSamples
from rsdiff.degradations.blur import blur, blur_mirrored
from rsdiff.degradations.interpolation import interpolate
from rsdiff.degradations.resizing import resize
from rsdiff.degradations.test_sets import draw_of
from rsdiff.diffusion.augmentation import AugmentationConfig, draw_augmentation
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import Execution, combined, pad_to_multiple, restore_images, restore_seeded
from rsdiff.losses.images import ssim_loss
from rsdiff.methods.base import Method, Problem
from rsdiff.methods.bicubic import BicubicMethodConfig
from rsdiff.training.built import build_method
from tests.goldens.relay_diffusion import patch_dct
from tests.runs.pairs import MODELS, SIDES, data_kinds, degradation_for, pairs, sampler_of, trained

PRECISIONS: tuple[Precision, ...] = ("no", "bf16")
CHEAP = ("sr3_quick", "ldcsr_quick", "liif_tiny", "highresnet_tiny")
IMAGES = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
KERNELS = torch.full((1, 5, 5), 1 / 25)
EXACT: dict[str, Callable[[], Tensor]] = {
    "resize": lambda: resize(IMAGES, (96, 96), "matlab"),
    "interpolate": lambda: interpolate(IMAGES, (12, 12), "bicubic", "opencv_matrix"),
    "blur": lambda: blur(IMAGES, KERNELS),
    "blur_mirrored": lambda: blur_mirrored(IMAGES, KERNELS),
    "patch_dct": lambda: patch_dct(IMAGES, 8),
    "ssim_loss": lambda: ssim_loss(IMAGES, IMAGES.flip(3), None),
    "augmentation": lambda: draw_augmentation(
        AugmentationConfig(probability=1.0, rotation=1.0, scale=1.0, hue=1.0, contrast=1.0), SeededNoise([(0,)]), 1, (24, 24)
    ).apply(IMAGES),
}


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_large_images_are_restored_in_tiles_that_do_not_show(scale: float) -> None:
    method = build_method(BicubicMethodConfig(), Problem(scale, 3, 3), 0).eval()
    seen: list[tuple[int, int]] = []
    whole_restore = method.restore

    def restore(batch: Batch, *others: Any) -> Tensor:
        seen.append(batch.lr_size)
        return whole_restore(batch, *others)

    method.restore = restore  # type: ignore[method-assign]
    lr = blur(torch.rand(2, 3, 75, 94, generator=torch.Generator().manual_seed(1)), torch.full((2, 5, 5), 1 / 25))
    size = (int(75 * scale), int(94 * scale))
    batch = Batch([SampleMeta("a"), SampleMeta("b")], size, (75, 94), lr=lr)
    whole = restore_seeded(method, batch, SamplerConfig(), 0)
    tiled = restore_seeded(method, batch, SamplerConfig(), 0, tile=40)
    assert max(max(side) for side in seen[1:]) <= 40
    assert len(seen) == 1 + 2 * 12
    beside = int(4 * scale)  # beyond the image tiles see its mirror image, as those of scenes do
    assert float((tiled - whole).abs()[..., :-beside, :-beside].max()) < 2e-3  # a tile's own border, where its weight is small
    assert torch.equal(restore_seeded(method, batch, SamplerConfig(), 0, tile=94), whole)
    with pytest.raises(ValueError, match=r"task.tile cuts LR images alone and these come with ref; leave task.tile out"):
        restore_seeded(method, replace(batch, ref=whole), SamplerConfig(), 0, tile=40)


@pytest.mark.parametrize("name", EXACT)
def test_what_is_no_network_is_exact_in_mixed_precision(name: str) -> None:
    with mixed("bf16", torch.device("cpu")):
        made = EXACT[name]()
    assert made.dtype == torch.float32
    assert torch.equal(made, EXACT[name]())


def ready(model: str) -> tuple[Method, TestSamples, object]:
    """Return a small model, two images of one size with their degradation."""
    pair = next(pair for pair in pairs([model]) if not degradation_for(pair.degradation, data_kinds()[pair.data]).in_workers)
    side = SIDES[-1]
    data = data_kinds(side)[pair.data]
    built = degradation_for(pair.degradation, data).build()
    source = data.build("train", pair.scale)
    samples = TestSamples(source, pair.scale, 0, draw_of(built, source), size_rule=data.size_rule)
    method = deepcopy(trained(pair, side))
    method.eval()
    return method, samples, built


@pytest.mark.parametrize("model", [name if name in CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in MODELS])
def test_images_restored_together_are_those_restored_alone(model: str) -> None:
    method, samples, built = ready(model)
    sampler, device = sampler_of(model), torch.device("cpu")
    if sampler.start.startswith("image"):
        sampler = replace(sampler, start="edm")
    given: list[Sample] = [samples[0], samples[1]]
    alone = [found.image for found in restore_images(method, given, built, sampler, 0, device)]  # type: ignore[arg-type]
    (together,) = restore_images(method, given, built, sampler, 0, device, batch_size=2)  # type: ignore[arg-type]
    torch.testing.assert_close(together.image, torch.cat(alone), rtol=0, atol=2e-4)


def test_mixed_precision_is_that_of_the_network_alone() -> None:
    method, samples, built = ready("sr3_quick")
    sampler, device = sampler_of("sr3_quick"), torch.device("cpu")
    found = {}
    for precision in PRECISIONS:
        (restored,) = restore_images(method, [samples[0]], built, sampler, 0, device, execution=Execution(precision))  # type: ignore[arg-type]
        found[precision] = restored.image
    assert found["bf16"].dtype == torch.float32
    difference = float((found["bf16"] - found["no"]).abs().mean())
    assert 0 < difference < 0.01


def test_other_modalities_are_extended_and_turned_with_the_image() -> None:
    looks = torch.rand(1, 4, 2, 5, 7)
    batch = Batch([SampleMeta("place")], (10, 14), (5, 7), lr=looks[:, 0], modalities={"looks": Modality(looks, torch.ones_like(looks))})
    padded = pad_to_multiple(batch, 4).modality("looks")
    assert padded.values.shape == (1, 4, 2, 8, 8)
    assert padded.valid is not None
    assert padded.valid.shape == padded.values.shape

    def mean_of_looks(variant: Batch, number: int) -> Tensor:
        return variant.modality("looks").filled.mean(1)

    torch.testing.assert_close(combined(mean_of_looks, batch, "mean"), looks.mean(1))


def test_missing_pixels_are_filled_before_an_image_is_extended() -> None:
    lr, ref = torch.rand(1, 2, 5, 7), torch.rand(1, 2, 10, 14)
    known = [torch.ones_like(image) for image in (lr, ref)]
    known[0][..., 4, 6] = known[1][..., 9, 13] = 0
    mask = torch.zeros(1, 1, 10, 14)
    names = {"lr": lr, "ref": ref, "change_mask": mask, "lr_valid": known[0], "ref_valid": known[1], "valid": known[1]}
    with_holes = Batch([SampleMeta("place")], (10, 14), (5, 7), **names)  # type: ignore[arg-type]
    padded = pad_to_multiple(with_holes, 4)
    for name, size in (("lr", (8, 8)), ("ref", (16, 16)), ("change_mask", (16, 16))):
        filled, extended = with_holes.need(name), padded.need(name)
        assert extended.shape[-2:] == size
        torch.testing.assert_close(extended[..., : filled.shape[-2], : filled.shape[-1]], filled)
    names["lr"], names["ref"] = torch.where(known[0] > 0, lr, torch.nan), torch.where(known[1] > 0, ref, torch.nan)
    marked = pad_to_multiple(Batch([SampleMeta("place")], (10, 14), (5, 7), **names), 4)  # type: ignore[arg-type]
    assert bool((marked.need("lr") == padded.need("lr")).all())
    assert bool((marked.need("ref") == padded.need("ref")).all())
