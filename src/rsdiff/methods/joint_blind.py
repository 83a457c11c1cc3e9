"""What the blind diffusion methods share: a restorer, a contrastive degradation encoder and a U-Net, trained together from scratch.

Inside, images live in [-1, 1]. A training image gives two crops under one degradation: the first is restored and is the query, the second
is the key of the contrastive loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.ranges import to_signed_range, to_unit_range
from rsdiff.data.sample import Batch
from rsdiff.diffusion.denoisers import Denoiser
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteSchedule
from rsdiff.losses.contrastive import MomentumContrast, contrastive_loss
from rsdiff.methods.base import Losses, Method, Stage
from rsdiff.methods.whole_scale import require_scale
from rsdiff.networks.degradation_encoder import DegradationEncoder


@config
class ContrastConfig:
    """The degradation encoder and its momentum contrast."""

    width: int = 64
    """Channels of the encoder's first convolutions; the degradation code has four times as many."""
    queue_size: int = 8192
    """Earlier keys that serve as negatives; a multiple of the batch size."""
    momentum: float = 0.999
    """Share of the key encoder that each step keeps."""
    temperature: float = 0.07
    """Divisor of the logits."""
    weight: float = 0.05
    """Factor of the contrastive loss (published configurations without the key use 0.01)."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.queue_size < 1:
            raise ValueError(f"width={self.width} and queue_size={self.queue_size} were given; both must be at least 1.")
        if not 0 <= self.momentum <= 1 or self.temperature <= 0:
            raise ValueError(f"momentum={self.momentum}, temperature={self.temperature}: choose 0 to 1, and a positive temperature.")

    @property
    def code_channels(self) -> int:
        """Length of the degradation code."""
        return 4 * self.width

    def build(self, lr_bands: int) -> MomentumContrast:
        """Return the encoder with its key copy and queue."""
        encoder = DegradationEncoder(lr_bands, self.width)
        return MomentumContrast(encoder, self.code_channels, self.queue_size, self.momentum, self.temperature)


@dataclass
class Estimate:
    """What the restorer makes of an LR image.

    image    (B, C, H, W) around [-1, 1], unbounded
    feature  what the U-Net is conditioned on besides the degradation code; its shape is the method's affair
    """

    image: Tensor
    feature: Tensor


class JointBlindDiffusion(Method):
    """Joint training and sampling; subclasses say how the three networks meet.

    They set `contrast`, `schedule`, `bands`, `scale`, `contrast_weight` and `pretrain_steps`.
    """

    contrast: MomentumContrast
    schedule: DiscreteSchedule
    bands: int
    scale: int
    contrast_weight: float
    pretrain_steps: int
    is_pretraining: bool = False

    def estimate(self, lr: Tensor) -> Estimate:
        """Return the restorer's estimate of lr (B, c, h, w) in [-1, 1]."""
        raise NotImplementedError

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource) -> Tensor:
        """Return the U-Net's loss for hr (B, C, H, W) in [-1, 1]; gradients reach restorer and encoder where the method lets them."""
        raise NotImplementedError

    def denoiser(self, estimate: Estimate, code: Tensor) -> Denoiser:
        """Return the U-Net as a denoiser with its conditions bound."""
        raise NotImplementedError

    def compose(self, sampled: Tensor, estimate: Estimate) -> Tensor:
        """Return the image in [-1, 1] from what was sampled; the sample itself unless the method samples a residual."""
        return sampled

    def stages(self) -> Sequence[Stage]:
        joint = Stage("joint", tuple(self.groups()))
        if self.pretrain_steps == 0:
            return [joint]
        return [Stage("pretrain", tuple(self.groups()), self.pretrain_steps), joint]

    def start_stage(self, stage: Stage) -> None:
        self.is_pretraining = stage.name == "pretrain"

    def losses(self, batch: Batch, group: str, noise: NoiseSource) -> Losses:
        hr, lr = to_signed_range(batch.need("hr")), to_signed_range(batch.need("lr"))
        require_scale(batch, self.scale)
        code, logits = self.contrast.contrast(lr, to_signed_range(batch.need("lr_views")[:, 0]))
        estimate = self.estimate(lr)
        terms = {
            "contrast": self.contrast_weight * contrastive_loss(logits),
            "restorer": F.l1_loss(estimate.image, hr),
        }
        if not self.is_pretraining:
            terms["diffusion"] = self.diffusion_loss(hr, estimate, code, noise)
        total = torch.stack(list(terms.values())).sum()
        return Losses(total, {name: value.detach() for name, value in terms.items()})

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        lr = to_signed_range(batch.need("lr"))
        code = self.contrast.code(lr) if batch.code is None else batch.code
        estimate = self.estimate(lr)
        shape = (len(lr), self.bands, *batch.size)
        sampled = sample(sampler, self.denoiser(estimate, code), shape, noise, device=lr.device, image=self.start_image(estimate))
        return to_unit_range(self.compose(sampled.to(lr.dtype), estimate))

    @torch.no_grad()
    def degradation_code(self, batch: Batch) -> Tensor | None:
        return self.contrast.code(to_signed_range(batch.need("lr")))

    def start_image(self, estimate: Estimate) -> Tensor:
        """Return what samplers that start from an image start from: the restorer's estimate unless the method samples a residual."""
        return estimate.image

    def lr_multiple(self, hr_multiple: int) -> int:
        """Return what LR sides must be multiples of so that HR sides are multiples of `hr_multiple`."""
        return hr_multiple // gcd(hr_multiple, self.scale)
