"""The two ablations of DiffBSR: its joint training around SRDiff's U-Net and around the plain DDPM U-Net of SR3's twin.

Source: Meng-333/DiffBSR, models/SRDiffBSR_model.py and models/DDPM_model.py. In both the degradation code is trained by its contrastive
loss but no U-Net sees it.

Unlike the published code: the DDPM ablation returns the whole batch (published: its last image).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.data.ranges import to_unit_range
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.joint_blind import BlindDiffusion, Drawn, Estimate, JointBlind, JointBlindConfig
from rsdiff.networks.ddpm_unet import DDPMUNetConfig
from rsdiff.networks.rrdb import RRDBConfig
from rsdiff.networks.srdiff_unet import EVERY, SRDiffUNetConfig
from rsdiff.networks.srdsran import SRDSRANConfig


def draw(schedule: DiscreteSchedule, clean: Tensor, noise: NoiseSource) -> Drawn:
    """Draw a step for every image, which the U-Net is told, before the noise."""
    step = noise.integers(0, len(schedule), (len(clean),), clean.device)
    return Drawn(noise.normal(clean.shape, clean.device), schedule.on(clean.device, "signal_levels")[step + 1], step)


def srdiff_networks(options: DiffBSRSRDiffConfig, problem: Problem) -> dict[str, nn.Module]:
    """Return the condition network and the U-Net with fresh weights."""
    condition = options.unet.build_condition(problem)
    # Its head makes an image nobody looks at: without a gradient it must not sit in the optimiser.
    for part in (condition.conv_up, condition.conv_hr, condition.conv_last):
        part.requires_grad_(False)
    return {"condition": condition, "unet": options.unet.build(problem)}


def srdiff_estimate(method: JointBlind, lr: Tensor) -> Estimate:
    """Return the restorer's image, and features of the condition network, which works in [0, 1]."""
    condition: Any = method.get_submodule("condition")
    features = condition.trunk(to_unit_range(lr))
    return Estimate(method.restorer(lr), torch.cat(features[EVERY - 1 :: EVERY], dim=1))


def srdiff_predict(method: JointBlind, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
    """Return the predicted noise."""
    return method.unet(x, time, estimate.feature)


@config
class DiffBSRSRDiffConfig(JointBlindConfig):
    """The ablation of DiffBSR with SRDiff's networks: RRDBNet estimate, residual diffusion in 100 steps."""

    diffusion: ClassVar[BlindDiffusion] = BlindDiffusion(
        networks=srdiff_networks, estimate=srdiff_estimate, predict=srdiff_predict, draw=draw, time="index", base="estimate"
    )

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

    def build_restorer(self, problem: Problem) -> nn.Module:
        return self.restorer.build(problem)


@config
class PlainUNetConfig(DDPMUNetConfig):
    """The plain noise predictor: SR3's skeleton with an integer step as its time."""

    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    """Channels of each level in units of `width`; the image is halved between levels."""
    dropout: float = 0.2
    """Dropout in every residual block."""
    nominal_size: int = 256
    """Image size from which the resolutions of the levels are counted to find those with attention, whatever the size of the images."""


def ddpm_networks(options: DiffBSRDDPMConfig, problem: Problem) -> dict[str, nn.Module]:
    """Return the U-Net with fresh weights."""
    return {"unet": options.unet.build(2 * problem.bands, problem.bands)}


def ddpm_predict(method: JointBlind, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
    """Return the predicted noise: the U-Net is shown the estimate beside x."""
    return method.unet(torch.cat([estimate.feature.to(x.dtype), x], dim=1), time)


@config
class DiffBSRDDPMConfig(JointBlindConfig):
    """The ablation of DiffBSR with a plain DDPM of 1000 steps on the image, conditioned on the CNN's estimate."""

    diffusion: ClassVar[BlindDiffusion] = BlindDiffusion(networks=ddpm_networks, predict=ddpm_predict, draw=draw, time="index")

    restorer: SRDSRANConfig = SRDSRANConfig()
    """The CNN that makes the first estimate."""
    unet: PlainUNetConfig = PlainUNetConfig()
    """The noise predictor."""
    schedule: ScheduleConfig = ScheduleConfig(name="linear", steps=1000, start=1e-4, end=0.02)
    """Noise levels of training."""

    def refuse(self, problem: Problem) -> str | None:
        return self.restorer.refuse("diffbsr_ddpm", problem)

    def build_restorer(self, problem: Problem) -> nn.Module:
        return self.restorer.build(problem)
