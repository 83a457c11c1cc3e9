"""Wrappers: a network that predicts perfectly makes a perfect denoiser, and is told the time it was trained with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.diffusion.edm import EdmDenoiser, EdmPreconditioning
from rsdiff.diffusion.guidance import TwoCall, clamp_to_quantile
from rsdiff.diffusion.preconditioning import IddpmPreconditioning, VePreconditioning, VpPreconditioning
from rsdiff.diffusion.schedules import BETAS, DiscreteDenoiser, DiscreteSchedule, Prediction, ScheduleConfig, make_betas, right_output
from rsdiff.diffusion.solvers import Clamped

CLEAN = torch.linspace(-1, 1, 2 * 3 * 4 * 4, dtype=torch.float64).reshape(2, 3, 4, 4)
NOISE = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SCHEDULE = ScheduleConfig(steps=50, start=1e-3, end=0.2).build()
SIGMA = SCHEDULE.sigmas[[3, 40]]
Y = CLEAN + SIGMA.reshape(-1, 1, 1, 1) * NOISE
A = (1 + SIGMA**2).rsqrt().reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [("noise", NOISE), ("clean", CLEAN), ("velocity", A * NOISE - A * SIGMA.reshape(-1, 1, 1, 1) * CLEAN)],
)
def test_a_perfect_prediction_gives_the_clean_image(prediction: Prediction, truth: Tensor) -> None:
    torch.testing.assert_close(right_output(prediction, CLEAN, NOISE, A, A * SIGMA.reshape(-1, 1, 1, 1)), truth)

    def network(x: Tensor, time: Tensor) -> Tensor:
        torch.testing.assert_close(x, A * Y)
        return torch.cat([truth, truth], dim=1)  # further channels, as of learned variances, are cut off

    denoiser = DiscreteDenoiser(network, SCHEDULE, prediction, dtype=torch.float64)
    torch.testing.assert_close(denoiser(Y, SIGMA), CLEAN, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preconditioning", [EdmPreconditioning(), VpPreconditioning(), VePreconditioning(), IddpmPreconditioning()])
def test_preconditioned_networks_see_unit_variance_and_may_be_perfect(preconditioning: Any) -> None:
    sigma = preconditioning.round_sigma(torch.tensor([0.5, 3.0], dtype=torch.float64))
    y = CLEAN + sigma.reshape(-1, 1, 1, 1) * NOISE
    c = preconditioning.coefficients(sigma)

    def network(x: Tensor, time: Tensor) -> Tensor:
        assert time.shape == (2,)
        return (CLEAN - c.skip.reshape(-1, 1, 1, 1) * y) / c.out.reshape(-1, 1, 1, 1)

    denoiser = EdmDenoiser(network, preconditioning, dtype=torch.float64)
    torch.testing.assert_close(denoiser(y, sigma), CLEAN, rtol=1e-6, atol=1e-6)
    if isinstance(preconditioning, EdmPreconditioning):
        torch.testing.assert_close(c.into**2 * (sigma**2 + 0.25), torch.ones_like(sigma))


def test_time_inputs() -> None:
    level = DiscreteDenoiser(lambda x, t: x, SCHEDULE, time="level")
    torch.testing.assert_close(level.time_of(SIGMA), SCHEDULE.alphas_bar[[3, 40]].sqrt().float())
    index = DiscreteDenoiser(lambda x, t: x, SCHEDULE.kept([0, 10, 49]), time="index")
    assert index.time_of(SCHEDULE.sigmas[[0, 12, 49]]).tolist() == [0, 10, 49]
    fraction = DiscreteDenoiser(lambda x, t: x, SCHEDULE, time="fractional_index")
    between = (SCHEDULE.sigmas[7] * SCHEDULE.sigmas[8]).sqrt()
    torch.testing.assert_close(fraction.time_of(torch.stack([*SIGMA, between])), torch.tensor([3.0, 40.0, 7.5]))


def test_rounding_leaves_continuous_levels_and_snaps_discrete_ones() -> None:
    sigma = torch.tensor([1e-9, 0.123, 1e9], dtype=torch.float64)
    level = DiscreteDenoiser(lambda x, t: x, SCHEDULE, time="level").round_sigma(sigma)
    assert level.tolist() == pytest.approx([float(SCHEDULE.sigmas[0]), 0.123, float(SCHEDULE.sigmas[-1])])
    snapped = DiscreteDenoiser(lambda x, t: x, SCHEDULE, time="index").round_sigma(sigma)
    assert set(snapped.tolist()) <= set(SCHEDULE.sigmas.tolist())


def test_the_network_runs_in_its_own_precision() -> None:
    def network(x: Tensor, time: Tensor) -> Tensor:
        assert x.dtype == time.dtype == torch.float32
        return x

    for denoiser in (DiscreteDenoiser(network, SCHEDULE), EdmDenoiser(network, EdmPreconditioning())):
        assert denoiser(Y, SIGMA).dtype == torch.float64
        assert denoiser(Y, SIGMA[0]).shape == Y.shape


def shifted(offset: float) -> DiscreteDenoiser:
    return DiscreteDenoiser(lambda x, t: 0.5 * x + offset, SCHEDULE, "clean", dtype=torch.float64, data_range=(-1.0, 1.0))


def test_hooks_keep_the_levels_of_what_they_wrap() -> None:
    inner = shifted(0.1)
    hooked = Clamped(TwoCall(inner, shifted(0.0), 1.0), -1, 1)
    assert (hooked.sigma_min, hooked.sigma_max, hooked.data_range) == (inner.sigma_min, inner.sigma_max, (-1.0, 1.0))
    assert hooked.table is inner.table
    assert torch.equal(hooked.round_sigma(SIGMA), inner.round_sigma(SIGMA))


def test_clamped_estimates_stay_in_range() -> None:
    assert float(Clamped(shifted(5.0), -1, 1)(Y, SIGMA).max()) <= 1


def test_two_call_guidance_is_linear_in_the_predicted_noise() -> None:
    with_condition, without, weight = shifted(0.2), shifted(0.0), 2.5
    sigma = SIGMA.reshape(-1, 1, 1, 1)
    eps, eps_without = ((Y - d(Y, SIGMA)) / sigma for d in (with_condition, without))
    expected = Y - sigma * ((1 + weight) * eps - weight * eps_without)
    torch.testing.assert_close(TwoCall(with_condition, without, weight)(Y, SIGMA), expected)


def test_quantile_clamp_bounds_each_image_by_its_own_quantile() -> None:
    state = torch.stack([0.1 * NOISE[0], 10 * NOISE[1]])
    bound = torch.quantile(state[1].abs(), 0.9)
    result = clamp_to_quantile(state, 0.9)
    assert torch.equal(result[0], state[0])  # its quantile is below 1
    torch.testing.assert_close(result[1], state[1].clamp(-bound, bound))


@pytest.mark.parametrize("name", [name for name in BETAS if name != "jsd"])
def test_schedules_lose_signal_monotonically(name: Any) -> None:
    schedule = DiscreteSchedule(make_betas(name, 40, 1e-4, 0.02))
    assert bool((schedule.sigmas[1:] > schedule.sigmas[:-1]).all())
    torch.testing.assert_close(schedule.alphas_bar, 1 / (1 + schedule.sigmas**2))


def test_a_respaced_schedule_keeps_the_levels_and_their_indices() -> None:
    kept = SCHEDULE.kept([2, 5, 30]).kept([0, 2])
    torch.testing.assert_close(kept.alphas_bar, SCHEDULE.alphas_bar[[2, 30]])
    assert kept.indices.tolist() == [2, 30]


def test_a_schedule_without_signal_at_its_end_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        DiscreteSchedule(make_betas("jsd", 20, 1e-4, 0.02))


def test_continuous_levels_lie_between_neighbours_of_the_table() -> None:
    step = torch.tensor([1, 25, 50])
    for fraction, expected in ((0.0, step - 1), (1.0, step)):
        torch.testing.assert_close(SCHEDULE.signal_between(step, torch.full((3,), fraction)), SCHEDULE.signal_levels[expected])
