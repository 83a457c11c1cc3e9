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
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import config
from rsdiff.diffusion.denoisers import EpsDenoiser
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.joint_blind import ContrastConfig, Estimate, JointBlindDiffusion
from rsdiff.networks.diffsr_unet import DiffSRUNet
from rsdiff.networks.gates import Pooling
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
            raise ValueError(f"width={self.width}, groups={self.groups}, blocks={self.blocks}: choose at least 16, 1 and 1.")

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
class DiffSRUNetConfig:
    """DiffBSR's noise predictor."""

    width: int = 64
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Channels of each level in units of `width`; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks per level on the way down; one more on the way up."""
    norm_groups: int = 32
    """Groups of every GroupNorm."""
    dropout: float = 0.0
    """Dropout in every residual block (0.2 in the UC Merced recipe)."""
    keep_unused: bool = False
    """Own the convolutions that published checkpoints list but never apply, so that an export equals the file."""
    checkpointing: bool = False
    """Recompute the activations of each block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        if not self.multipliers or min(self.multipliers) < 1 or self.blocks < 1:
            raise ValueError(f"multipliers={list(self.multipliers)}, blocks={self.blocks} make no network; choose numbers of at least 1.")
        if self.width % 2 or self.width < 1 or any(m * self.width % self.norm_groups for m in (1, *self.multipliers)):
            raise ValueError(f"width={self.width} must be even and a multiple of norm_groups={self.norm_groups}.")
        if self.width * self.multipliers[-1] < 16:
            raise ValueError(f"the deepest level has {self.width * self.multipliers[-1]} channels; its gates need 16: raise width.")

    def build(self, problem: Problem, code_channels: int) -> DiffSRUNet:
        """Return the network with fresh weights."""
        return DiffSRUNet(
            in_channels=2 * problem.bands,
            out_channels=problem.bands,
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            norm_groups=self.norm_groups,
            dropout=self.dropout,
            code_channels=code_channels,
            keep_unused=self.keep_unused,
            checkpointing=self.checkpointing,
        )


@config
class DiffBSRConfig(MethodConfig):
    """DiffBSR. The defaults are those of its iso and aniso configurations (x4)."""

    restorer: SRDSRANConfig = SRDSRANConfig()
    """The CNN that makes the first estimate."""
    unet: DiffSRUNetConfig = DiffSRUNetConfig()
    """The noise predictor."""
    contrast: ContrastConfig = ContrastConfig()
    """The degradation encoder."""
    schedule: ScheduleConfig = ScheduleConfig(name="linear_cosine", steps=20, start=1e-6, end=0.01)
    """Noise levels of training."""
    pretrain_steps: int = 0
    """Steps that train CNN and encoder without the diffusion loss first; 0 in every published configuration."""

    @property
    def views(self) -> int:
        return 2

    def refuse(self, problem: Problem) -> str | None:
        return refuse_scale("diffbsr", problem)

    def build(self, problem: Problem) -> DiffBSR:
        return DiffBSR(self, problem)


class DiffBSR(JointBlindDiffusion):
    """See the module and `DiffBSRConfig`."""

    def __init__(self, options: DiffBSRConfig, problem: Problem) -> None:
        super().__init__()
        self.bands = problem.bands
        self.scale = int(problem.scale)
        self.contrast_weight = options.contrast.weight
        self.pretrain_steps = options.pretrain_steps
        self.schedule = options.schedule.build()
        self.restorer = options.restorer.build(problem)
        self.contrast = options.contrast.build(problem.lr_bands)
        self.unet = options.unet.build(problem, options.contrast.code_channels)

    def estimate(self, lr: Tensor) -> Estimate:
        image = self.restorer(lr)
        return Estimate(image, image)

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource) -> Tensor:
        """Return the mean absolute error of the predicted noise.

        One step t for the whole batch; the level of each image is uniform between the neighbouring levels of t (SR3).
        """
        count = len(hr)
        step = torch.full((count,), noise.shared_integer(1, len(self.schedule) + 1), device=hr.device)
        level = self.schedule.signal_between(step, noise.uniform((count,), hr.device))
        target = noise.normal(hr.shape, hr.device)
        shares = torch.stack([level, (1 - level.square()).sqrt()]).to(hr.dtype)[..., None, None, None]
        noisy = shares[0] * residual(hr, estimate.image) + shares[1] * target
        predicted = self.unet(torch.cat([estimate.feature, noisy], dim=1), level.to(hr.dtype), code)
        return F.l1_loss(predicted, target)

    def denoiser(self, estimate: Estimate, code: Tensor) -> EpsDenoiser:
        """Return the U-Net as a denoiser of residuals in [-1, 1]."""

        def predict(x: Tensor, level: Tensor) -> Tensor:
            return self.unet(torch.cat([estimate.feature.to(x.dtype), x], dim=1), level, code)

        return EpsDenoiser(predict, self.schedule, time="level")

    def compose(self, sampled: Tensor, estimate: Estimate) -> Tensor:
        return add_residual(sampled, estimate.image)

    def start_image(self, estimate: Estimate) -> Tensor:
        return torch.zeros_like(estimate.image)

    def pixel_multiple(self) -> int:
        return self.lr_multiple(self.unet.size_multiple)


def residual(image: Tensor, base: Tensor) -> Tensor:
    """Return clamp(2 (image - base), -1, 1), what is diffused; images in [-1, 1]."""
    return (2 * (image - base)).clamp(-1, 1)


def add_residual(sampled: Tensor, base: Tensor) -> Tensor:
    """Return base + clamp(sampled, -1, 1) / 2, not clamped."""
    return sampled.clamp(-1, 1) / 2 + base


def refuse_scale(model: str, problem: Problem) -> str | None:
    """Return a sentence where SRDSRAN cannot enlarge by the problem's scale, else None."""
    try:
        if problem.scale == int(problem.scale):
            enlargement(int(problem.scale))
            return None
    except ValueError:
        pass
    return f"model {model} enlarges by 2, 3, 4, 8 or 9 and the scale is {problem.scale:g}; set scale to one of them."
