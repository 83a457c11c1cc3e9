"""DiffBSR: a CNN estimate, and a diffusion in 20 steps over what it lacks, conditioned on the estimate and on a degradation code.

Source: Meng-333/DiffBSR, "Remote Sensing Image Blind Super-Resolution via a CNN-Guided Conditional Diffusion Model", IEEE JSTARS.
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

from rsdiff.config import UserError, config
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.losses.masked import masked_l1
from rsdiff.methods.base import Problem
from rsdiff.methods.joint_blind import Estimate, JointBlindConfig, JointBlindDiffusion, noisy
from rsdiff.networks.diffsr_unet import DiffSRUNet
from rsdiff.networks.diffusion_unet import SkeletonConfig
from rsdiff.networks.layers import Pooling
from rsdiff.networks.srdsran import SRDSRAN, Gates, enlargement


@config
class SRDSRANConfig:
    """The CNN that makes the first estimate."""

    width: int = 64
    """Channels of the trunk; at least 16, for the channel gates."""
    groups: int = 12
    """Residual groups."""
    blocks: int = 3
    """Residual attention blocks per group."""
    group_gates: Gates = "CA-SA"
    """Channel (CA) and spatial (SA) gates at the end of a group: one, one after the other (-), or both at once (|)."""
    block_gates: Gates = "CA-SA"
    """Gates at the end of a block."""
    global_gates: Gates = "CA-SA"
    """Channel and spatial self-attention before the enlargement."""
    pooling: Pooling = "Avg|Max"
    """What the gates look at: means, maxima, or both."""
    mix: bool = True
    """Follow gates in a chain by a 1x1 convolution."""

    def __post_init__(self) -> None:
        if self.width < 16 or self.groups < 1 or self.blocks < 1:
            raise UserError(f"width={self.width}, groups={self.groups}, blocks={self.blocks}: choose at least 16, 1 and 1.")

    def build(self, problem: Problem) -> SRDSRAN:
        """Return the network with fresh weights."""
        return SRDSRAN(
            in_channels=problem.lr_bands,
            out_channels=problem.bands,
            width=self.width,
            groups=self.groups,
            blocks=self.blocks,
            group_gates=self.group_gates,
            block_gates=self.block_gates,
            global_gates=self.global_gates,
            pooling=self.pooling,
            mix=self.mix,
            scale=int(problem.scale),
        )


@config
class DiffSRUNetConfig(SkeletonConfig):
    """DiffBSR's noise predictor; the UC Merced recipe has dropout 0.2."""

    keep_unused: bool = False
    """Own the convolutions that published checkpoints list but never apply, so that an export equals the file."""

    def __post_init__(self) -> None:
        SkeletonConfig.__post_init__(self)
        if self.width * self.multipliers[-1] < 16:
            raise UserError(f"the deepest level has {self.width * self.multipliers[-1]} channels; its gates need 16: raise width.")

    def build(self, problem: Problem, code_channels: int) -> DiffSRUNet:
        """Return the network with fresh weights."""
        return DiffSRUNet(
            in_channels=2 * problem.bands,
            out_channels=problem.bands,
            code_channels=code_channels,
            keep_unused=self.keep_unused,
            **self.skeleton(),
        )


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
        return refuse_scale("diffbsr", problem)

    def build(self, problem: Problem) -> DiffBSR:
        return DiffBSR(self, problem)


class DiffBSR(JointBlindDiffusion):
    """See the module and `DiffBSRConfig`."""

    samples_residual = True

    def __init__(self, options: DiffBSRConfig, problem: Problem) -> None:
        super().__init__(options, problem, options.restorer.build(problem))
        self.unet = options.unet.build(problem, options.contrast.code_channels)

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


def refuse_scale(model: str, problem: Problem) -> str | None:
    """Return a sentence where SRDSRAN cannot enlarge by the problem's scale, else None."""
    try:
        if problem.scale == int(problem.scale):
            enlargement(int(problem.scale))
            return None
    except ValueError:
        pass
    return f"model {model} enlarges by 2, 3, 4, 8 or 9 and the scale is {problem.scale:g}; set scale to one of them."
