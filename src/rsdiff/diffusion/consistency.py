"""Consistency functions: the denoiser of a schedule, made the identity at time 0.

f(x, t) = c_skip x + c_out x0. Source: Song et al., "Consistency models", ICML 2023, app. C, as LDCSR's consistency variant has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteDenoiser
from rsdiff.diffusion.solvers import evaluate, per_image

DATA_DEVIATION, TIME_SCALE = 0.5, 10.0


def boundary_weights(time: Tensor) -> tuple[Tensor, Tensor]:
    """Return (c_skip, c_out) at `time` in [0, 1), t / T: 1 and 0 at time 0, where the consistency function is the identity."""
    scaled = (TIME_SCALE * time).square() + DATA_DEVIATION**2
    return DATA_DEVIATION**2 / scaled, TIME_SCALE * time / scaled.sqrt()


class ConsistencyDenoiser:
    """The consistency function as a denoiser, with the published step: estimate, then noise of the next level."""

    def __init__(self, inner: DiscreteDenoiser, steps: int) -> None:
        self.inner, self.steps = inner, steps
        self.sigma_min, self.sigma_max = inner.sigma_min, inner.sigma_max
        self.table, self.data_range = inner.table, inner.data_range

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        levels = sigma.to(torch.float64).expand(len(y))
        time = self.inner.time_of(levels).to(torch.float64) / self.steps
        skip, out = (per_image(weight, y) for weight in boundary_weights(time))
        return skip * y / (1 + per_image(levels, y).square()).sqrt() + out * self.inner(y, sigma)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """See Denoiser."""
        return self.inner.round_sigma(sigma)

    def step(self, y: Tensor, sigma: float, sigma_next: float, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """See SteppingDenoiser; nothing is drawn in a step to 0."""
        clean = evaluate(self, y, sigma)
        return (clean + sigma_next * noise.normal(y.shape, y.device, y.dtype) if sigma_next else clean), clean
