"""EDM and Ref-Diff on what the target adds to a base."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsdiff.data.enlarging import enlarge
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.augmentation import AugmentationConfig
from rsdiff.diffusion.bases import EnlargedConfig
from rsdiff.diffusion.edm import EdmLevels
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.regression_base import RegressionConfig
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.edm_sr import EdmSrConfig
from rsdiff.methods.refdiff import RefDiffConfig
from rsdiff.networks.refdiff_unet import RefDiffUNetConfig
from rsdiff.networks.song_unet import SongUNetConfig

SONG = SongUNetConfig(model_channels=16, channel_mult=(1,), num_blocks=1, attention_levels=())
SIGMA_DATA = 0.16


def test_a_network_that_knows_nothing_gives_the_enlarged_lr_and_texture_of_the_stated_deviation() -> None:
    method = EdmSrConfig(song=SONG, base=EnlargedConfig(), levels=EdmLevels(sigma_data=SIGMA_DATA)).build(Problem(4, 3, 3)).eval()
    for parameter in method.network.parameters():
        torch.nn.init.zeros_(parameter)
    lr = 0.3 + 0.4 * torch.rand(2, 3, 9, 10, generator=torch.Generator().manual_seed(0))
    batch = Batch([SampleMeta(str(index), index) for index in range(2)], (36, 40), (9, 10), lr=lr)
    sampler = SamplerConfig(solver="heun", steps=18, grid="edm", sigma_min=0.002, sigma_max=8.0, start="edm")
    made = method.restore(batch, sampler, SeededNoise([(0, "restore", index) for index in range(2)]))
    added = 2 * (made - enlarge(lr, (36, 40)))
    assert float(added.mean()) == pytest.approx(0, abs=0.01)
    assert float(added.std()) == pytest.approx(SIGMA_DATA, rel=0.05)


def test_what_the_hr_adds_to_a_base_reaches_twice_as_far_as_images() -> None:
    lr = torch.zeros(1, 3, 8, 8)
    ranges = [EdmSrConfig(song=SONG, **base).build(Problem(4, 3, 3)).denoiser(lr).data_range for base in ({}, {"base": EnlargedConfig()})]  # type: ignore[arg-type]
    assert ranges == [(-1.0, 1.0), (-2.0, 2.0)]


def test_a_base_beside_augmentation_is_refused() -> None:
    config = EdmSrConfig(song=SONG, base=EnlargedConfig(), augmentation=AugmentationConfig(probability=0.12))
    assert "model.base=none" in str(config.refuse(Problem(4, 3, 3)))


@pytest.mark.parametrize(
    "config",
    [
        EdmSrConfig(song=SONG, base=RegressionConfig(ridge=1e-9)),
        RefDiffConfig(network=RefDiffUNetConfig(trunk=replace(SONG, num_blocks=1), modulation_width=4), base=RegressionConfig(ridge=1e-9)),
    ],
    ids=["edm_sr", "refdiff"],
)
def test_a_base_that_learns_is_shown_the_training_batches_and_no_others(config: MethodConfig) -> None:
    method = config.build(Problem(1, 4, 2)).train()
    lr = torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    hr = torch.cat([0.5 * lr, 0.2 + 0.3 * lr.flip(1)], dim=1)  # what a regression per pixel finds exactly
    metas = [SampleMeta(str(index), index) for index in range(2)]
    batch = Batch(metas, (16, 16), (16, 16), hr=hr, lr=lr, ref=hr, change_mask=torch.zeros(2, 1, 16, 16))
    stage = method.stages()[-1]

    def distance() -> float:
        return float((method.base(2 * lr - 1, (16, 16)) - (2 * hr - 1)).abs().max())

    for step, trains in enumerate((False, True)):
        method.train(trains)
        method.losses(batch, stage, SeededNoise([(step, "train", index) for index in range(2)], shared=(step,)))
        if trains:
            method.after_step(stage, step)
        assert (distance() < 1e-3) == trains
