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

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, config
from rsdiff.config.reading import require_at_least
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.losses.images import masked_mse
from rsdiff.methods.base import Problem
from rsdiff.methods.joint_blind import BlindDiffusion, Drawn, Estimate, JointBlind, JointBlindConfig
from rsdiff.networks.blindsrsnf_unet import BlindSRSNFUNetConfig
from rsdiff.networks.rrdb import RRDBConfig


def networks(options: BlindSRSNFConfig, problem: Problem) -> dict[str, nn.Module]:
    """Return the U-Net with fresh weights."""
    return {"unet": options.unet.build(problem.bands, options.restorer.width, options.contrast.code_channels)}


def estimate(method: JointBlind, lr: Tensor) -> Estimate:
    """Return the RRDB network's image, and its trunk's feature as the condition."""
    feature = method.restorer.trunk(lr)[-1]
    return Estimate(method.restorer.head(feature), feature)


def predict(method: JointBlind, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
    """Return the predicted clean image."""
    return method.unet(x, time, estimate.feature, code)


def draw(schedule: DiscreteSchedule, clean: Tensor, noise: NoiseSource) -> Drawn:
    """Draw a step for every image and a level between the step's and the one before, in the published order: step, noise, level."""
    count = len(clean)
    step = (noise.uniform((count,), clean.device) * len(schedule)).floor().to(torch.int64)
    drawn = noise.normal(clean.shape, clean.device)
    # In the network's precision, as published: float32 rounds 1 - level^2 at the lowest levels by up to 4e-3 of its value.
    signal = schedule.on(clean.device, "signal_levels").to(clean.dtype)
    before, own = signal[step], signal[step + 1]
    level = noise.uniform((count,), clean.device) * (before - own) + own
    return Drawn(drawn, level, level)


@config
class BlindSRSNFConfig(JointBlindConfig):
    """BlindSRSNF. The defaults are those of its aniso configuration (x4)."""

    diffusion: ClassVar[BlindDiffusion] = BlindDiffusion(
        networks=networks, estimate=estimate, predict=predict, draw=draw, error=masked_mse, prediction="clean"
    )

    restorer: RRDBConfig = RRDBConfig()
    """The RRDB network."""
    unet: BlindSRSNFUNetConfig = BlindSRSNFUNetConfig()
    """The clean-image predictor."""
    schedule: ScheduleConfig = ScheduleConfig(name="cosine", steps=1000)
    """Noise levels of training."""

    snr_limit: Annotated[float, Ours("training")] = 1.0
    """Weight of the clean image's squared error at a noise level: its signal-to-noise ratio, at least 1 and at most this; 1 is published.

    Unweighted, nearly all of the error is made at high noise: a network can have all but the least loss and know nothing of the levels
    that decide texture (docs/trained.md). Above 1 it is the Min-SNR weighting of arXiv 2303.09556 with the floor of arXiv 2202.00512.
    """

    def __post_init__(self) -> None:
        require_at_least(self, snr_limit=1.0)

    def loss_weight(self, signal: Tensor) -> Tensor | None:
        if self.snr_limit == 1:
            return None
        return (signal.square() / (1 - signal.square())).clamp(1, self.snr_limit)

    def refuse(self, problem: Problem) -> str | None:
        return self.restorer.refuse_head("blindsrsnf", problem)

    def build_restorer(self, problem: Problem) -> nn.Module:
        return self.restorer.build(problem)
