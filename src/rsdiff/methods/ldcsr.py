"""LDCSR, second stage: four steps of latent diffusion predict from LR what the frozen first stage decodes to an image of any size.

Source: MoooJianG/LDCSR (E2SR, E2DiffSR), models/second_stage_van_v4.py; "Latent Diffusion, Implicit Amplification", IEEE TGRS 2025.
Training runs the complete reverse chain, with gradients through it, from the noised latent of the target; a second term draws the
condition, an encoding of the enlarged LR, to that latent.

Unlike the published code:
- The factor that brings latents to unit variance is measured on the first batch with its LR images; the published code passes the target
  in place of the LR by a slip (`latent_scale=published` does so too). In a run of several processes each measures its own share of the
  first batch; the first process's value is kept.
- Restoration needs no target: the shape of the latent follows from the size.
- Averages of the weights follow the trainer's rule and cover the condition encoder as well as the U-Net; the published ones the U-Net only.
- Latents that are too small to be extended by PyTorch's reflection are extended all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.missing import validity_at
from rsdiff.data.sample import Batch
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.denoisers import Denoiser
from rsdiff.diffusion.levels import to_zero
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, ScheduleConfig
from rsdiff.diffusion.solvers import ddpm
from rsdiff.losses.masked import masked_mse
from rsdiff.methods.base import Losses, Method, MethodConfig, Predecessor, Problem, Stage
from rsdiff.networks.gap_autoencoder import GAPEncoderConfig
from rsdiff.networks.kl_autoencoder import AutoencoderConfig, enlarged, inverse_deviation
from rsdiff.networks.latent_unet import LatentUNetConfig


@config
class LatentDiffusionConfig(MethodConfig):
    """What the second stages have in common: networks, schedule and conditions. The defaults are LDCSR's."""

    read_with: ClassVar[ReadWith] = {"scale_told": ("architecture", ("latent_unet",))}

    first_stage: AutoencoderConfig = AutoencoderConfig()
    """The frozen autoencoder; its weights come from a trained ldcsr_vae of the same options."""
    condition: GAPEncoderConfig = GAPEncoderConfig()
    """The condition encoder; it must shrink images as the first stage's encoder does."""
    architecture: Literal["latent_unet", "unet_atom"] = "latent_unet"
    """latent_unet: step, scale and height are inputs; unet_atom: SR3's network, with the noise level only (unpublished variants)."""
    unet: LatentUNetConfig = LatentUNetConfig()
    """Sizes of the noise predictor."""
    schedule: ScheduleConfig = ScheduleConfig(name="quad", steps=4, start=0.1, end=0.99)
    """Noise levels; a published one is linear in the root of beta."""
    prediction: Annotated[Literal["noise", "clean"], Ours("weights")] = "noise"
    """What the network predicts: the noise, as published, or the clean latent (ours)."""
    scale_told: Annotated[Literal["truncated", "exact"], Ours("weights")] = "truncated"
    """The scale that the network gets as input: rounded down to an integer, as published, or as it is."""
    distillation_weight: float = 1.0
    """Factor of the mean squared distance between condition and latent."""
    latent_scale: Annotated[Literal["measured", "published"], Ours("training", published=("published",))] = "measured"
    """How the factor to unit variance is measured: on latents as they are diffused, or with the target passed as LR too."""

    def __post_init__(self) -> None:
        if len(self.condition.multipliers) != len(self.first_stage.encoder.multipliers):
            raise UserError(
                f"condition has {len(self.condition.multipliers)} levels and first_stage.encoder "
                f"{len(self.first_stage.encoder.multipliers)}; their latents must have one size: give both as many."
            )
        if self.first_stage.decoder.branches == "image":
            raise UserError("first_stage.decoder.branches=image has no latent to diffuse; train model=ldcsr_vae alone for this ablation.")
        if self.distillation_weight < 0:
            raise UserError(f"distillation_weight={self.distillation_weight} was given; choose 0 or more.")

    @property
    def any_scale(self) -> bool:
        return self.first_stage.decoder.upsampler != "fixed_x4"

    @property
    def predecessor(self) -> Predecessor | None:
        return Predecessor("ldcsr_vae", {"autoencoder": self.first_stage})

    def refuse(self, problem: Problem) -> str | None:
        return self.first_stage.refuse(problem)


@config
class LDCSRConfig(LatentDiffusionConfig):
    """The second stage of LDCSR."""

    def build(self, problem: Problem) -> LDCSR:
        return LDCSR(self, problem)


class LatentDiffusion(Method):
    """A frozen autoencoder, a condition encoder and a denoiser of latents; subclasses add the objective.

    latent_scale  k, buffer (): latents are diffused times k; 0 until the first training batch
    """

    couples_batch = True

    latent_scale: Tensor

    def __init__(self, options: LatentDiffusionConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.first_stage = options.first_stage.build(problem.bands, problem.lr_bands).requires_grad_(False)
        channels = options.first_stage.latent_channels
        self.condition = options.condition.build(problem.lr_bands, channels)
        unet = options.unet
        self.unet = unet.build(channels) if options.architecture == "latent_unet" else unet.build_atom(channels)
        self.schedule: DiscreteSchedule = options.schedule.build()
        self.register_buffer("latent_scale", torch.zeros(()))
        self.is_measured = False

    def train(self, mode: bool = True) -> LatentDiffusion:
        """The first stage stays in evaluation mode."""
        super().train(mode)
        self.first_stage.eval()
        return self

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"restorer": [*self.unet.parameters(), *self.condition.parameters()]}

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the autoencoder of a trained first stage."""
        own = {name.removeprefix("autoencoder."): value for name, value in weights.items() if name.startswith("autoencoder.")}
        self.first_stage.load_state_dict(own)

    def prepare_training(self) -> None:
        self.is_measured = bool(self.latent_scale > 0)

    @property
    def coupling(self) -> str:
        return "" if self.is_measured else "it measures the scale of its latents on the first batch"

    def encode_condition(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the condition, of the latent's shape, of lr (B, c, h, w) in [-1, 1] that becomes `size`."""
        return self.condition(enlarged(lr, size))

    def encode_target(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> Tensor:
        """Return k times a draw of the target's latent, without gradient; measures k at the first batch of a training."""
        with torch.no_grad():
            posterior = self.first_stage.encode(hr, lr)
            latent = posterior.sample(noise.normal(posterior.mean.shape, hr.device, hr.dtype))
            if not self.is_measured:
                as_lr = hr if self.options.latent_scale == "published" else lr
                measured = self.first_stage.encode(hr, as_lr)
                drawn = noise.normal(posterior.mean.shape, hr.device, hr.dtype)
                self.latent_scale.copy_(inverse_deviation(measured.sample(drawn)))
                self.is_measured = True
        return self.latent_scale * latent

    def denoiser(self, condition: Tensor, scale: float, height: int) -> Denoiser:
        """Return the network as a denoiser of scaled latents, bound to a condition, the scale of the batch and the target's height."""
        return self.denoiser_of(self.unet, condition, torch.full((len(condition),), scale), torch.full((len(condition),), height))

    def denoiser_of(self, network: nn.Module, condition: Tensor, scale: Tensor, height: Tensor) -> Denoiser:
        """Return `network` as a denoiser; scale, height (B,) are what it receives of each image, the scale before truncation."""
        told = to_device(scale.trunc() if self.options.scale_told == "truncated" else scale, condition.device)
        tall = to_device(height, condition.device)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            known = torch.cat([x, condition.to(x.dtype)], dim=1)
            if self.options.architecture == "unet_atom":
                return network(known, time)
            return network(known, time, told, tall)

        time: Literal["level", "index"] = "level" if self.options.architecture == "unet_atom" else "index"
        return DiscreteDenoiser(predict, self.schedule, self.options.prediction, time=time, data_range=None)

    def decode(self, latent: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the image in [-1, 1], clamped, of a scaled latent."""
        return self.first_stage.decode(latent / self.latent_scale, lr, size).clamp(-1, 1)

    def distillation(self, latent: Tensor, condition: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the mean squared distance of condition and scaled latent, (), over the cells (B, 1, y, x) that count."""
        return masked_mse(condition, latent, valid)

    def counting_cells(self, batch: Batch, latent: Tensor) -> Tensor | None:
        """Return the cells of a latent (B, C, y, x) that lie on known pixels alone, (B, 1, y, x), or None where all do."""
        if batch.valid is None:
            return None
        return validity_at(batch.valid.amin(1, keepdim=True), (latent.shape[-2], latent.shape[-1]))

    def target_multiple(self) -> int:
        return self.first_stage.cell

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        lr = 2 * batch.need("lr") - 1
        condition = self.encode_condition(lr, batch.size)
        denoiser = self.denoiser(condition, batch.size[0] / lr.shape[-2], batch.size[0])
        latent = sample(sampler, denoiser, condition.shape, noise, device=lr.device, image=condition)
        return (self.decode(latent.to(lr.dtype), lr, batch.size) + 1) / 2

    @torch.no_grad()
    def restore_undiffused(self, batch: Batch) -> Tensor:
        """Return the decoded condition: the result without diffusion, `sr_kd` of the published tables."""
        lr = 2 * batch.need("lr") - 1
        return (self.decode(self.encode_condition(lr, batch.size), lr, batch.size) + 1) / 2


class LDCSR(LatentDiffusion):
    """See the module and `LDCSRConfig`."""

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        """Draws: the latent, its noise at the highest level, the noise of every step but the last."""
        hr, lr = 2 * batch.need("hr") - 1, 2 * batch.need("lr") - 1
        latent = self.encode_target(hr, lr, noise)
        condition = self.encode_condition(lr, batch.size)
        levels = to_zero(self.schedule.sigmas.flip(0))
        start = latent + float(levels[0]) * noise.normal(latent.shape, latent.device, latent.dtype)
        denoiser = self.denoiser(condition, batch.size[0] / lr.shape[-2], batch.size[0])
        restored = ddpm(denoiser, levels, start, noise)
        cells = self.counting_cells(batch, latent)
        diffusion, distillation = masked_mse(restored, latent, cells), self.distillation(latent, condition, cells)
        total = diffusion + self.options.distillation_weight * distillation
        return {"restorer": Losses(total, {"diffusion": diffusion.detach(), "distillation": distillation.detach()})}
