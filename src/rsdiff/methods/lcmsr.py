"""LCMSR: the consistency variant of LDCSR's second stage, which restores in one step or a few.

Source: MoooJianG/LDCSR, models/second_stage_consistency_v1.py. The consistency function f(x, t) = c_skip x + c_out x0 is trained to agree
with itself, as an average of earlier weights, at a time `time_gap` earlier on the same noise.

Unlike the published code: its sampler re-noises after the last step too and leaves noise of the lowest level; sampler=lcmsr ends clean
(`sampler.end=lowest_vp` with the grid's last level at the table's lowest gives the published result).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.denoisers import Denoiser, per_image
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteDenoiser, ScheduleConfig
from rsdiff.diffusion.solvers import evaluate
from rsdiff.losses.masked import masked_mse
from rsdiff.methods.base import Losses, Problem, Stage
from rsdiff.methods.ldcsr import LatentDiffusion, LatentDiffusionConfig

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

    def build(self, problem: Problem) -> LCMSR:
        return LCMSR(self, problem)


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


class LCMSR(LatentDiffusion):
    """See the module and `LCMSRConfig`."""

    updates: Tensor

    def __init__(self, options: LCMSRConfig, problem: Problem) -> None:
        super().__init__(options, problem)
        self.time_gap, self.target_decay = options.time_gap, options.target_decay
        self.target = copy.deepcopy(self.unet).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def denoiser_of(self, network: nn.Module, condition: Tensor, scale: Tensor, height: Tensor) -> Denoiser:
        inner = super().denoiser_of(network, condition, scale, height)
        assert isinstance(inner, DiscreteDenoiser)
        return ConsistencyDenoiser(inner, len(self.schedule))

    def agreement(
        self,
        latent: Tensor,
        condition: Tensor,
        scale: Tensor,
        height: Tensor,
        steps: Tensor,
        drawn: Tensor,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (squared difference of f at `steps` and of the averaged f `time_gap` earlier, mean; f at `steps` (B, C, y, x)).

        latent  scaled, (B, C, y, x); drawn: its noise; steps, scale, height (B,); valid: the cells (B, 1, y, x) that count
        """
        sigmas = self.schedule.on(latent.device, "sigmas")
        later, earlier = sigmas[steps], sigmas[(steps - self.time_gap).clamp(min=0)]
        now = self.denoiser_of(self.unet, condition, scale, height)
        predicted = now(latent + per_image(later, latent) * drawn, later)
        with torch.no_grad():
            before = self.denoiser_of(self.target, condition, scale, height)
            wanted = before(latent + per_image(earlier, latent) * drawn, earlier)
        return masked_mse(predicted, wanted, valid), predicted

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        """Draws: the latent, the step of each image, its noise."""
        hr, lr = 2 * batch.need("hr") - 1, 2 * batch.need("lr") - 1
        latent = self.encode_target(hr, lr, noise)
        condition = self.encode_condition(lr, batch.size)
        count = len(latent)
        steps = noise.integers(0, len(self.schedule), (count,), latent.device)
        drawn = noise.normal(latent.shape, latent.device, latent.dtype)
        scale, height = torch.full((count,), batch.size[0] / lr.shape[-2]), torch.full((count,), batch.size[0])
        cells = self.counting_cells(batch, latent)
        consistency, predicted = self.agreement(latent, condition, scale, height, steps, drawn, cells)
        distillation = self.distillation(latent, condition, cells)
        total = consistency + self.options.distillation_weight * distillation
        error = masked_mse(predicted.detach(), latent, cells)
        return {"restorer": Losses(total, {"consistency": consistency.detach(), "distillation": distillation.detach(), "error": error})}

    @torch.no_grad()
    def after_step(self, stage: Stage, step: int) -> None:
        """Move the averaged network towards the trained one."""
        self.updates += 1
        decay = torch.clamp((1 + self.updates) / (10 + self.updates), max=self.target_decay)
        for average, weight in zip(self.target.parameters(), self.unet.parameters(), strict=True):
            average.lerp_(weight, (1 - decay).to(weight))
