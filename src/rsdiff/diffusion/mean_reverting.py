"""The mean-reverting SDE of IR-SDE and EDiffSR: images drift to a mean mu, with noise of a fixed strength, and back.

x_t = mu + a_t (x0 - mu) + lambda sqrt(1 - a_t^2) n,  a_t = exp(-Theta_t),  Theta_t = sum of tau_s, s = 1..t,  tau_t = theta_t dt.

In r = (x - mu) / lambda this is a variance-preserving diffusion of the residual (x0 - mu) / lambda: r_t = a_t r_0 + sqrt(1 - a_t^2) n. So
`DiscreteSchedule` holds its levels, a denoiser its network, and every solver and grid runs it; the published start mu + lambda n is the
variance-preserving one. Only the published steps, Euler's in t, are none of the universal ones: see `EulerDenoiser`.
Source: XY-boy/EDiffSR, sde_utils.py, IRSDE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, Prediction, TimeInput
from rsdiff.diffusion.solvers import DataRange, Network

Rule = Literal["sde", "ode"]


@config
class MeanRevertingConfig:
    """The levels a network is trained with. The defaults are EDiffSR's."""

    shape: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of theta, the speed of the drift, over t."""
    steps: int = 100
    """T, number of levels."""
    strength: float = 50 / 255
    """lambda, the standard deviation of the noise at the end, in units of [0, 1]."""
    remainder: float = 0.005
    """a_T, what is left of the image at the end, as a share of x0 - mu."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"a schedule of {self.steps} steps was given; choose at least 1.")
        if not (0 < self.remainder < 1 and self.strength > 0):
            raise UserError(f"remainder={self.remainder} must lie between 0 and 1, and strength={self.strength} above 0.")

    def thetas(self) -> Tensor:
        """Return theta (T+1,), index 0..T, in float32 as published: later digits of the small ones are its rounding."""
        match self.shape:
            case "cosine":
                count = self.steps + 2
                time = torch.linspace(0, count, count + 1, dtype=torch.float32)
                curve = torch.cos((time / count + 0.008) / 1.008 * math.pi * 0.5).square()
                return 1 - (curve / curve[0])[1:-1]
            case "linear":
                scale = 1 / (self.steps + 1)
                return torch.linspace(0.1 * scale, 20 * scale, self.steps + 1, dtype=torch.float32)
            case "constant":
                return torch.ones(self.steps + 1)

    def interval(self) -> float:
        """Return dt, such that a_T is `remainder`."""
        return -math.log(self.remainder) / float(self.thetas()[1:].double().sum())

    def drifts(self) -> Tensor:
        """Return tau (T+1,) float64, index 0..T; that of index 0 belongs to no step."""
        return self.thetas().double() * self.interval()

    def build(self) -> DiscreteSchedule:
        """Return the variance-preserving schedule of the residual, its levels numbered 1..T."""
        with torch.device("cpu"):  # also where a method is built on the meta device: the levels are numbers, not weights
            return DiscreteSchedule(-torch.expm1(-2 * self.drifts()[1:]), torch.arange(1, self.steps + 1))


@dataclass(frozen=True)
class ReverseMeans:
    """Coefficients (...,) float64 of one step back, in r: published Euler steps and the exact posterior.

    drift      tau of the step
    euler      mean of the step of `rule` = state r_t - noise * e, for predicted noise e
    posterior  mean of r_{t-1} given r_t and r_0 = state r_t + clean r_0
    """

    drift: Tensor
    euler_state: Tensor
    euler_noise: Tensor
    posterior_state: Tensor
    posterior_clean: Tensor

    @classmethod
    def between(cls, sigma: Tensor, sigma_next: Tensor, rule: Rule) -> ReverseMeans:
        """Return the steps from sigma (...,) to sigma_next (...,), both float64 in units of the residual."""
        before, after = sigma.square().log1p(), sigma_next.square().log1p()
        drift = (before - after) / 2
        spread = sigma.square() / (1 + sigma.square())  # 1 - a_t^2
        spread_next = sigma_next.square() / (1 + sigma_next.square())
        decay = (-drift).exp()
        return cls(
            drift=drift,
            euler_state=1 + drift,
            euler_noise=(2 if rule == "sde" else 1) * drift / spread.sqrt(),
            posterior_state=decay * spread_next / spread,
            posterior_clean=(-after / 2).exp() * -torch.expm1(-2 * drift) / spread,
        )


class EulerDenoiser(DiscreteDenoiser):
    """A network on residuals, with the published step as `sampler.solver=native`.

    prediction  noise, or the residual itself (clean)
    rule        sde: Euler-Maruyama on the reverse SDE; ode: Euler on the probability-flow ODE
    last_noise  whether the last step of the SDE adds noise too, as published
    Both are exact in neither the drift nor the level, and walk any grid; published is every level. With y = r / a, tau the drift and
    u = 1 - a^2 of the step:  y' = e^-tau (1 + tau - k tau / u) y + e^-tau k tau / u D - sqrt(2 tau) / a' z,  k = 2 (sde) or 1 (ode, no z).
    """

    def __init__(
        self,
        network: Network,
        schedule: DiscreteSchedule,
        prediction: Prediction = "noise",
        *,
        rule: Rule,
        last_noise: bool,
        time: TimeInput = "fractional_index",
        data_range: DataRange | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(network, schedule, prediction, time=time, data_range=data_range, dtype=dtype)
        self.rule: Rule = rule
        self.last_noise = last_noise

    def step(self, y: Tensor, sigma: float, sigma_next: float, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Return (y at sigma_next, clean estimate)."""
        level, following = (torch.tensor(value, dtype=torch.float64) for value in (sigma, sigma_next))
        clean = self(y, level)
        means = ReverseMeans.between(level, following, self.rule)
        scale_next = math.sqrt(1 + sigma_next**2)
        state, predicted = y / math.sqrt(1 + sigma**2), (y - clean) / sigma
        result = (float(means.euler_state) * state - float(means.euler_noise) * predicted) * scale_next
        if self.rule == "sde" and (sigma_next > 0 or self.last_noise):
            # Subtracted as published, which matters where the draws are given.
            result = result - math.sqrt(2 * float(means.drift)) * scale_next * noise.normal(y.shape, y.device, y.dtype)
        return result, clean
