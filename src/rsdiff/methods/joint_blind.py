"""What the blind diffusion methods share: a restorer, a contrastive degradation encoder and a U-Net, trained together from scratch.

Inside, images live in [-1, 1]. A training image gives two crops under one degradation: the first is restored and is the query, the second
is the key of the contrastive loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, config
from rsdiff.data.ranges import to_signed_range, to_unit_range
from rsdiff.data.sample import Batch
from rsdiff.diffusion.denoisers import Prediction, TimeInput, per_image
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser, ScheduleConfig
from rsdiff.losses.masked import masked_l1
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_scale
from rsdiff.networks.degradation_encoder import ContrastConfig, MomentumContrast, contrastive_loss


@config
class JointBlindConfig(MethodConfig):
    """What the configs of these methods share; each adds its restorer (`restorer`) and its U-Net (`unet`)."""

    contrast: ContrastConfig = ContrastConfig()
    """The degradation encoder."""
    schedule: ScheduleConfig
    """Noise levels of training."""
    pretrain_steps: Annotated[int, Ours("training")] = 0
    """Steps that train restorer and encoder without the diffusion loss first; 0 in every published configuration."""

    @property
    def views(self) -> int:
        return 2


@dataclass
class Estimate:
    """What the restorer makes of an LR image.

    image    (B, C, H, W) around [-1, 1], unbounded
    feature  what the U-Net is conditioned on besides the degradation code; its shape is the method's affair
    """

    image: Tensor
    feature: Tensor


class JointBlindDiffusion(Method):
    """Joint training and sampling; subclasses own the U-Net and say what it is shown and how its error counts.

    samples_residual  whether what is diffused is `residual`, the image less the estimate, or the image
    time              what the U-Net receives of the noise level
    prediction        what it predicts
    """

    couples_batch = True
    training_only: ClassVar[tuple[str, ...]] = ("contrast.key_encoder.",)

    samples_residual: ClassVar[bool] = False
    time: ClassVar[TimeInput] = "level"
    prediction: ClassVar[Prediction] = "noise"

    def __init__(self, options: JointBlindConfig, problem: Problem, restorer: nn.Module) -> None:
        super().__init__()
        self.bands = problem.bands
        self.scale = int(problem.scale)
        self.contrast_weight = options.contrast.weight
        self.pretrain_steps = options.pretrain_steps
        self.schedule = options.schedule.build()
        self.restorer = restorer
        self.contrast: MomentumContrast = options.contrast.build(problem.lr_bands)

    def estimate(self, lr: Tensor) -> Estimate:
        """Return the restorer's estimate of lr (B, c, h, w) in [-1, 1], which is also what the U-Net is conditioned on."""
        image = self.restorer(lr)
        return Estimate(image, image)

    def predict(self, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
        """Return the U-Net's output for x (B, C, H, W); time (B,) is what `time` says."""
        raise NotImplementedError

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource, valid: Tensor | None = None) -> Tensor:
        """Return the U-Net's loss for hr (B, C, H, W) in [-1, 1]; gradients reach restorer and encoder where the method lets them.

        valid  (B, C, H, W), see Batch
        """
        raise NotImplementedError

    def target(self, hr: Tensor, estimate: Estimate) -> Tensor:
        """Return what is diffused, in [-1, 1]."""
        return residual(hr, estimate.image) if self.samples_residual else hr

    def compose(self, sampled: Tensor, estimate: Estimate) -> Tensor:
        """Return the image in [-1, 1] from what was sampled: the inverse of `target`."""
        return add_residual(sampled, estimate.image) if self.samples_residual else sampled

    def start_image(self, estimate: Estimate) -> Tensor:
        """Return what samplers that start from an image start from: that which makes the restorer's estimate of it."""
        return torch.zeros_like(estimate.image) if self.samples_residual else estimate.image

    def denoiser(self, estimate: Estimate, code: Tensor) -> DiscreteDenoiser:
        """Return the U-Net with its conditions bound, as a denoiser in [-1, 1]."""
        return DiscreteDenoiser(lambda x, time: self.predict(x, time, estimate, code), self.schedule, self.prediction, time=self.time)

    def stages(self) -> Sequence[Stage]:
        joint = Stage("joint", tuple(self.groups()))
        if self.pretrain_steps == 0:
            return [joint]
        return [Stage("pretrain", tuple(self.groups()), self.pretrain_steps), joint]

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        hr, lr = to_signed_range(batch.need("hr")), to_signed_range(batch.need("lr"))
        require_scale(batch, self.scale)
        code, logits = self.contrast.contrast(lr, to_signed_range(batch.need("lr_views")[:, 0]))
        estimate = self.estimate(lr)
        terms = {
            "contrast": self.contrast_weight * contrastive_loss(logits),
            "restorer": masked_l1(estimate.image, hr, batch.valid),
        }
        if stage.name == "joint":
            terms["diffusion"] = self.diffusion_loss(hr, estimate, code, noise, batch.valid)
        return {"restorer": Losses.summed(terms)}

    def after_step(self, stage: Stage, step: int) -> None:
        self.contrast.after_step()

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

    def lr_multiple(self, hr_multiple: int) -> int:
        """Return what LR sides must be multiples of so that HR sides are multiples of `hr_multiple`."""
        return hr_multiple // gcd(hr_multiple, self.scale)


def residual(image: Tensor, base: Tensor) -> Tensor:
    """Return clamp(2 (image - base), -1, 1), what DiffBSR diffuses; images in [-1, 1]."""
    return (2 * (image - base)).clamp(-1, 1)


def add_residual(sampled: Tensor, base: Tensor) -> Tensor:
    """Return base + clamp(sampled, -1, 1) / 2, not clamped."""
    return sampled.clamp(-1, 1) / 2 + base


def noisy(clean: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Return level * clean + sqrt(1 - level^2) * noise in the dtype of `clean`; images (B, C, H, W), level (B,) = sqrt(alpha_bar).

    The complement is formed in the precision of `level`, which the published codes differ in.
    """
    return per_image(level, clean) * clean + per_image((1 - level.square()).sqrt(), clean) * noise
