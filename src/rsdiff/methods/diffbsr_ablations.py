"""The two ablations of DiffBSR: its joint training around SRDiff's U-Net and around the plain DDPM U-Net of SR3's twin.

Source: Meng-333/DiffBSR, models/SRDiffBSR_model.py and models/DDPM_model.py. In both the degradation code is trained by its contrastive
loss but no U-Net sees it.

Unlike the published code: the DDPM ablation returns the whole batch (published: its last image).
"""

from __future__ import annotations

from math import lcm

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.ranges import to_unit_range
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.losses.masked import masked_l1
from rsdiff.methods.base import Problem
from rsdiff.methods.joint_blind import Estimate, JointBlindConfig, JointBlindDiffusion, noisy
from rsdiff.networks.ddpm_unet import DDPMUNetConfig
from rsdiff.networks.rrdb import RRDBConfig, RRDBNet
from rsdiff.networks.srdiff_unet import EVERY, SRDiffUNet
from rsdiff.networks.srdsran import SRDSRANConfig


@config
class SRDiffUNetConfig:
    """SRDiff's noise predictor and the small RRDB network that conditions it."""

    width: int = 64
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    """Channels of each level in units of `width`; the image is halved between levels."""
    condition_width: int = 32
    """Channels of the condition network."""
    condition_blocks: int = 8
    """RRDBs of the condition network; one less than a multiple of 3, because every third feature (and the last) is shown."""
    condition_growth: int = 16
    """Channels each dense convolution of the condition network adds."""

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 2 or not self.multipliers or min(self.multipliers) < 1:
            raise UserError(f"width={self.width}, multipliers={list(self.multipliers)}: choose an even width of 4 or more, and 1 or more.")
        if self.condition_blocks < 2 or (self.condition_blocks + 1) % EVERY or min(self.condition_width, self.condition_growth) < 1:
            raise UserError(f"condition_blocks={self.condition_blocks} is not 2, 5, 8, ...; choose one of these.")

    def build(self, problem: Problem) -> SRDiffUNet:
        """Return the U-Net with fresh weights."""
        features = (self.condition_blocks + 1) // EVERY
        return SRDiffUNet(
            bands=problem.bands,
            width=self.width,
            multipliers=self.multipliers,
            feature_channels=features * self.condition_width,
            scale=int(problem.scale),
        )

    def build_condition(self, problem: Problem) -> RRDBNet:
        """Return the condition network; its head is never used but belongs to the checkpoint."""
        sizes = RRDBConfig(width=self.condition_width, blocks=self.condition_blocks, growth=self.condition_growth)
        return RRDBNet(sizes, problem.lr_bands, problem.bands)


@config
class DiffBSRSRDiffConfig(JointBlindConfig):
    """The ablation of DiffBSR with SRDiff's networks: RRDBNet estimate, residual diffusion in 100 steps."""

    restorer: RRDBConfig = RRDBConfig()
    """The RRDB network that makes the first estimate."""
    unet: SRDiffUNetConfig = SRDiffUNetConfig()
    """The noise predictor and its condition network."""
    schedule: ScheduleConfig = ScheduleConfig(name="cosine", steps=100)
    """Noise levels of training."""

    def refuse(self, problem: Problem) -> str | None:
        if problem.scale == 1:
            return "model diffbsr_srdiff enlarges by 2 or 4 and the scale is 1; set scale to one of them."
        return self.restorer.refuse_head("diffbsr_srdiff", problem)

    def build(self, problem: Problem) -> DiffBSRSRDiff:
        return DiffBSRSRDiff(self, problem)


@config
class PlainUNetConfig(DDPMUNetConfig):
    """The plain noise predictor: SR3's skeleton with an integer step as its time."""

    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    """Channels of each level in units of `width`; the image is halved between levels."""
    dropout: float = 0.2
    """Dropout in every residual block."""
    nominal_size: int = 256
    """Image size from which the resolutions of the levels are counted to find those with attention, whatever the size of the images."""


@config
class DiffBSRDDPMConfig(JointBlindConfig):
    """The ablation of DiffBSR with a plain DDPM of 1000 steps on the image, conditioned on the CNN's estimate."""

    restorer: SRDSRANConfig = SRDSRANConfig()
    """The CNN that makes the first estimate."""
    unet: PlainUNetConfig = PlainUNetConfig()
    """The noise predictor."""
    schedule: ScheduleConfig = ScheduleConfig(name="linear", steps=1000, start=1e-4, end=0.02)
    """Noise levels of training."""

    def refuse(self, problem: Problem) -> str | None:
        return self.restorer.refuse("diffbsr_ddpm", problem)

    def build(self, problem: Problem) -> DiffBSRDDPM:
        return DiffBSRDDPM(self, problem)


class DiffBSRSRDiff(JointBlindDiffusion):
    """See the module and `DiffBSRSRDiffConfig`."""

    samples_residual = True
    time = "index"
    restorer: RRDBNet

    def __init__(self, options: DiffBSRSRDiffConfig, problem: Problem) -> None:
        super().__init__(options, problem, options.restorer.build(problem))
        self.condition = options.unet.build_condition(problem)
        self.unet = options.unet.build(problem)
        # The head of the condition network makes an image nobody looks at: without a gradient it must not sit in the optimiser.
        for part in (self.condition.conv_up, self.condition.conv_hr, self.condition.conv_last):
            part.requires_grad_(False)

    def estimate(self, lr: Tensor) -> Estimate:
        features = self.condition.trunk(to_unit_range(lr))  # this network works in [0, 1]
        return Estimate(self.restorer(lr), torch.cat(features[EVERY - 1 :: EVERY], dim=1))

    def predict(self, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
        return self.unet(x, time, estimate.feature)

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource, valid: Tensor | None = None) -> Tensor:
        return noise_error(self, hr, estimate, code, noise, valid)

    def pixel_multiple(self) -> int:
        return lcm(self.restorer.unshuffle, self.lr_multiple(self.unet.size_multiple))


class DiffBSRDDPM(JointBlindDiffusion):
    """See the module and `DiffBSRDDPMConfig`."""

    time = "index"

    def __init__(self, options: DiffBSRDDPMConfig, problem: Problem) -> None:
        super().__init__(options, problem, options.restorer.build(problem))
        self.unet = options.unet.build(2 * problem.bands, problem.bands)

    def predict(self, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
        return self.unet(torch.cat([estimate.feature.to(x.dtype), x], dim=1), time)

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource, valid: Tensor | None = None) -> Tensor:
        return noise_error(self, hr, estimate, code, noise, valid)

    def pixel_multiple(self) -> int:
        return self.lr_multiple(self.unet.size_multiple)


def noise_error(
    method: JointBlindDiffusion, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource, valid: Tensor | None = None
) -> Tensor:
    """Return the mean absolute error of the predicted noise; every image has a step of its own, drawn before the noise."""
    step = noise.integers(0, len(method.schedule), (len(hr),), hr.device)
    drawn = noise.normal(hr.shape, hr.device)
    level = method.schedule.on(hr.device, "signal_levels")[step + 1]
    return masked_l1(method.predict(noisy(method.target(hr, estimate), level, drawn), step, estimate, code), drawn, valid)
