"""The two ablations of DiffBSR: its joint training around SRDiff's U-Net and around the plain DDPM U-Net of SR3's twin.

Source: Meng-333/DiffBSR, models/SRDiffBSR_model.py and models/DDPM_model.py. In both the degradation code is trained by its contrastive
loss but no U-Net sees it.

Unlike the published code: the DDPM ablation returns the whole batch (published: its last image).
"""

from __future__ import annotations

from math import lcm

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.ranges import to_unit_range
from rsdiff.diffusion.denoisers import EpsDenoiser
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.methods import blindsrsnf
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.diffbsr import SRDSRANConfig, add_residual, refuse_scale, residual
from rsdiff.methods.joint_blind import ContrastConfig, Estimate, JointBlindDiffusion
from rsdiff.methods.rrdb import RRDBConfig
from rsdiff.networks.ddpm_unet import DDPMUNet
from rsdiff.networks.rrdb import RRDBNet
from rsdiff.networks.srdiff_unet import EVERY, SRDiffUNet


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
            raise ValueError(f"width={self.width}, multipliers={list(self.multipliers)}: choose an even width of 4 or more, and 1 or more.")
        if self.condition_blocks < 2 or (self.condition_blocks + 1) % EVERY or min(self.condition_width, self.condition_growth) < 1:
            raise ValueError(f"condition_blocks={self.condition_blocks} is not 2, 5, 8, ...; choose one of these.")

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
        return RRDBNet(problem.lr_bands, problem.bands, self.condition_width, self.condition_blocks, self.condition_growth)


@config
class DiffBSRSRDiffConfig(MethodConfig):
    """The ablation of DiffBSR with SRDiff's networks: RRDBNet estimate, residual diffusion in 100 steps."""

    restorer: RRDBConfig = RRDBConfig()
    """The RRDB network that makes the first estimate."""
    unet: SRDiffUNetConfig = SRDiffUNetConfig()
    """The noise predictor and its condition network."""
    contrast: ContrastConfig = ContrastConfig()
    """The degradation encoder, trained for comparison only."""
    schedule: ScheduleConfig = ScheduleConfig(name="cosine", steps=100)
    """Noise levels of training."""
    pretrain_steps: int = 0
    """Steps that train RRDB and encoder without the diffusion loss first."""

    @property
    def views(self) -> int:
        return 2

    def refuse(self, problem: Problem) -> str | None:
        if problem.scale == 1:
            return "model diffbsr_srdiff enlarges by 2 or 4 and the scale is 1; set scale to one of them."
        return blindsrsnf.refuse_scale("diffbsr_srdiff", problem)

    def build(self, problem: Problem) -> DiffBSRSRDiff:
        return DiffBSRSRDiff(self, problem)


@config
class DDPMUNetConfig:
    """The plain noise predictor: SR3's skeleton told an integer step."""

    width: int = 64
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    """Channels of each level in units of `width`; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    norm_groups: int = 32
    """Groups of every GroupNorm."""
    dropout: float = 0.2
    """Dropout in every residual block."""
    nominal_size: int = 256
    """Image size from which the resolutions of the levels are counted to find those with attention, whatever the size of the images."""
    attention_sizes: tuple[int, ...] = (16,)
    """Counted resolutions with attention; the middle always has it."""
    checkpointing: bool = False
    """Recompute the activations of each block in the backward pass: less memory, about a third more time."""

    def build(self, problem: Problem) -> DDPMUNet:
        """Return the network with fresh weights."""
        return DDPMUNet(
            in_channels=2 * problem.bands,
            out_channels=problem.bands,
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            norm_groups=self.norm_groups,
            dropout=self.dropout,
            nominal_size=self.nominal_size,
            attention_sizes=self.attention_sizes,
            checkpointing=self.checkpointing,
        )


@config
class DiffBSRDDPMConfig(MethodConfig):
    """The ablation of DiffBSR with a plain DDPM of 1000 steps on the image, conditioned on the CNN's estimate."""

    restorer: SRDSRANConfig = SRDSRANConfig()
    """The CNN that makes the first estimate."""
    unet: DDPMUNetConfig = DDPMUNetConfig()
    """The noise predictor."""
    contrast: ContrastConfig = ContrastConfig()
    """The degradation encoder, trained for comparison only."""
    schedule: ScheduleConfig = ScheduleConfig(name="linear", steps=1000, start=1e-4, end=0.02)
    """Noise levels of training."""
    pretrain_steps: int = 0
    """Steps that train CNN and encoder without the diffusion loss first."""

    @property
    def views(self) -> int:
        return 2

    def refuse(self, problem: Problem) -> str | None:
        return refuse_scale("diffbsr_ddpm", problem)

    def build(self, problem: Problem) -> DiffBSRDDPM:
        return DiffBSRDDPM(self, problem)


class DiffBSRSRDiff(JointBlindDiffusion):
    """See the module and `DiffBSRSRDiffConfig`."""

    def __init__(self, options: DiffBSRSRDiffConfig, problem: Problem) -> None:
        super().__init__()
        self.bands = problem.bands
        self.scale = int(problem.scale)
        self.contrast_weight = options.contrast.weight
        self.pretrain_steps = options.pretrain_steps
        self.schedule = options.schedule.build()
        self.restorer = options.restorer.build(problem)
        self.contrast = options.contrast.build(problem.lr_bands)
        self.condition = options.unet.build_condition(problem)
        self.unet = options.unet.build(problem)
        # The head of the condition network makes an image nobody looks at: without a gradient it must not sit in the optimiser.
        for part in (self.condition.conv_up, self.condition.conv_hr, self.condition.conv_last):
            part.requires_grad_(False)

    def estimate(self, lr: Tensor) -> Estimate:
        features = self.condition.trunk(to_unit_range(lr))  # this network works in [0, 1]
        return Estimate(self.restorer(lr), torch.cat(features[EVERY - 1 :: EVERY], dim=1))

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource) -> Tensor:
        """Return the mean absolute error of the predicted noise of the residual; every image has a step of its own."""
        step, noisy, target = noised(self.schedule.signal_levels, residual(hr, estimate.image), noise)
        return F.l1_loss(self.unet(noisy, step, estimate.feature), target)

    def denoiser(self, estimate: Estimate, code: Tensor) -> EpsDenoiser:
        """Return the U-Net as a denoiser of residuals in [-1, 1]."""

        def predict(x: Tensor, step: Tensor) -> Tensor:
            return self.unet(x, step, estimate.feature)

        return EpsDenoiser(predict, self.schedule, time="index")

    def compose(self, sampled: Tensor, estimate: Estimate) -> Tensor:
        return add_residual(sampled, estimate.image)

    def start_image(self, estimate: Estimate) -> Tensor:
        return torch.zeros_like(estimate.image)

    def pixel_multiple(self) -> int:
        return lcm(self.restorer.unshuffle, self.lr_multiple(self.unet.size_multiple))


class DiffBSRDDPM(JointBlindDiffusion):
    """See the module and `DiffBSRDDPMConfig`."""

    def __init__(self, options: DiffBSRDDPMConfig, problem: Problem) -> None:
        super().__init__()
        self.bands = problem.bands
        self.scale = int(problem.scale)
        self.contrast_weight = options.contrast.weight
        self.pretrain_steps = options.pretrain_steps
        self.schedule = options.schedule.build()
        self.restorer = options.restorer.build(problem)
        self.contrast = options.contrast.build(problem.lr_bands)
        self.unet = options.unet.build(problem)

    def estimate(self, lr: Tensor) -> Estimate:
        image = self.restorer(lr)
        return Estimate(image, image)

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource) -> Tensor:
        """Return the mean absolute error of the predicted noise of the image; every image has a step of its own."""
        step, noisy, target = noised(self.schedule.signal_levels, hr, noise)
        return F.l1_loss(self.unet(torch.cat([estimate.feature, noisy], dim=1), step), target)

    def denoiser(self, estimate: Estimate, code: Tensor) -> EpsDenoiser:
        """Return the U-Net as a denoiser of images in [-1, 1]."""

        def predict(x: Tensor, step: Tensor) -> Tensor:
            return self.unet(torch.cat([estimate.feature.to(x.dtype), x], dim=1), step)

        return EpsDenoiser(predict, self.schedule, time="index")

    def pixel_multiple(self) -> int:
        return self.lr_multiple(self.unet.size_multiple)


def noised(signal_levels: Tensor, clean: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a step per image and noise; return (step (B,) int64, noisy image, noise).

    signal_levels  (T+1,), see DiscreteSchedule
    clean          (B, C, H, W), what is diffused
    """
    step = noise.integers(0, len(signal_levels) - 1, (len(clean),), clean.device)
    drawn = noise.normal(clean.shape, clean.device)
    level = signal_levels.to(clean.device)[step + 1]
    shares = torch.stack([level, (1 - level.square()).sqrt()]).to(clean.dtype)[..., None, None, None]
    return step, shares[0] * clean + shares[1] * drawn, drawn
