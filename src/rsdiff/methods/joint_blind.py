"""What the blind diffusion methods share: a restorer, a contrastive degradation encoder and a U-Net, trained together from scratch.

Inside, images live in [-1, 1]. A training image gives two crops under one degradation: the first is restored and is the query, the second
is the key of the contrastive loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, config
from rsdiff.data.ranges import to_signed_range, to_unit_range
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, Prediction, ScheduleConfig, TimeInput, right_output
from rsdiff.diffusion.solvers import per_image
from rsdiff.losses.images import masked_l1
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_scale
from rsdiff.networks.degradation_aware import ContrastConfig, MomentumContrast, contrastive_loss


@dataclass
class Estimate:
    """What the restorer makes of an LR image.

    image    (B, C, H, W) around [-1, 1], unbounded
    feature  what the U-Net is conditioned on besides the degradation code; its shape is the method's affair
    """

    image: Tensor
    feature: Tensor


class Drawn(NamedTuple):
    """The noise (B, C, H, W) of a training step, its level (B,) = sqrt(alpha_bar), and what the U-Net is told of the level (B,)."""

    noise: Tensor
    level: Tensor
    time: Tensor


def image_alone(method: JointBlind, lr: Tensor) -> Estimate:
    """Return the restorer's image, which is also what the U-Net is conditioned on."""
    image = method.restorer(lr)
    return Estimate(image, image)


@dataclass(frozen=True, kw_only=True)
class BlindDiffusion:
    """What tells one of these methods from the others.

    networks    of (config, problem): the U-Net as `unet`, and what it needs besides by name
    estimate    of (method, lr (B, c, h, w) in [-1, 1]): the restorer's estimate and the U-Net's condition
    predict     of (method, x (B, C, H, W), time (B,), estimate, code): the U-Net's output
    draw        of (schedule, clean (B, C, H, W), noise): the noise of a training step
    error       of (output, wanted, valid (B, C, H, W) or None): the mean error of the output, ()
    time        what the U-Net is told of the noise level
    prediction  what it predicts
    base        what the diffused image is added to: nothing, or the estimate, of which it is then `residual`
    """

    networks: Callable[[Any, Problem], dict[str, nn.Module]]
    predict: Callable[[JointBlind, Tensor, Tensor, Estimate, Tensor], Tensor]
    draw: Callable[[DiscreteSchedule, Tensor, NoiseSource], Drawn]
    estimate: Callable[[JointBlind, Tensor], Estimate] = image_alone
    error: Callable[[Tensor, Tensor, Tensor | None], Tensor] = masked_l1
    time: TimeInput = "level"
    prediction: Prediction = "noise"
    base: Literal["none", "estimate"] = "none"


@config
class JointBlindConfig(MethodConfig):
    """What the configs of these methods share; each adds its restorer (`restorer`) and its U-Net (`unet`)."""

    has_own_step: ClassVar[bool | None] = False
    diffusion: ClassVar[BlindDiffusion]

    contrast: ContrastConfig = ContrastConfig()
    """The degradation encoder."""
    schedule: ScheduleConfig
    """Noise levels of training."""
    pretrain_steps: Annotated[int, Ours("training")] = 0
    """Steps that train restorer and encoder without the diffusion loss first; 0 in every published configuration."""

    @property
    def sampled_levels(self) -> int:
        return self.schedule.steps

    @property
    def views(self) -> int:
        return 2

    def loss_weight(self, signal: Tensor) -> Tensor | None:
        """Return the weight of a squared error at signal levels sqrt(alpha_bar) of any shape; None is 1, as published."""
        return None

    def build_restorer(self, problem: Problem) -> nn.Module:
        """Return the network of the first estimate with fresh weights; `size_multiple` is what LR sides must be multiples of."""
        raise NotImplementedError

    def build(self, problem: Problem) -> JointBlind:
        return JointBlind(self, problem)


class JointBlind(Method):
    """Joint training and sampling of a restorer, a degradation encoder and what `BlindDiffusion` says."""

    couples_batch = True
    training_only: ClassVar[tuple[str, ...]] = ("contrast.key_encoder.",)

    restorer: Any
    unet: Any

    def __init__(self, options: JointBlindConfig, problem: Problem) -> None:
        super().__init__()
        self.diffusion = options.diffusion
        self.bands = problem.bands
        self.scale = int(problem.scale)
        self.contrast_weight = options.contrast.weight
        self.pretrain_steps = options.pretrain_steps
        self.loss_weight = options.loss_weight
        self.schedule = options.schedule.build()
        self.restorer = options.build_restorer(problem)
        self.contrast: MomentumContrast = options.contrast.build(problem.lr_bands)
        for name, network in self.diffusion.networks(options, problem).items():
            self.add_module(name, network)

    def estimate(self, lr: Tensor) -> Estimate:
        """Return the restorer's estimate of lr (B, c, h, w) in [-1, 1] and the U-Net's condition."""
        return self.diffusion.estimate(self, lr)

    def predict(self, x: Tensor, time: Tensor, estimate: Estimate, code: Tensor) -> Tensor:
        """Return the U-Net's output for x (B, C, H, W); time (B,) is what `BlindDiffusion.time` says."""
        return self.diffusion.predict(self, x, time, estimate, code)

    def diffusion_loss(self, hr: Tensor, estimate: Estimate, code: Tensor, noise: NoiseSource, valid: Tensor | None = None) -> Tensor:
        """Return the U-Net's loss () for hr (B, C, H, W) in [-1, 1]; gradients reach restorer and encoder, too.

        valid  (B, C, H, W), see Batch
        """
        clean = self.target(hr, estimate)
        drawn = self.diffusion.draw(self.schedule, clean, noise)
        x, signal, deviation = noisy(clean, drawn)
        output = self.predict(x, drawn.time, estimate, code)
        wanted = right_output(self.diffusion.prediction, clean, drawn.noise, signal, deviation)
        weight = self.loss_weight(signal)
        if weight is not None:
            output, wanted = weight.sqrt() * output, weight.sqrt() * wanted
        return self.diffusion.error(output, wanted, valid)

    def target(self, hr: Tensor, estimate: Estimate) -> Tensor:
        """Return what is diffused, in [-1, 1]."""
        return residual(hr, estimate.image) if self.diffusion.base == "estimate" else hr

    def compose(self, sampled: Tensor, estimate: Estimate) -> Tensor:
        """Return the image in [-1, 1] from what was sampled: the inverse of `target`."""
        return add_residual(sampled, estimate.image) if self.diffusion.base == "estimate" else sampled

    def start_image(self, estimate: Estimate) -> Tensor:
        """Return what samplers that start from an image start from: that which makes the restorer's estimate of it."""
        return torch.zeros_like(estimate.image) if self.diffusion.base == "estimate" else estimate.image

    def denoiser(self, estimate: Estimate, code: Tensor) -> DiscreteDenoiser:
        """Return the U-Net with its conditions bound, as a denoiser in [-1, 1]."""
        kind = self.diffusion
        return DiscreteDenoiser(lambda x, time: self.predict(x, time, estimate, code), self.schedule, kind.prediction, time=kind.time)

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

    def pixel_multiple(self) -> int:
        of_target = int(self.unet.size_multiple)
        return lcm(int(self.restorer.size_multiple), of_target // gcd(of_target, self.scale))


def residual(image: Tensor, base: Tensor) -> Tensor:
    """Return clamp(2 (image - base), -1, 1), what DiffBSR diffuses; images in [-1, 1]."""
    return (2 * (image - base)).clamp(-1, 1)


def add_residual(sampled: Tensor, base: Tensor) -> Tensor:
    """Return base + clamp(sampled, -1, 1) / 2, not clamped."""
    return sampled.clamp(-1, 1) / 2 + base


def noisy(clean: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor]:
    """Return x = signal clean + deviation noise (B, C, H, W), signal and deviation (B, 1, 1, 1), in the dtype of `clean`.

    The deviation, sqrt(1 - level^2), is formed in the precision of the level, which the published codes differ in.
    """
    signal, deviation = per_image(drawn.level, clean), per_image((1 - drawn.level.square()).sqrt(), clean)
    return signal * clean + deviation * drawn.noise, signal, deviation
