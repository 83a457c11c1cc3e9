"""Learned variances of improved DDPM (Nichol and Dhariwal, 2021, "learned range"): the reverse step and its variational bound.

The network's further channels v interpolate the logarithm of the variance between the posterior's (v = -1) and beta (v = 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsdiff.data.transfer import to_device
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import LOWEST_VARIANCE, DiscreteDenoiser, DiscreteSchedule
from rsdiff.diffusion.solvers import per_image

HALF_BIN = 1 / 255
"""Half the distance of 8-bit grey levels in [-1, 1]."""
OUTERMOST = 0.999
"""Values beyond +-this belong to the first and the last bin, which are open."""
LEAST_PROBABILITY = 1e-12
"""Floor under the logarithm."""


@dataclass(frozen=True)
class ReverseSteps:
    """Coefficients (...,) float64 of variance-preserving steps from x_t to x_s, s < t: mean = of_clean x0 + of_state x_t.

    log_posterior, log_beta  logarithms of the smallest and the largest variance
    """

    of_clean: Tensor
    of_state: Tensor
    log_posterior: Tensor
    log_beta: Tensor

    @classmethod
    def between(cls, alpha_bar: Tensor, alpha_bar_next: Tensor) -> ReverseSteps:
        """Return the steps from alpha_bar (...,) to alpha_bar_next (...,), which is larger, and 1 for a step to the clean image."""
        alpha = alpha_bar / alpha_bar_next
        beta = 1 - alpha
        posterior = beta * (1 - alpha_bar_next) / (1 - alpha_bar)
        return cls(
            of_clean=beta * alpha_bar_next.sqrt() / (1 - alpha_bar),
            of_state=(1 - alpha_bar_next) * alpha.sqrt() / (1 - alpha_bar),
            log_posterior=posterior.clamp(min=LOWEST_VARIANCE).log(),
            log_beta=beta.log(),
        )

    @classmethod
    def of_schedule(cls, schedule: DiscreteSchedule) -> ReverseSteps:
        """Return the T steps of a schedule, each to the level before. The last (t = 0) has no variance and gets that of t = 1."""
        steps = cls.between(schedule.alphas_bar, schedule.alphas_bar_before)
        second = steps.log_posterior[min(1, len(schedule) - 1)].reshape(1)
        return cls(steps.of_clean, steps.of_state, torch.cat([second, steps.log_posterior[1:]]), steps.log_beta)

    def at(self, index: Tensor) -> ReverseSteps:
        """Return the steps `index` (B,)."""
        return ReverseSteps(*(to_device(values, index.device)[index] for values in self._values))

    def mean(self, clean: Tensor, state: Tensor) -> Tensor:
        """Return the mean of x_s given x0 `clean` and x_t `state`, (B, C, H, W)."""
        return per_image(self.of_clean, state) * clean + per_image(self.of_state, state) * state

    def log_variance(self, channels: Tensor) -> Tensor:
        """Return the learned log-variance from the network's channels v (B, C, H, W)."""
        share = (channels + 1) / 2
        return share * per_image(self.log_beta, channels) + (1 - share) * per_image(self.log_posterior, channels)

    @property
    def _values(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.of_clean, self.of_state, self.log_posterior, self.log_beta


class LearnedVarianceDenoiser(DiscreteDenoiser):
    """A noise predictor with a learned variance; `step` (solver native) is its ancestral step, other solvers do without the variance."""

    def step(self, y: Tensor, sigma: float, sigma_next: float, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        level = torch.tensor(sigma, dtype=torch.float64)
        clean, channels = self.evaluate(y, level)
        alpha_bar, alpha_bar_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        steps = ReverseSteps.between(torch.tensor(alpha_bar, dtype=torch.float64), torch.tensor(alpha_bar_next, dtype=torch.float64))
        following = steps.mean(clean, math.sqrt(alpha_bar) * y)
        if sigma_next > 0:
            deviation = (0.5 * steps.log_variance(channels)).exp()
            following = following + deviation * noise.normal(y.shape, y.device, y.dtype)
        return following / math.sqrt(alpha_bar_next), clean


def variational_bound(clean: Tensor, state: Tensor, steps: ReverseSteps, predicted: Tensor, channels: Tensor, is_last: Tensor) -> Tensor:
    """Return (B, C, H, W) in bits: KL of the true posterior to the predicted one, or the negative log-likelihood where `is_last` (B,).

    clean, state  x0 and x_t, (B, C, H, W)
    steps         their steps
    predicted     the network's x0; channels: its v. As published, callers detach `predicted`: the bound trains the variance.
    """
    mean, log_variance = steps.mean(predicted, state), steps.log_variance(channels)
    target, target_log_variance = steps.mean(clean, state), per_image(steps.log_posterior, state)
    ratio = target_log_variance - log_variance
    divergence = 0.5 * (-1 - ratio + ratio.exp() + (target - mean).square() * (-log_variance).exp())
    likelihood = -eight_bit_log_likelihood(clean, mean, 0.5 * log_variance)
    bits = torch.where(per_image(is_last, state) > 0, likelihood, divergence)
    return bits / math.log(2)


def eight_bit_log_likelihood(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Return the log-probability of 8-bit values x, in [-1, 1], under a Gaussian cut into the bins of grey levels; per element.

    The normal distribution function is its tanh approximation, as published.
    """
    inverse = (-log_deviation).exp()
    upper = _normal_cdf((x - mean + HALF_BIN) * inverse)
    lower = _normal_cdf((x - mean - HALF_BIN) * inverse)
    inside = torch.where(x > OUTERMOST, 1 - lower, upper - lower)
    return torch.where(x < -OUTERMOST, upper, inside).clamp(min=LEAST_PROBABILITY).log()


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
