"""EDM's stochastic Euler and Heun solvers, with every choice of its ablation: time schedule, scaling, churn, second-order parameter.

Source: Karras et al., arXiv 2206.00364, algorithms 1 and 2 and section C; `schedule='linear', scaling='none', alpha=1` is Algorithm 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rsdiff.diffusion.denoisers import Denoiser
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.solvers import SILENT, Observers, evaluate, walk


@dataclass(frozen=True)
class Trajectory:
    """The curve along which the ODE is discretised: x(t) = s(t) y, noise level sigma(t).

    schedule          linear: sigma = t; ve: sigma = sqrt(t); vp: sigma of linear betas
    scaling           none: s = 1; vp: s = 1 / sqrt(1 + sigma^2)
    beta_d, beta_min  slope and start of the betas; read by schedule vp
    """

    schedule: Literal["linear", "ve", "vp"] = "linear"
    scaling: Literal["none", "vp"] = "none"
    beta_d: float = 19.9
    beta_min: float = 0.1

    def time(self, sigma: float) -> float:
        """Return t of level sigma; 0 at 0, where refitted betas with beta_min < 0 have a second root."""
        if sigma == 0:
            return 0.0
        match self.schedule:
            case "linear":
                return sigma
            case "ve":
                return sigma**2
            case "vp":
                return (math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log1p(sigma**2)) - self.beta_min) / self.beta_d

    def sigma(self, time: float) -> float:
        """Return the level at t."""
        match self.schedule:
            case "linear":
                return time
            case "ve":
                return math.sqrt(time)
            case "vp":
                return math.sqrt(math.expm1(0.5 * self.beta_d * time**2 + self.beta_min * time))

    def sigma_rate(self, time: float) -> float:
        """Return d sigma / dt at t > 0."""
        match self.schedule:
            case "linear":
                return 1.0
            case "ve":
                return 0.5 / math.sqrt(time)
            case "vp":
                sigma = self.sigma(time)
                return 0.5 * (self.beta_min + self.beta_d * time) * (sigma + 1 / sigma)

    def scale(self, sigma: float) -> float:
        """Return s at level sigma."""
        return 1.0 if self.scaling == "none" else 1 / math.sqrt(1 + sigma**2)

    def relative_scale_rate(self, time: float) -> float:
        """Return (ds / dt) / s at t > 0."""
        if self.scaling == "none":
            return 0.0
        sigma = self.sigma(time)
        return -sigma * self.sigma_rate(time) / (1 + sigma**2)


@dataclass(frozen=True)
class Churn:
    """Noise added before a step, EDM's S_churn, S_min, S_max and S_noise.

    amount    over a whole run; a step's share gamma = amount / steps is capped at sqrt(2) - 1
    low, high  levels between which noise is added
    inflation  factor on the standard deviation of the added noise
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    inflation: float = 1.0

    def share(self, sigma: float, steps: int) -> float:
        """Return gamma at level sigma: the level is raised to sigma (1 + gamma)."""
        return min(self.amount / steps, math.sqrt(2) - 1) if self.low <= sigma <= self.high else 0.0


LINEAR = Trajectory()
CALM = Churn()


def euler(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    *,
    churn: Churn = CALM,
    trajectory: Trajectory = LINEAR,
    draw_unused: bool = False,
    observers: Observers = SILENT,
) -> Tensor:
    """Euler's method on the probability-flow ODE, with optional churn: one evaluation per step."""
    return _solve(denoiser, levels, y, noise, None, churn, trajectory, draw_unused, observers)


def heun(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    *,
    alpha: float = 1.0,
    churn: Churn = CALM,
    trajectory: Trajectory = LINEAR,
    draw_unused: bool = False,
    observers: Observers = SILENT,
) -> Tensor:
    """EDM's stochastic second-order sampler: two evaluations per step, one in a step to 0.

    alpha  where the second slope is taken, as a share of the step in (0, 1]: 1 is Heun's method, 0.5 the midpoint method
    """
    return _solve(denoiser, levels, y, noise, alpha, churn, trajectory, draw_unused, observers)


def _solve(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    alpha: float | None,
    churn: Churn,
    trajectory: Trajectory,
    draw_unused: bool,
    observers: Observers,
) -> Tensor:
    """Shared loop; alpha None is first order. The slope at t is (sigma'/sigma + s'/s) x - (sigma'/sigma) s D(x / s, sigma)."""
    steps = len(levels) - 1

    def slope(x: Tensor, time: float) -> tuple[Tensor, Tensor]:
        sigma = trajectory.sigma(time)
        rate = trajectory.sigma_rate(time) / sigma
        scale = trajectory.scale(sigma)
        clean = evaluate(denoiser, x / scale, sigma)
        return (rate + trajectory.relative_scale_rate(time)) * x - rate * scale * clean, clean

    def step(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
        gamma = churn.share(sigma, steps)
        raised = float(denoiser.round_sigma(torch.tensor(sigma * (1 + gamma), dtype=torch.float64))) if gamma > 0 else sigma
        added = math.sqrt(max(raised**2 - sigma**2, 0.0)) * churn.inflation
        if added > 0 or draw_unused:
            y = y + added * noise.normal(y.shape, y.device, y.dtype)
        x = trajectory.scale(raised) * y
        time = trajectory.time(raised)
        width = trajectory.time(sigma_next) - time
        first, clean = slope(x, time)
        following = x + width * first
        if alpha is not None and sigma_next > 0:
            second, clean = slope(x + alpha * width * first, time + alpha * width)
            following = x + width * ((1 - 0.5 / alpha) * first + (0.5 / alpha) * second)
        return following / trajectory.scale(sigma_next), clean

    return walk(levels, y, step, observers)
