"""LCMSR: the consistency variant of LDCSR's second stage, which restores in one step or a few.

Source: MoooJianG/LDCSR, models/second_stage_consistency_v1.py. The consistency function f(x, t) = c_skip x + c_out x0 is trained to agree
with itself, as an average of earlier weights, at a time `time_gap` earlier on the same noise.

Unlike the published code: its sampler re-noises after the last step too and leaves noise of the lowest level; sampler=lcmsr ends clean
(`sampler.end=lowest_vp` with the grid's last level at the table's lowest gives the published result).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteDenoiser, ScheduleConfig
from rsdiff.diffusion.solvers import Denoiser, evaluate, per_image
from rsdiff.losses.images import masked_mse
from rsdiff.methods.ldcsr import LatentDiffusion, LatentDiffusionConfig, LatentObjective, Told

DATA_DEVIATION, TIME_SCALE = 0.5, 10.0


@config
class LCMSRConfig(LatentDiffusionConfig):
    """The consistency variant. The defaults are the published ones."""

    schedule: ScheduleConfig = ScheduleConfig(name="quad", steps=1000, start=0.0015, end=0.0155)
    """Noise levels."""
    time_gap: int = 250
    """Steps of the schedule between the two times that must agree."""
    target_decay: float = 0.9999
    """Largest share of the average that each step keeps; it begins at 2/11 and rises as (1 + n) / (10 + n)."""

    def __post_init__(self) -> None:
        LatentDiffusionConfig.__post_init__(self)
        if not 1 <= self.time_gap < self.schedule.steps or not 0 <= self.target_decay < 1:
            raise UserError(
                f"time_gap={self.time_gap} and target_decay={self.target_decay} were given; choose 1 to "
                f"{self.schedule.steps - 1}, and 0 or more below 1."
            )
        if self.architecture == "unet_atom":
            raise UserError("architecture=unet_atom takes levels and a consistency function needs steps; use architecture=latent_unet.")

    @property
    def objective(self) -> LatentObjective:
        return Consistency(self.time_gap, self.target_decay)


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


@dataclass(frozen=True)
class Consistency:
    """The objective: the method's network agrees with its average, `target`, `time_gap` steps earlier on the same noise."""

    time_gap: int
    target_decay: float

    name: ClassVar[str] = "consistency"

    def prepare(self, method: LatentDiffusion) -> None:
        """Add the averaged network and the number of its updates, which are part of what a training resumes from."""
        method.target = copy.deepcopy(method.unet).requires_grad_(False)
        method.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def denoiser(self, inner: DiscreteDenoiser) -> Denoiser:
        assert inner.table is not None
        return ConsistencyDenoiser(inner, len(inner.table))

    def error(
        self, method: LatentDiffusion, latent: Tensor, condition: Tensor, told: Told, noise: NoiseSource, valid: Tensor | None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Draws: the step of each image, its noise. Shown besides: the error of the estimate."""
        steps = noise.integers(0, len(method.schedule), (len(latent),), latent.device)
        drawn = noise.normal(latent.shape, latent.device, latent.dtype)
        gap, predicted = self.agreement(method, latent, condition, told, steps, drawn, valid)
        return gap, {"error": masked_mse(predicted.detach(), latent, valid)}

    def agreement(
        self,
        method: LatentDiffusion,
        latent: Tensor,
        condition: Tensor,
        told: Told,
        steps: Tensor,
        drawn: Tensor,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (squared difference of f at `steps` (B,) and of the averaged f `time_gap` earlier, mean; f at `steps` (B, C, y, x)).

        drawn: the latent's noise; for the rest see `LatentObjective.error`
        """
        sigmas = method.schedule.on(latent.device, "sigmas")
        later, earlier = sigmas[steps], sigmas[(steps - self.time_gap).clamp(min=0)]
        predicted = method.denoiser(condition, told)(latent + per_image(later, latent) * drawn, later)
        with torch.no_grad():
            before = method.denoiser(condition, told, method.get_submodule("target"))
            wanted = before(latent + per_image(earlier, latent) * drawn, earlier)
        return masked_mse(predicted, wanted, valid), predicted

    @torch.no_grad()
    def after_step(self, method: LatentDiffusion) -> None:
        """Move the averaged network towards the trained one."""
        updates = method.get_buffer("updates")
        updates += 1
        decay = torch.clamp((1 + updates) / (10 + updates), max=self.target_decay)
        for average, weight in zip(method.get_submodule("target").parameters(), method.unet.parameters(), strict=True):
            average.lerp_(weight, (1 - decay).to(weight))
