"""LDCSR, second stage: four steps of latent diffusion predict from LR what the frozen first stage decodes to an image of any size.

Source: MoooJianG/LDCSR (E2SR, E2DiffSR), models/second_stage_van_v4.py; "Latent Diffusion, Implicit Amplification", IEEE TGRS 2025.
Training runs the complete reverse chain, with gradients through it, from the noised latent of the target; a second term draws the
condition, an encoding of the enlarged LR, to that latent.

LCMSR is its consistency variant (models/second_stage_consistency_v1.py), which restores in one step or a few: the consistency function
f(x, t) = c_skip x + c_out x0 is trained to agree with itself, as an average of earlier weights, at a time `time_gap` earlier on the same
noise.

Unlike the published code:
- The factor that brings latents to unit variance is measured on the first batch with its LR images; the published code passes the target
  in place of the LR by a slip (`latent_scale=published` does so too). In a run of several processes each measures its own share of the
  first batch; the first process's value is kept.
- Restoration needs no target: the shape of the latent follows from the size.
- Averages of the weights follow the trainer's rule and cover the condition encoder as well as the U-Net; the published ones the U-Net only.
- Latents that are too small to be extended by PyTorch's reflection are extended all the same.
- LCMSR's sampler re-noises after the last step too and leaves noise of the lowest level; sampler=lcmsr ends clean
  (`sampler.end=lowest_vp` with the grid's last level at the table's lowest gives the published result).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.enlarging import enlarge
from rsdiff.data.missing import validity_at
from rsdiff.data.sample import Batch
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, ScheduleConfig
from rsdiff.diffusion.solvers import Denoiser, ddpm, per_image, to_zero
from rsdiff.losses.images import masked_mse
from rsdiff.methods.base import Losses, Method, MethodConfig, Predecessor, Problem, Stage
from rsdiff.networks.kl_autoencoder import AutoencoderConfig, GAPEncoderConfig
from rsdiff.networks.latent_unet import LatentUNetConfig


class Told(NamedTuple):
    """What the network is told of each image: the scale (B,) and the height of the target (B,) in pixels."""

    scale: Tensor
    height: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Told:
        """Return what is so of a batch."""
        count, height = len(batch), batch.size[0]
        return cls(torch.full((count,), height / batch.need("lr").shape[-2]), torch.full((count,), height))

    def truncated(self) -> Told:
        """Return the same with scales rounded down to integers."""
        return self._replace(scale=self.scale.trunc())


@config
class LatentDiffusionConfig(MethodConfig):
    """What the second stages have in common: networks, schedule and conditions. The defaults are LDCSR's."""

    has_own_step: ClassVar[bool | None] = False
    read_with: ClassVar[ReadWith] = dict.fromkeys(("scale_told", "unet.head_channels"), ("architecture", ("latent_unet",)))

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
    def sampled_levels(self) -> int:
        return self.schedule.steps

    @property
    def leaves_unread(self) -> Mapping[str, str]:
        return {"sampler.clip": "has no effect with this model, whose latents have no range; leave it out."}

    @property
    def predecessor(self) -> Predecessor | None:
        return Predecessor("ldcsr_vae", {"autoencoder": self.first_stage})

    @property
    def objective(self) -> LatentObjective:
        """What the second stage minimises."""
        raise NotImplementedError

    def refuse(self, problem: Problem) -> str | None:
        return self.first_stage.refuse(problem)

    def build(self, problem: Problem) -> LatentDiffusion:
        return LatentDiffusion(self, problem)


class LatentObjective(Protocol):
    """What a second stage minimises besides its distillation, and how its network becomes a denoiser."""

    @property
    def name(self) -> str:
        """Return what the error is called in the log."""

    def prepare(self, method: LatentDiffusion) -> None:
        """Add to a fresh method what only this objective needs."""

    def denoiser(self, inner: DiscreteDenoiser) -> Denoiser:
        """Return the network, a denoiser of the schedule, as the denoiser that samplers are given."""

    def error(
        self, method: LatentDiffusion, latent: Tensor, condition: Tensor, told: Told, noise: NoiseSource, valid: Tensor | None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the error () of the network for scaled latents (B, C, y, x), and what else the log shows.

        valid  the cells (B, 1, y, x) that count, None for all
        """

    def after_step(self, method: LatentDiffusion) -> None:
        """Called after every optimiser step."""


class LatentDiffusion(Method):
    """A frozen autoencoder, a condition encoder and a denoiser of latents, trained by an objective.

    latent_scale  k, buffer (): latents are diffused times k; 0 until the first training batch
    """

    couples_batch = True
    training_only: ClassVar[tuple[str, ...]] = ("target.", "updates")

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
        self.objective = options.objective
        self.objective.prepare(self)

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
        return self.condition(enlarge(lr, size))

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

    def denoiser(self, condition: Tensor, told: Told, network: nn.Module | None = None) -> Denoiser:
        """Return the U-Net, or another network of its form, as a denoiser of scaled latents, bound to its condition."""
        told = told.truncated() if self.options.scale_told == "truncated" else told
        scale, height = to_device(told.scale, condition.device), to_device(told.height, condition.device)
        used, is_atom = self.unet if network is None else network, self.options.architecture == "unet_atom"

        def predict(x: Tensor, time: Tensor) -> Tensor:
            known = torch.cat([x, condition.to(x.dtype)], dim=1)
            made: Tensor = used(known, time) if is_atom else used(known, time, scale, height)
            return made

        time: Literal["level", "index"] = "level" if is_atom else "index"
        return self.objective.denoiser(DiscreteDenoiser(predict, self.schedule, self.options.prediction, time=time, data_range=None))

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
        denoiser = self.denoiser(condition, Told.of(batch))
        latent = sample(sampler, denoiser, condition.shape, noise, device=lr.device, image=condition)
        return (self.decode(latent.to(lr.dtype), lr, batch.size) + 1) / 2

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        """Draws: the latent, then what the objective draws."""
        hr, lr = 2 * batch.need("hr") - 1, 2 * batch.need("lr") - 1
        latent = self.encode_target(hr, lr, noise)
        condition = self.encode_condition(lr, batch.size)
        cells = self.counting_cells(batch, latent)
        error, shown = self.objective.error(self, latent, condition, Told.of(batch), noise, cells)
        distillation = self.distillation(latent, condition, cells)
        total = error + self.options.distillation_weight * distillation
        return {"restorer": Losses(total, {self.objective.name: error.detach(), "distillation": distillation.detach(), **shown})}

    def after_step(self, stage: Stage, step: int) -> None:
        self.objective.after_step(self)


class ReverseChain:
    """LDCSR's objective: the complete reverse chain from the noised latent, with gradients through it, ends at the latent."""

    name = "diffusion"

    def prepare(self, method: LatentDiffusion) -> None:
        """Nothing is needed besides."""

    def denoiser(self, inner: DiscreteDenoiser) -> Denoiser:
        return inner

    def error(
        self, method: LatentDiffusion, latent: Tensor, condition: Tensor, told: Told, noise: NoiseSource, valid: Tensor | None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Draws: the noise of the latent at the highest level, the noise of every step but the last."""
        levels = to_zero(method.schedule.sigmas.flip(0))
        start = latent + float(levels[0]) * noise.normal(latent.shape, latent.device, latent.dtype)
        restored = ddpm(method.denoiser(condition, told), levels, start, noise)
        return masked_mse(restored, latent, valid), {}

    def after_step(self, method: LatentDiffusion) -> None:
        """Nothing moves but the weights."""


class OneLevel(ReverseChain):
    """An objective of ours: what the network predicts, at one random level of each image, as diffusions are trained elsewhere.

    Source: Ho, Jain and Abbeel 2020, "Denoising diffusion probabilistic models", eq. 14.
    """

    def error(
        self, method: LatentDiffusion, latent: Tensor, condition: Tensor, told: Told, noise: NoiseSource, valid: Tensor | None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Draws: the level of each image, its noise."""
        indices = noise.integers(0, len(method.schedule), (len(latent),), latent.device)
        sigma = per_image(method.schedule.on(latent.device, "sigmas")[indices], latent)
        drawn = noise.normal(latent.shape, latent.device, latent.dtype)
        noised = latent + sigma.to(latent) * drawn
        clean = method.denoiser(condition, told)(noised, sigma.flatten())
        if method.options.prediction == "clean":
            return masked_mse(clean, latent, valid), {}
        return masked_mse((noised - clean) / sigma.to(latent), drawn, valid), {}


@config
class LDCSRConfig(LatentDiffusionConfig):
    """The second stage of LDCSR."""

    trained_through: Annotated[Literal["chain", "level"], Ours("training")] = "chain"
    """What a training step runs: the complete reverse chain, as published, or one random level (ours).

    The end of the chain is drawn to the latent by its squared error, whose least value is the mean of all latents that fit the LR: samples
    hardly differ. Trained by levels, they differ as the posterior's do.
    """

    @property
    def objective(self) -> LatentObjective:
        return ReverseChain() if self.trained_through == "chain" else OneLevel()


@dataclass(frozen=True)
class Consistency:
    """The objective: the method's network agrees with its average, `target`, `time_gap` steps earlier on the same noise."""

    time_gap: int
    target_decay: float

    name: ClassVar[str] = "consistency"

    def prepare(self, method: LatentDiffusion) -> None:
        """Add the averaged network and the number of its updates, which are part of what a training resumes from."""
        method.target = copy.deepcopy(method.unet).requires_grad_(False)
        method.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def denoiser(self, inner: DiscreteDenoiser) -> Denoiser:
        from rsdiff.diffusion.consistency import ConsistencyDenoiser  # the other objective is read without it

        assert inner.table is not None
        return ConsistencyDenoiser(inner, len(inner.table))

    def error(
        self, method: LatentDiffusion, latent: Tensor, condition: Tensor, told: Told, noise: NoiseSource, valid: Tensor | None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Draws: the step of each image, its noise. Shown besides: the error of the estimate."""
        steps = noise.integers(0, len(method.schedule), (len(latent),), latent.device)
        drawn = noise.normal(latent.shape, latent.device, latent.dtype)
        gap, predicted = self.agreement(method, latent, condition, told, steps, drawn, valid)
        return gap, {"error": masked_mse(predicted.detach(), latent, valid)}

    def agreement(
        self,
        method: LatentDiffusion,
        latent: Tensor,
        condition: Tensor,
        told: Told,
        steps: Tensor,
        drawn: Tensor,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (squared difference of f at `steps` (B,) and of the averaged f `time_gap` earlier, mean; f at `steps` (B, C, y, x)).

        drawn: the latent's noise; for the rest see `LatentObjective.error`
        """
        sigmas = method.schedule.on(latent.device, "sigmas")
        later, earlier = sigmas[steps], sigmas[(steps - self.time_gap).clamp(min=0)]
        predicted = method.denoiser(condition, told)(latent + per_image(later, latent) * drawn, later)
        with torch.no_grad():
            before = method.denoiser(condition, told, method.get_submodule("target"))
            wanted = before(latent + per_image(earlier, latent) * drawn, earlier)
        return masked_mse(predicted, wanted, valid), predicted

    @torch.no_grad()
    def after_step(self, method: LatentDiffusion) -> None:
        """Move the averaged network towards the trained one."""
        updates = method.get_buffer("updates")
        updates += 1
        decay = torch.clamp((1 + updates) / (10 + updates), max=self.target_decay)
        for average, weight in zip(method.get_submodule("target").parameters(), method.unet.parameters(), strict=True):
            average.lerp_(weight, (1 - decay).to(weight))


@config
class LCMSRConfig(LatentDiffusionConfig):
    """The consistency variant. The defaults are the published ones."""

    has_own_step: ClassVar[bool | None] = True

    prediction: Literal["noise", "clean"] = "noise"
    """What the network predicts: the noise, or the clean latent (second_stage_consistency_v1_x4)."""

    schedule: ScheduleConfig = ScheduleConfig(name="quad", steps=1000, start=0.0015, end=0.0155)
    """Noise levels."""
    time_gap: int = 250
    """Steps of the schedule between the two times that must agree."""
    target_decay: float = 0.9999
    """Largest share of the average that each step keeps; it begins at 2/11 and rises as (1 + n) / (10 + n)."""

    def __post_init__(self) -> None:
        LatentDiffusionConfig.__post_init__(self)
        if not 1 <= self.time_gap < self.schedule.steps or not 0 <= self.target_decay < 1:
            raise UserError(
                f"time_gap={self.time_gap} and target_decay={self.target_decay} were given; choose 1 to "
                f"{self.schedule.steps - 1}, and 0 or more below 1."
            )
        if self.architecture == "unet_atom":
            raise UserError("architecture=unet_atom takes levels and a consistency function needs steps; use architecture=latent_unet.")

    @property
    def objective(self) -> LatentObjective:
        return Consistency(self.time_gap, self.target_decay)


def inverse_deviation(latents: Tensor) -> Tensor:
    """Return 1 / standard deviation over all elements, (): the factor that brings latents to unit variance."""
    return 1 / latents.detach().flatten().std().clamp(min=torch.finfo(latents.dtype).tiny)
