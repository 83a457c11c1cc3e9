"""Several LR images of one place: how they are made, carried through a batch, and fused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rsdiff.data.modality import Modality
from rsdiff.data.sample import Batch, Sample, SampleMeta, collate
from rsdiff.degradations.base import degrade
from rsdiff.degradations.looks import LooksConfig, shifted
from rsdiff.diffusion.bases import EnlargedConfig
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.highresnet import HighResNet, HighResNetConfig
from tests.conftest import Command
from tests.method_losses import losses_of
from tests.runs.test_network_choice import BRIEF

NO_NOISE = ReplayNoise([])
STRIPES = torch.stack([torch.sin(torch.arange(16) * (0.1 + 0.02 * k) + k)[None, :].expand(16, 16) for k in range(24)])[:, None] / 2 + 0.5


def batch_of(options: LooksConfig, hr: Tensor = STRIPES, seed: int = 0) -> Batch:
    generator, degradation = torch.Generator().manual_seed(seed), options.build()
    shape = (hr.shape[1], hr.shape[2], hr.shape[3])
    samples = [
        Sample(SampleMeta(str(i)), hr=image, lr_size=(8, 8), decisions=degradation.draw(generator, shape, (8, 8)))
        for i, image in enumerate(hr)
    ]
    return degrade(collate(samples), degradation)


def tiny(base: bool = True) -> HighResNet:
    torch.manual_seed(0)
    options = HighResNetConfig(width=12, blocks=1)
    return (replace(options, base=EnlargedConfig()) if base else options).build(Problem(2, 1, 1))


def test_a_shift_moves_the_ground_and_a_whole_one_moves_pixels() -> None:
    image = torch.rand(1, 2, 6, 7, dtype=torch.float64)
    moved = shifted(image, torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    torch.testing.assert_close(moved[..., 1:, :-2], image[..., :-1, 2:])


def test_looks_are_a_modality_of_the_batch_with_a_validity_of_their_own() -> None:
    batch = batch_of(LooksConfig(count=4, clouded=1.0))
    looks = batch.modality("looks")
    assert looks.values.shape == (24, 4, 1, 8, 8)
    assert looks.valid is not None
    assert looks.valid.shape == looks.values.shape
    assert torch.equal(looks.values[:, 0], batch.need("lr"))
    assert float(looks.valid[:, 1:].mean()) == pytest.approx(0.75)
    assert bool(looks.valid[:, 0].all())
    with pytest.raises(ValueError, match="'pan', which neither the data set nor the degradation gives"):
        batch.modality("pan")


def test_a_modality_that_the_data_bring_is_stacked_and_moved_without_being_named() -> None:
    samples = [
        Sample(SampleMeta(str(i)), hr=torch.rand(1, 4, 4), lr_size=(2, 2), modalities={"pan": Modality(torch.rand(1, 8, 8))})
        for i in range(2)
    ]
    batch = collate(samples).to("meta")
    assert batch.modality("pan").values.shape == (2, 1, 8, 8)
    assert batch.modality("pan").values.is_meta
    with pytest.raises(ValueError, match="have pan and others have not"):
        collate([samples[0], replace(samples[1], modalities={})])


@pytest.mark.parametrize("count", [1, 3, 8])
def test_any_number_of_images_is_fused_and_what_is_missing_counts_nothing(count: int) -> None:
    method, batch = tiny(base=False).eval(), batch_of(LooksConfig(count=count, clouded=1.0))
    restored = method.restore(batch, SamplerConfig(), NO_NOISE)
    assert restored.shape == (24, 1, 16, 16)
    looks = batch.modality("looks")
    if looks.valid is not None:
        noise = torch.where(looks.valid > 0.5, looks.values, torch.rand_like(looks.values))
        batch.modalities = {"looks": replace(looks, values=noise)}
        torch.testing.assert_close(method.restore(batch, SamplerConfig(), NO_NOISE), restored)


def test_more_images_of_a_place_tell_more_of_it() -> None:
    errors = {}
    for count in (1, 6):
        method, options = tiny().train(), LooksConfig(count=count, noise=0.15, light=0.0, shift=0.0)
        optimiser = torch.optim.Adam(method.parameters(), lr=4e-3)
        for step in range(80):
            optimiser.zero_grad()
            losses_of(method, batch_of(options, seed=step % 20), NO_NOISE).total.backward()
            optimiser.step()
        test = batch_of(options, seed=99)
        errors[count] = float((method.eval().restore(test, SamplerConfig(), NO_NOISE) - test.need("hr")).square().mean())
    assert errors[6] < 0.6 * errors[1]


def waves(count: int, seed: int) -> tuple[Tensor, float]:
    """Return fine and coarse waves (B, 1, 16, 16) that look alike at half the size, and the least error of a guess from one LR image.

    A fine one, of 0.5 - f cycles per pixel, is a coarse one of f cycles once neighbours are averaged; it is drawn as much stronger as
    averaging weakens it. Half of the energy of the two is then lost on whoever sees one LR image, or the mean of several.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(4, count, 1, 1, 1, generator=generator)
    coarse, is_fine, phase = 0.12 + 0.02 * drawn[0], drawn[1] < 0.5, 2 * torch.pi * drawn[2]
    strength = 0.05 + 0.1 * drawn[3]
    powers = [(strength / torch.cos(torch.pi * f)).square() / 2 for f in (coarse, 0.5 - coarse)]
    frequency = torch.where(is_fine, 0.5 - coarse, coarse)
    wave = torch.sin(2 * torch.pi * frequency * torch.arange(16) + phase) * strength / torch.cos(torch.pi * frequency)
    return (0.5 + wave).expand(count, 1, 16, 16).contiguous(), float(torch.stack(powers).mean() / 2)


@pytest.mark.slow
def test_shifted_images_tell_what_one_of_them_and_their_mean_cannot() -> None:
    errors = {}
    for shift in (0.5, 0.0):
        method, options = tiny().train(), LooksConfig(count=4, noise=0.0, light=0.0, shift=shift)
        optimiser = torch.optim.Adam(method.parameters(), lr=6e-3)
        for step in range(200):
            optimiser.zero_grad()
            losses_of(method, batch_of(options, waves(24, step)[0], seed=step), NO_NOISE).total.backward()
            optimiser.step()
        hr, least = waves(200, 10**6)
        test = batch_of(options, hr, seed=10**6)
        errors[shift] = float((method.eval().restore(test, SamplerConfig(), NO_NOISE) - test.need("hr")).square().mean()) / least
    assert errors[0.5] < 0.4
    assert errors[0.0] > 0.9


def test_a_run_fuses_what_the_degradation_makes_and_without_it_says_what_to_choose(run_command: Command, tmp_path: Path) -> None:
    small = ["model.width=8", "model.base=enlarged", *BRIEF, "scale=2", f"outputs={tmp_path}"]
    ended = run_command("model=highresnet_tiny", "degradation.count=3", "degradation.clouded=0.5", *small)
    assert ended.code == 0, ended.err
    refused = run_command("model=highresnet_tiny", "degradation=bicubic", *small)
    assert "model=highresnet_tiny needs looks" in refused.err
    assert "choose degradation=looks" in refused.err
