"""IDM: SR3 for any enlargement in a range, with a learned condition and coordinate-based enlargements in the U-Net.

Source: Ree1s/IDM (Gao et al., CVPR 2023). Unlike it, restoration receives the requested enlargement instead of a random one, whole
batches are restored, and targets need not be square.
`prediction=clean base=enlarged` (ours, off as published) serves short trainings: after 600 steps, samples of one that predicted
noise lay 2.4 dB below bicubic, and the first estimate of one that predicts the addition, at twice the learning rate, 0.3 dB above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import Ours, UserError, config
from rsdiff.data.enlarging import enlarge
from rsdiff.data.missing import eroded, validity_at
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser
from rsdiff.losses.images import masked_l1, masked_mse
from rsdiff.methods.base import Losses, Method, Problem, Stage
from rsdiff.methods.noise_prediction import Noised, NoisePredictorConfig, noised_continuously
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.idm_unet import ConditionEncoder, IDMUNet, IDMUNetConfig
from rsdiff.networks.layers import zeroed

FINEST = 2**24  # steps of the uniform draw that a batch shares


@config
class IDMConfig(NoisePredictorConfig, IDMUNetConfig):
    """IDM. The defaults are those of 16 -> 128 faces."""

    nominal_size: int = 128
    """Image size from which the resolutions of the levels are counted to find those with attention, whatever the size of the images."""
    encoder: EDSRConfig = EDSRConfig()
    """The encoder that makes the condition of the LR."""
    largest_scale: float = 8.0
    """The enlargement for which the network's scale input is 1; it is 0 where nothing is enlarged."""
    draw_scale: Annotated[bool, Ours("training")] = True
    """Shrink the targets of every training batch to a random size between the LR's and theirs; without it, trainer.scale_range rules."""
    prediction: Annotated[Literal["noise", "clean"], Ours("weights")] = "noise"
    """What the network predicts: the noise, as published, or the clean image, for short trainings (ours)."""
    base: Annotated[BaseConfig, Ours("weights")] = NoBaseConfig()
    """What a predicted clean image is added to (ours): the enlarged LR, so that an untrained model gives that."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction == "noise" and self.base.kind != "none":
            raise UserError("noise is predicted and added to nothing; set prediction=clean, or base=none.")
        if self.largest_scale <= 1:
            raise UserError(f"largest_scale={self.largest_scale} was given; choose more than 1.")

    @property
    def any_scale(self) -> bool:
        return True

    def trained_scales(self, highest: float, drawn: tuple[float, float] | None) -> tuple[float, float]:
        low, high = super().trained_scales(highest, drawn)
        return (1.0, high) if self.draw_scale else (low, high)

    def starts_at_image(self, problem: Problem) -> bool:
        return problem.bands == problem.lr_bands

    def refuse(self, problem: Problem) -> str | None:
        if problem.scale > self.largest_scale:
            return (
                f"model idm was told enlargements up to {self.largest_scale:g} and the scale is {problem.scale:g}; train it with "
                f"model.largest_scale={problem.scale:g}, or choose a smaller scale."
            )
        return self.base.refuse_base("idm", problem)

    def build(self, problem: Problem) -> IDM:
        return IDM(self, problem)

    def build_network(self, bands: int) -> IDMUNet:
        """Return the U-Net with fresh weights."""
        return IDMUNet(self, bands)


class IDM(Method):
    """See the module and `IDMConfig`."""

    def __init__(self, options: IDMConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.bands = problem.bands
        self.schedule = options.schedule.build()
        self.encoder = ConditionEncoder(options.encoder, problem.lr_bands, problem.bands)
        self.network = options.build_network(problem.bands)
        self.base = options.base.build_base(problem)
        if self.base.adds:
            zeroed(self.network.conv_out)

    def scaler(self, scale: float, like: Tensor) -> Tensor:
        """Return what the network receives of an enlargement, (1, 1)."""
        return like.new_full((1, 1), (scale - 1) / (self.options.largest_scale - 1))

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        if batch.sizes is not None:
            raise UserError("model idm is trained on whole images and they have a scale each; set trainer.scale_per=batch.")
        hr, lr, valid = 2 * batch.need("hr") - 1, 2 * batch.need("lr") - 1, batch.valid
        scale = hr.shape[-1] / lr.shape[-1]
        if self.options.draw_scale:
            share = noise.shared_integer(0, FINEST) / FINEST
            hr, scale = shrunk(hr, batch.lr_size, share), 1 + (scale - 1) * share
            valid = None if valid is None else validity_at(eroded(valid, SHRUNK_REACH), (hr.shape[-2], hr.shape[-1]))
        if self.training and self.base.learns:
            self.base.observe(lr, hr, batch.whole_pixels)
        noised = noised_continuously(hr, self.options, self.schedule, noise)
        wanted = noised.noise if self.options.prediction == "noise" else self.base.taken_off(hr, lr)
        total = self.objective(lr, noised, self.scaler(scale, lr), wanted, valid)
        return {"restorer": Losses(total, {self.options.prediction: total.detach()})}

    def after_step(self, stage: Stage, step: int) -> None:
        self.base.settle()

    def objective(self, lr: Tensor, noised: Noised, scaler: Tensor, wanted: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the mean error of the prediction, of which `wanted` (B, C, H, W) is right; lr in [-1, 1]."""
        condition = self.encoder(lr, (noised.x.shape[-2], noised.x.shape[-1]))
        predicted = self.network(noised.x, condition, scaler, noised.time)
        return (masked_l1 if self.options.loss == "l1" else masked_mse)(predicted, wanted, valid)

    def denoiser(self, condition: Tensor, scaler: Tensor, lr: Tensor) -> DiscreteDenoiser:
        """Return the network as a denoiser of images in [-1, 1].

        condition, scaler  what the network receives, (B, C, H, W) and (1, 1) or (B, 1)
        lr                 the LR in [-1, 1], (B, c, h, w), of which the base is made that a prediction is added to
        """

        def predict(x: Tensor, level: Tensor) -> Tensor:
            return self.network(x, condition.to(x.dtype), scaler.to(x.dtype), level)

        def with_base(x: Tensor, level: Tensor) -> Tensor:
            return self.base.onto(predict(x, level), lr.to(x.dtype))

        return DiscreteDenoiser(with_base, self.schedule, self.options.prediction, time="level")

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        lr, size = batch.need("lr"), batch.size
        condition = self.encoder(2 * lr - 1, size)
        enlarged = enlarge(2 * lr - 1, size)
        denoiser = self.denoiser(condition, self.scaler(size[1] / lr.shape[-1], lr), 2 * lr - 1)
        image = enlarged if lr.shape[1] == self.bands else None
        sampled = sample(sampler, denoiser, (len(batch), self.bands, *size), noise, device=lr.device, image=image)
        return (sampled.float() + 1) / 2


SHRUNK_REACH = 2
"""Pixels that bicubic interpolation without antialiasing looks at beside its place."""


def shrunk(hr: Tensor, lr_size: tuple[int, int], share: float) -> Tensor:
    """Return hr (B, C, H, W) at a size between the LR's and its own: round(h + (H - h) share) rows, half to even, columns likewise.

    Bicubic with coefficient -0.75, not antialiased and not clamped.
    """
    height, width = (round(low + (high - low) * share) for low, high in zip(lr_size, hr.shape[-2:], strict=True))
    return F.interpolate(hr, (height, width), mode="bicubic", align_corners=False)
