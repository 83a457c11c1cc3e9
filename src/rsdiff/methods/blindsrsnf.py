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

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import config
from rsdiff.diffusion.denoisers import X0Denoiser
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.joint_blind import ContrastConfig, Estimate, JointBlindDiffusion
from rsdiff.methods.rrdb import RRDBConfig
from rsdiff.networks.blindsrsnf_unet import BlindSRSNFUNet


@config
class BlindSRSNFUNetConfig:
    """The clean-image predictor."""

    width: int = 64
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """Channels of each level in units of `width`; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    norm_groups: int = 32
    """Groups of every GroupNorm."""
    dropout: float = 0.0
    """Dropout in every residual block; without effect in the published network (see normalise_second)."""
    attention_levels: tuple[int, ...] = ()
    """Levels with self-attention, from 0; the middle always has it."""
    fold: int = 2
    """The image is taken apart into cells of fold x fold pixels, so that the U-Net runs at a fraction of the size."""
    normalise_second: bool = False
    """Normalise before the degradation-aware convolution. The published code computes that and throws the result away (False)."""
    checkpointing: bool = False
    """Recompute the activations of each block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        if not self.multipliers or min(self.multipliers) < 1 or self.blocks < 1 or self.fold < 1:
            raise ValueError(
                f"multipliers={list(self.multipliers)}, blocks={self.blocks}, fold={self.fold} make no network; "
                "choose numbers of at least 1."
            )
        if self.width % 2 or self.width < 1 or any(m * self.width % self.norm_groups for m in (1, *self.multipliers)):
            raise ValueError(f"width={self.width} must be even and a multiple of norm_groups={self.norm_groups}.")
        if any(not 0 <= level < len(self.multipliers) for level in self.attention_levels):
            raise ValueError(f"attention_levels={list(self.attention_levels)}: the levels are 0 to {len(self.multipliers) - 1}.")
        if self.dropout and not self.normalise_second:
            raise ValueError(f"dropout={self.dropout} has no effect with normalise_second=false; set one of them.")

    def build(self, problem: Problem, feature_channels: int, code_channels: int) -> BlindSRSNFUNet:
        """Return the network with fresh weights."""
        return BlindSRSNFUNet(
            bands=problem.bands,
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            norm_groups=self.norm_groups,
            dropout=self.dropout,
            attention_levels=self.attention_levels,
            fold=self.fold,
            feature_channels=feature_channels,
            code_channels=code_channels,
            normalise_second=self.normalise_second,
            checkpointing=self.checkpointing,
        )


@config
class BlindSRSNFConfig(MethodConfig):
    """BlindSRSNF. The defaults are those of its aniso configuration (x4)."""

    restorer: RRDBConfig = RRDBConfig()
    """The RRDB network."""
    unet: BlindSRSNFUNetConfig = BlindSRSNFUNetConfig()
    """The clean-image predictor."""
    contrast: ContrastConfig = ContrastConfig()
    """The degradation encoder."""
    schedule: ScheduleConfig = ScheduleConfig(name="cosine", steps=1000)
    """Noise levels of training."""
    pretrain_steps: int = 0
    """Steps that train RRDB and encoder without the diffusion loss first; 0 in every published configuration."""

    @property
    def views(self) -> int:
        return 2

    def refuse(self, problem: Problem) -> str | None:
        return refuse_scale("blindsrsnf", problem)

    def build(self, problem: Problem) -> BlindSRSNF:
        return BlindSRSNF(self, problem)


class BlindSRSNF(JointBlindDiffusion):
    """See the module and `BlindSRSNFConfig`."""

    def __init__(self, options: BlindSRSNFConfig, problem: Problem) -> None:
        super().__init__()
        self.bands = problem.bands
        self.scale = int(problem.scale)
        self.contrast_weight = options.contrast.weight
        self.pretrain_steps = options.pretrain_steps
        self.schedule = options.schedule.build()
        self.restorer = options.restorer.build(problem)
        self.contrast = options.contrast.build(problem.lr_bands)
        self.unet = options.unet.build(problem, options.restorer.width, options.contrast.code_channels)

    def estimate(self, lr: Tensor) -> Estimate:
        feature = self.restorer.trunk(lr)[-1]
        return Estimate(self.restorer.head(feature), feature)

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource) -> Tensor:
        """Return the mean squared error of the predicted clean image."""
        noisy, level = noised(self.schedule, hr, noise)
        predicted = self.unet(noisy, level, estimate.feature, code)
        return F.mse_loss(predicted, hr)

    def denoiser(self, estimate: Estimate, code: Tensor) -> X0Denoiser:
        """Return the U-Net as a denoiser of images in [-1, 1]."""

        def predict(x: Tensor, level: Tensor) -> Tensor:
            return self.unet(x, level, estimate.feature, code)

        return X0Denoiser(predict, self.schedule, time="level")

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
    signal = schedule.signal_levels.to(clean)
    before, own = signal[step], signal[step + 1]
    level = noise.uniform((count,), clean.device) * (before - own) + own
    shares = torch.stack([level, (1 - level.square()).sqrt()])[..., None, None, None]
    return shares[0] * clean + shares[1] * drawn, level


def refuse_scale(model: str, problem: Problem) -> str | None:
    """Return a sentence where BasicSR's RRDBNet cannot enlarge by the problem's scale, else None."""
    if problem.scale in (1, 2, 4):
        return None
    return f"model {model} enlarges by 1, 2 or 4 and the scale is {problem.scale:g}; set scale to one of them."
