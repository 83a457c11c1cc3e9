"""BlindSRSNF: diffusion conditioned on an RRDB trunk's feature and on a degradation code, predicting the clean image.

Source: hanlinwu/BlindSRSNF (commit 462ff54), "Conditional Stochastic Normalizing Flows for Blind Super-Resolution of Remote Sensing
Images", IEEE TGRS 2023. The flow of the title is an ordinary conditional diffusion: there is no invertible layer and no likelihood.

Unlike the published code:
- Averages of the weights follow the trainer's rule and cover all networks; the published one covers the U-Net, starts from random weights
  and is updated before the step.
- Any batch size can be sampled; the published loops fail above 1.
- The STEP sampler does without the published last evaluation, which leaves x unchanged; the result keeps noise of deviation 0.0064 of
  [-1, 1] (0.8 grey levels), as published. `sampler.end=clean` returns the last prediction instead.
"""

from __future__ import annotations

from math import lcm
from typing import ClassVar

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.diffusion.denoisers import Prediction
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.losses.masked import masked_mse
from rsdiff.methods.base import Problem
from rsdiff.methods.joint_blind import Estimate, JointBlindConfig, JointBlindDiffusion, noisy
from rsdiff.networks.degradation_aware import BlindSRSNFUNetConfig
from rsdiff.networks.rrdb import RRDBConfig, RRDBNet


@config
class BlindSRSNFConfig(JointBlindConfig):
    """BlindSRSNF. The defaults are those of its aniso configuration (x4)."""

    restorer: RRDBConfig = RRDBConfig()
    """The RRDB network."""
    unet: BlindSRSNFUNetConfig = BlindSRSNFUNetConfig()
    """The clean-image predictor."""
    schedule: ScheduleConfig = ScheduleConfig(name="cosine", steps=1000)
    """Noise levels of training."""

    def refuse(self, problem: Problem) -> str | None:
        return self.restorer.refuse_head("blindsrsnf", problem)

    def build(self, problem: Problem) -> BlindSRSNF:
        return BlindSRSNF(self, problem)


class BlindSRSNF(JointBlindDiffusion):
    """See the module and `BlindSRSNFConfig`."""

    prediction: ClassVar[Prediction] = "clean"
    restorer: RRDBNet

    def __init__(self, options: BlindSRSNFConfig, problem: Problem) -> None:
        super().__init__(options, problem, options.restorer.build(problem))
        self.unet = options.unet.build(problem.bands, options.restorer.width, options.contrast.code_channels)

    def estimate(self, lr: Tensor) -> Estimate:
        feature = self.restorer.trunk(lr)[-1]
        return Estimate(self.restorer.head(feature), feature)

    def predict(self, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
        return self.unet(x, time, estimate.feature, code)

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource, valid: Tensor | None = None) -> Tensor:
        """Return the mean squared error of the predicted clean image."""
        x, level = noised(self.schedule, hr, noise)
        return masked_mse(self.predict(x, level, estimate, code), hr, valid)

    def pixel_multiple(self) -> int:
        return lcm(self.restorer.unshuffle, self.lr_multiple(self.unet.fold))


def noised(schedule: DiscreteSchedule, clean: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor]:
    """Return (noisy image, level (B,)) of clean (B, C, H, W); every image has a step, and a level between the step's and the one before.

    Drawn in the published order: step, noise, level.
    """
    count = len(clean)
    step = (noise.uniform((count,), clean.device) * len(schedule)).floor().to(torch.int64)
    drawn = noise.normal(clean.shape, clean.device)
    # In the network's precision, as published: float32 rounds 1 - level^2 at the lowest levels by up to 4e-3 of its value.
    signal = schedule.on(clean.device, "signal_levels").to(clean.dtype)
    before, own = signal[step], signal[step + 1]
    level = noise.uniform((count,), clean.device) * (before - own) + own
    return noisy(clean, level, drawn), level
