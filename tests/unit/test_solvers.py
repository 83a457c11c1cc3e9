"""Solvers against a Gaussian whose denoiser, ODE solution and posterior are known in closed form, and against published x-space steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from rsdiff.diffusion import solvers as grids
from rsdiff.diffusion.edm import Churn, Trajectory, euler, heun
from rsdiff.diffusion.multistep import deis, dpmpp_3m, unipc
from rsdiff.diffusion.noise import NoiseSource, ReplayNoise, SeededNoise
from rsdiff.diffusion.schedules import DiscreteSchedule, make_betas
from rsdiff.diffusion.solvers import (
    Observers,
    StepRecord,
    ddim,
    ddim_rule,
    ddpm,
    dpmpp_2m,
    first_order,
    native,
    residual_shift_rule,
)

SHAPE = (2, 1, 4, 4)


@dataclass
class Gaussian:
    """The exact denoiser of pixels drawn from N(mean, variance)."""

    mean: float = 0.2
    variance: float = 0.09
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    table: Tensor | None = None
    data_range: tuple[float, float] | None = None

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        gain = self.variance / (self.variance + sigma.to(y.dtype) ** 2)
        return self.mean + gain.reshape(-1, 1, 1, 1) * (y - self.mean)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma

    def flow(self, y: Tensor, sigma: float) -> Tensor:
        """Where the probability-flow ODE takes y at sigma to at level 0."""
        return self.mean + (y - self.mean) * math.sqrt(self.variance / (self.variance + sigma**2))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(steps: int, sigma_max: float = 20.0) -> Tensor:
    return grids.to_zero(grids.edm_levels(steps, 0.01, sigma_max))


NOTHING = ReplayNoise([])
DETERMINISTIC: dict[str, Callable[..., Tensor]] = {
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "unipc": unipc,
    "unipc_3": partial(unipc, order=3),
    "deis": deis,
    "deis_3": partial(deis, order=3),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_solvers_find_the_flow_and_draw_nothing(name: str) -> None:
    denoiser, levels = Gaussian(), grid(200)
    y = levels[0] * normal(*SHAPE)
    result = DETERMINISTIC[name](denoiser, levels, y, NOTHING)
    torch.testing.assert_close(result, denoiser.flow(y, float(levels[0])), rtol=0, atol=2e-2)


# A corrector adds an order to its predictor.
ORDERS = [
    ("ddim", 1),
    ("euler", 1),
    ("heun", 2),
    ("dpmpp_2m", 2),
    ("dpmpp_3m", 3),
    ("unipc", 3),
    ("unipc_3", 4),
    ("deis", 2),
    ("deis_3", 3),
]


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_halving_the_steps_shows_the_order_of_a_solver(name: str, order: int) -> None:
    # down to a level above 0, since the last, first-order step to 0 would hide the order
    denoiser, y = Gaussian(), 10 * normal(*SHAPE)
    exact = denoiser.mean + (y - denoiser.mean) * math.sqrt((denoiser.variance + 0.1**2) / (denoiser.variance + 10**2))

    def error(steps: int) -> float:
        levels = torch.logspace(1, -1, steps + 1, dtype=torch.float64)
        # Multistep solvers start with a step of first order, which would hide the order, too: let it be shorter by another power.
        width = math.log(10) * 2 / steps
        short = 10 * torch.exp(-torch.tensor([width**2, 2 * width**2], dtype=torch.float64))
        levels = torch.cat([levels[:1], short, levels[1:]])
        return float((DETERMINISTIC[name](denoiser, levels, y, NOTHING) - exact).abs().max())

    assert math.log2(error(200) / error(400)) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("order", [2, 3])
def test_the_published_code_of_unipc_gives_the_same(order: int) -> None:
    """uni_pc.py of wl-zhao/UniPC (multistep, bh2, predict_x0, lower_order_final=False) on six steps of its linear schedule."""
    levels = torch.tensor(
        [
            152.16697028394637,
            33.0314500916667,
            9.403196554555501,
            3.4222447625721584,
            1.4619718278116118,
            0.5868123548919465,
            0.010485992786703322,
        ],
        dtype=torch.float64,
    )
    published = {
        2: [-0.40648670834330075, -0.10344250659033091, 0.19960169516263945, 0.5026458969156096, 0.8056900986985803],
        3: [-1.21328395590893, -0.5071060588885226, 0.19907183813188548, 0.9052497351522946, 1.6114276321726988],
    }[order]
    y = levels[0] * torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    result = unipc(Gaussian(), levels, y, NOTHING, order=order).flatten()
    torch.testing.assert_close(result, torch.tensor(published, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_deis_of_order_two_is_dpm_solver_two() -> None:
    """DPM-Solver (Lu et al., 2022), multistep with Taylor's weights, written with x = a y; its published code agrees to 1e-15."""
    levels = torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    y = 9 * normal(*SHAPE)
    state, before = y, None
    for sigma, following in zip(levels.tolist(), levels.tolist()[1:], strict=False):
        noise = (state - Gaussian()(state, torch.tensor(sigma))) / sigma
        h = math.log(sigma / following)
        slope = 0 if before is None else (noise - before[0]) / before[1]
        state = state - following * (math.expm1(h) * noise + (math.expm1(h) - h) * slope)
        before = (noise, h)
    torch.testing.assert_close(deis(Gaussian(), levels, y, NOTHING), state, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.75, 1.0])
def test_every_second_slope_gives_at_least_second_order(alpha: float) -> None:
    denoiser, y = Gaussian(), 10 * normal(*SHAPE)
    exact = denoiser.mean + (y - denoiser.mean) * math.sqrt((denoiser.variance + 0.1**2) / (denoiser.variance + 10**2))
    coarse, fine = (
        float((heun(denoiser, torch.logspace(1, -1, n + 1, dtype=torch.float64), y, NOTHING, alpha=alpha) - exact).abs().max())
        for n in (40, 80)
    )
    assert math.log2(coarse / fine) > 1.7


@pytest.mark.parametrize("schedule", ["linear", "ve", "vp"])
@pytest.mark.parametrize("scaling", ["none", "vp"])
def test_every_trajectory_leads_to_the_same_end(schedule: str, scaling: str) -> None:
    denoiser, levels = Gaussian(), grid(100)
    trajectory = Trajectory(schedule, scaling, *grids.vp_betas(0.01, 20.0))  # type: ignore[arg-type]
    y = levels[0] * normal(*SHAPE)
    result = heun(denoiser, levels, y, NOTHING, trajectory=trajectory)
    torch.testing.assert_close(result, denoiser.flow(y, float(levels[0])), rtol=0, atol=5e-3)


def test_ddim_without_noise_is_euler() -> None:
    levels = grid(7)
    y = levels[0] * normal(*SHAPE)
    torch.testing.assert_close(ddim(Gaussian(), levels, y, NOTHING), euler(Gaussian(), levels, y, NOTHING), rtol=1e-12, atol=1e-12)


def test_ddpm_is_ddim_with_eta_one() -> None:
    levels = grid(7)
    y = levels[0] * normal(*SHAPE)
    first, second = (SeededNoise([("a",), ("b",)]) for _ in range(2))
    torch.testing.assert_close(ddpm(Gaussian(), levels, y, first), ddim(Gaussian(), levels, y, second, eta=1.0), rtol=1e-12, atol=1e-12)


STOCHASTIC: dict[str, Callable[[Tensor, Tensor, NoiseSource], Tensor]] = {
    "ddpm": lambda levels, y, noise: ddpm(Gaussian(), levels, y, noise),
    "ddpm_beta": lambda levels, y, noise: ddpm(Gaussian(), levels, y, noise, variance="beta"),
    "ddim_half": lambda levels, y, noise: ddim(Gaussian(), levels, y, noise, eta=0.5),
    "churned_heun": lambda levels, y, noise: heun(Gaussian(), levels, y, noise, churn=Churn(20.0)),
    "churned_euler": lambda levels, y, noise: euler(Gaussian(), levels, y, noise, churn=Churn(20.0)),
    "residual_shift": lambda levels, y, noise: first_order(Gaussian(), levels, y, noise, residual_shift_rule(2.0)),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_solvers_draw_from_the_data_distribution(name: str) -> None:
    levels, count = grid(150), 20_000
    noise = SeededNoise([("seed", name)])
    y = 0.2 + torch.sqrt(levels[0] ** 2 + 0.09) * normal(1, 1, 1, count)
    result = STOCHASTIC[name](levels, y, noise)
    assert float(result.mean()) == pytest.approx(0.2, abs=0.02)
    assert float(result.std()) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("rule", [ddim_rule(0.0), ddim_rule(0.4), ddim_rule(1.0), residual_shift_rule(2.0)])
def test_noise_kept_and_noise_added_make_up_the_next_level(rule: Callable[[float, float], tuple[float, float]]) -> None:
    for sigma, sigma_next in [(80.0, 3.0), (1.0, 0.9), (0.01, 0.001), (2.0, 2.0), (2.0, 0.0)]:
        down, up = rule(sigma, sigma_next)
        assert down**2 + up**2 == pytest.approx(sigma_next**2, rel=1e-10)


def ancestral_in_x(schedule: DiscreteSchedule, denoiser: Gaussian, x: Tensor, draws: list[Tensor], variance: str) -> Tensor:
    """DDPM as published, in x: eps-prediction, then the mean of x_{t-1} and noise."""
    betas, bar, before = schedule.betas, schedule.alphas_bar, schedule.alphas_bar_before
    for t in reversed(range(len(schedule))):
        sigma = schedule.sigmas[t]
        y = x / bar[t].sqrt()
        eps = (y - denoiser(y, sigma)) / sigma
        x = (x - betas[t] / (1 - bar[t]).sqrt() * eps) / (1 - betas[t]).sqrt()
        if t > 0:
            spread = betas[t] if variance == "beta" else betas[t] * (1 - before[t]) / (1 - bar[t])
            x = x + spread.sqrt() * draws[len(schedule) - 1 - t]
    return x


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_equals_the_published_step_in_x(variance: str) -> None:
    schedule = DiscreteSchedule(make_betas("linear", 12, 1e-3, 0.4))
    draws = [normal(*SHAPE, seed=k) for k in range(12)]
    levels = grids.to_zero(schedule.sigmas.flip(0))
    y = (1 + levels[0] ** 2).sqrt() * draws[11]
    result = ddpm(Gaussian(), levels, y, ReplayNoise(draws[:11]), variance=variance)  # type: ignore[arg-type]
    torch.testing.assert_close(result, ancestral_in_x(schedule, Gaussian(), draws[11], draws, variance), rtol=1e-9, atol=1e-10)


def test_residual_shift_equals_the_published_step_in_x() -> None:
    # ResShift: x_{t-1} ~ N(eta_{t-1}/eta_t x_t + (eta_t - eta_{t-1})/eta_t x0, k^2 eta_{t-1}/eta_t (eta_t - eta_{t-1}))
    etas, k, image = torch.linspace(0.001, 0.98, 9, dtype=torch.float64), 1.5, normal(*SHAPE, seed=40)
    draws = [normal(*SHAPE, seed=k) for k in range(9)]
    sigmas = k * etas.sqrt() / (1 - etas)
    x = image + k * etas[-1].sqrt() * draws[8]
    y = image + sigmas[-1] * draws[8]
    for t in reversed(range(9)):
        clean = Gaussian()((x - etas[t] * image) / (1 - etas[t]), sigmas[t])
        before = etas[t - 1] if t > 0 else torch.zeros(())
        x = before / etas[t] * x + (1 - before / etas[t]) * clean + k * (before / etas[t] * (etas[t] - before)).sqrt() * draws[8 - t]
    result = first_order(Gaussian(), grids.to_zero(sigmas.flip(0)), y, ReplayNoise(draws[:8]), residual_shift_rule(k))
    torch.testing.assert_close(result, x, rtol=1e-9, atol=1e-9)


def test_churn_is_added_between_its_bounds_only_and_is_capped() -> None:
    churn = Churn(40.0, low=0.05, high=50.0)
    assert churn.share(60.0, 256) == churn.share(0.04, 256) == 0
    assert churn.share(1.0, 256) == 40 / 256
    assert churn.share(1.0, 8) == pytest.approx(math.sqrt(2) - 1)


@pytest.mark.parametrize("solve", [ddim, ddpm, euler, heun])
def test_unused_draws_are_made_only_when_asked_for(solve: Callable[..., Tensor]) -> None:
    levels = grid(3)
    y = levels[0] * normal(*SHAPE)
    draws = [np.zeros(SHAPE)] * 3
    asked = ReplayNoise(draws)
    solve(Gaussian(), levels, y, asked, draw_unused=True)
    with pytest.raises(ValueError, match="ran out"):
        asked.normal(SHAPE)


def test_observers_see_every_step_and_may_replace_the_state() -> None:
    records: list[StepRecord] = []
    levels = grid(3)
    observers = Observers(records.append, lambda y, sigma: y.clamp(-1, 1))
    result = ddim(Gaussian(), levels, levels[0] * normal(*SHAPE), NOTHING, observers=observers)
    assert [record.index for record in records] == [0, 1, 2]
    assert [record.sigma for record in records] == levels[:-1].tolist()
    assert records[-1].state is result
    torch.testing.assert_close(records[-1].clean, result)
    assert float((records[0].clean - Gaussian().mean).abs().max()) < 1e-2  # the state was clamped from 20 n to 1 first


def test_solvers_are_differentiable() -> None:
    levels, gain = grid(4), torch.ones((), dtype=torch.float64, requires_grad=True)

    class Learned(Gaussian):
        def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
            return gain * super().__call__(y, sigma)

    ddpm(Learned(), levels, levels[0] * normal(*SHAPE), SeededNoise([(1,), (2,)])).sum().backward()
    assert gain.grad is not None
    assert float(gain.grad.abs()) > 0


def test_native_walks_the_models_own_step() -> None:
    class Own(Gaussian):
        def step(self, y: Tensor, sigma: float, sigma_next: float, noise: NoiseSource) -> tuple[Tensor, Tensor]:
            return y + 1, y

    levels = grid(5)
    y = normal(*SHAPE)
    torch.testing.assert_close(native(Own(), levels, y, NOTHING), y + 5)
