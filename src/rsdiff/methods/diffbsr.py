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

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.losses.masked import masked_l1
from rsdiff.methods.base import Problem
from rsdiff.methods.joint_blind import Estimate, JointBlindConfig, JointBlindDiffusion, noisy
from rsdiff.networks.degradation_aware import DiffSRUNetConfig
from rsdiff.networks.srdsran import SRDSRANConfig


@config
class DiffBSRConfig(JointBlindConfig):
    """DiffBSR. The defaults are those of its iso and aniso configurations (x4)."""

    restorer: SRDSRANConfig = SRDSRANConfig()
    """The CNN that makes the first estimate."""
    unet: DiffSRUNetConfig = DiffSRUNetConfig()
    """The noise predictor."""
    schedule: ScheduleConfig = ScheduleConfig(name="linear_cosine", steps=20, start=1e-6, end=0.01)
    """Noise levels of training."""

    def refuse(self, problem: Problem) -> str | None:
        return self.restorer.refuse("diffbsr", problem)

    def build(self, problem: Problem) -> DiffBSR:
        return DiffBSR(self, problem)


class DiffBSR(JointBlindDiffusion):
    """See the module and `DiffBSRConfig`."""

    samples_residual = True

    def __init__(self, options: DiffBSRConfig, problem: Problem) -> None:
        super().__init__(options, problem, options.restorer.build(problem))
        self.unet = options.unet.build(problem.bands, options.contrast.code_channels)

    def predict(self, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
        return self.unet(torch.cat([estimate.feature.to(x.dtype), x], dim=1), time, code)

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource, valid: Tensor | None = None) -> Tensor:
        """Return the mean absolute error of the predicted noise.

        One step t for the whole batch; the level of each image is uniform between the neighbouring levels of t (SR3).
        """
        count = len(hr)
        step = torch.full((count,), noise.shared_integer(1, len(self.schedule) + 1), device=hr.device)
        level = self.schedule.signal_between(step, noise.uniform((count,), hr.device))
        drawn = noise.normal(hr.shape, hr.device)
        x = noisy(self.target(hr, estimate), level, drawn)
        return masked_l1(self.predict(x, level.to(hr.dtype), estimate, code), drawn, valid)

    def pixel_multiple(self) -> int:
        return self.lr_multiple(self.unet.size_multiple)
