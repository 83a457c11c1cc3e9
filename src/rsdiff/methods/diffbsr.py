"""DiffBSR: a CNN estimate, and a diffusion in 20 steps over what it lacks, conditioned on the estimate and on a degradation code.

Source: Meng-333/DiffBSR, "Remote Sensing Image Blind Super-Resolution via a CNN-Guided Conditional Diffusion Model", IEEE JSTARS
19, 2641-2657, 2026.
The U-Net denoises the residual clamp(2 (HR - estimate), -1, 1), so the result differs from the estimate by at most 0.5 in [-1, 1] (64 grey
levels); the diffusion loss also trains the CNN (as condition and as residual) and the encoder.

Unlike the published code:
- Averages of the weights follow the trainer's rule (copied at the start, after the step) and are used; the published one starts from
  random weights, is updated before the step and never used: for parity, `trainer.ema.rule=off`.
- Any batch size can be sampled; the published loop fails above 1.
- LR sides that are no multiple of 2 are extended by reflection, then cropped; the published U-Net fails there.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.joint_blind import BlindDiffusion, Drawn, Estimate, JointBlind, JointBlindConfig
from rsdiff.networks.degradation_aware import DiffSRUNetConfig
from rsdiff.networks.srdsran import SRDSRANConfig


def networks(options: DiffBSRConfig, problem: Problem) -> dict[str, nn.Module]:
    """Return the U-Net with fresh weights."""
    return {"unet": options.unet.build(problem.bands, options.contrast.code_channels)}


def predict(method: JointBlind, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
    """Return the predicted noise: the U-Net is shown the estimate beside x, and told the code."""
    return method.unet(torch.cat([estimate.feature.to(x.dtype), x], dim=1), time, code)


def draw(schedule: DiscreteSchedule, clean: Tensor, noise: NoiseSource) -> Drawn:
    """Draw one step t for the whole batch; the level of each image is uniform between the neighbouring levels of t (SR3)."""
    count = len(clean)
    step = torch.full((count,), noise.shared_integer(1, len(schedule) + 1), device=clean.device)
    level = schedule.signal_between(step, noise.uniform((count,), clean.device))
    return Drawn(noise.normal(clean.shape, clean.device), level, level.to(clean.dtype))


@config
class DiffBSRConfig(JointBlindConfig):
    """DiffBSR. The defaults are those of its iso and aniso configurations (x4)."""

    diffusion: ClassVar[BlindDiffusion] = BlindDiffusion(networks=networks, predict=predict, draw=draw, base="estimate")

    restorer: SRDSRANConfig = SRDSRANConfig()
    """The CNN that makes the first estimate."""
    unet: DiffSRUNetConfig = DiffSRUNetConfig()
    """The noise predictor."""
    schedule: ScheduleConfig = ScheduleConfig(name="linear_cosine", steps=20, start=1e-6, end=0.01)
    """Noise levels of training."""

    def refuse(self, problem: Problem) -> str | None:
        return self.restorer.refuse("diffbsr", problem)

    def build_restorer(self, problem: Problem) -> nn.Module:
        return self.restorer.build(problem)
