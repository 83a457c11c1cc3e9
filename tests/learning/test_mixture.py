"""Two textures that the LR tells apart only in part: samples choose between them as often as the posterior does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from rsdiff.diffusion.noise import SeededNoise
from rsdiff.methods.base import Problem
from tests.learning.cases import CASES, build, published_sampler, with_reference
from tests.learning.mixture import MixtureWorld
from tests.learning.world import GaussianWorld

COUNT = 256
TOLERANCE = 0.11  # three standard errors of a share of 128 textures that are chosen with probability 1/4


@cache
def mixture() -> MixtureWorld:
    return MixtureWorld()


def shares(name: str, known: GaussianWorld) -> tuple[Tensor, Tensor]:
    """Return (how often samples are smooth, how often they should be) of the textures whose LR speaks against it, and for it.

    known  the world whose best answer stands in the place of the network
    """
    case = CASES[name]
    method = build(case.model, case.sizes, Problem(known.scale, 1, 1))
    case.install(method, known)
    batch = mixture().batch(COUNT, seed=1)
    noise = SeededNoise([(1, "restore", index) for index in range(COUNT)])
    with torch.no_grad():
        made = method.eval().restore(replace(with_reference(batch, mixture()), hr=None), published_sampler(case.sampler), noise)
    chance = mixture().posterior(batch.need("lr")).chances[:, 1]
    smooth = mixture().textures_of(made.double().flatten(1)).double()
    groups = (chance < 0.5, chance >= 0.5)
    return torch.stack([smooth[group].mean() for group in groups]), torch.stack([chance[group].mean() for group in groups])


def test_the_lr_tells_the_textures_apart_in_part_and_the_target_does() -> None:
    batch = mixture().batch(COUNT, seed=1)
    which = torch.arange(COUNT) % 2
    assert bool((mixture().textures_of(batch.need("hr").double().flatten(1)) == which).all())
    chance = mixture().posterior(batch.need("lr")).chances[torch.arange(COUNT), which]
    assert 0.6 < float(chance.mean()) < 0.8


@pytest.mark.parametrize("name", ["edm", "diffbsr_srdiff"])
def test_samples_choose_between_textures_as_the_posterior_does(name: str) -> None:
    found, wanted = shares(name, mixture())
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def test_the_best_linear_answer_does_not() -> None:
    linear = GaussianWorld(mixture().side)
    linear.covariance = torch.stack([part.covariance for part in mixture().parts]).mean(0)
    found, wanted = shares("edm", linear)
    assert float((found - wanted).abs().max()) > 2 * TOLERANCE
