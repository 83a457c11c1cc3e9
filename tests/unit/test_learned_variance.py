"""Learned variances: limits of the range, the bound of a perfect prediction, probabilities of grey levels, respacing."""

import itertools
import math

import pytest
import torch

from rsdiff.diffusion.learned_variance import LearnedVarianceDenoiser, ReverseSteps, eight_bit_log_likelihood, variational_bound
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import ScheduleConfig, respaced

SCHEDULE = ScheduleConfig(name="linear", steps=100, start=1e-3, end=0.1).build()


@pytest.mark.parametrize(("channel", "variance"), [(-1.0, "posterior"), (1.0, "beta")])
def test_the_ends_of_the_range_are_ddpm_s_two_variances(channel: float, variance):
    def network(x, time):
        return torch.cat([0.3 * x, torch.full_like(x, channel)], dim=1)

    denoiser = LearnedVarianceDenoiser(network, SCHEDULE, time="index", dtype=torch.float64)
    images = [
        sample(config, denoiser, (2, 1, 4, 4), SeededNoise([(0,), (1,)]), device="cpu")
        for config in (SamplerConfig(solver="native", steps=7), SamplerConfig(solver="ddpm", variance=variance, steps=7))
    ]
    torch.testing.assert_close(*images)


def test_a_perfect_prediction_has_no_divergence_and_every_other_has():
    steps = ReverseSteps.of_schedule(SCHEDULE).at(torch.tensor([5, 60]))
    clean, state = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    never = torch.zeros(2, dtype=torch.bool)
    lowest = torch.full_like(clean, -1.0)
    torch.testing.assert_close(variational_bound(clean, state, steps, clean, lowest, never), torch.zeros_like(clean), atol=1e-6, rtol=0)
    assert bool((variational_bound(clean, state, steps, clean + 0.1, lowest, never) > 0).all())
    assert bool((variational_bound(clean, state, steps, clean, lowest + 0.5, never) > 0).all())


def test_probabilities_of_all_grey_levels_add_up_to_one():
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, deviation in ((0.1, 0.3), (-0.95, 0.1), (1.2, 0.5)):
        log_probability = eight_bit_log_likelihood(levels, torch.tensor(mean), torch.tensor(math.log(deviation)))
        assert float(log_probability.exp().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("length", "count"), [(1000, 500), (1000, 4), (10, 10), (10, 1), (1, 1), (7, 2)])
def test_respacing_keeps_the_first_and_the_last_level_and_is_even(length: int, count: int):
    kept = respaced(length, count)
    assert len(kept) == count == len(set(kept))
    assert kept[0] == 0
    assert count == 1 or kept[-1] == length - 1
    gaps = {after - before for before, after in itertools.pairwise(kept)}
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_more_levels_than_there_are_cannot_be_kept():
    with pytest.raises(ValueError, match="choose 1 to 10"):
        respaced(10, 11)
