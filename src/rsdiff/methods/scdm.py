"""SCDM: spectral super-resolution by a cascade of conditional diffusions, each of which knows more bands than the one before.

Source: Mr-Bamboo/SCDM, "Spectral-cascaded diffusion model" (IEEE TGRS 62, 2024). Every stage predicts the noise (`SCDMUNet`), is guided
without a classifier by an empty condition (ICMG) and clamps its state at a quantile that rises during sampling (PDT).

Unlike the published code:
- The stages are trained in one run, each on true bands as published and independent of the others, by optimiser groups of their own.
- Any batch size can be sampled: quantiles are per image. The published loop fails above 1.
- The script that runs the second stage is missing there. Ours rounds what the first one returns to stored integers, as its file would
  (`rounded_levels`), and guides the second by weight 1.0, a guess: "lower" is all that the published code says.
- Training crops reach the last pixel and test images are whole; the published code crops at random in both.
- Sizes that cannot be halved often enough are extended by reflection, then cropped; the published network fails there.
- The state of a sampling run is float64 (`sampler.dtype`): differences below 1e-4 to their float32.
`prediction` and `base` (ours, off as published) serve networks that are too narrow, or trained too briefly, to tell the noise of
hundreds of bands from their spectra: an error of the predicted noise is divided by the signal's share, 0.006 at the first step.
As there, "no condition" is 0 after normalisation (a mid-grey), and the spectral angle of training is that of the normalised values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ReadWith, Such
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import Base, BaseConfig, NoBaseConfig
from rsdiff.diffusion.guidance import TwoCall, clamp_to_quantile
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, ScheduleConfig
from rsdiff.diffusion.solvers import Denoiser, Observers, per_image
from rsdiff.losses.images import masked_l1, masked_mse, spectral_angle_loss
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_multiple
from rsdiff.networks.scdm_unet import SCDMUNetConfig


@config
class SCDMConfig(SCDMUNetConfig, MethodConfig):
    """SCDM. The defaults are the published 3 -> 12 -> 48 bands, for images normalised to fill [0, 1]."""

    has_own_step: ClassVar[bool | None] = False
    usual_scale: ClassVar[int] = 1
    read_with: ClassVar[ReadWith] = {
        "clamp_table": ("clamp_shares", (Such("[0.96,..]", lambda shares: min(shares) < 1),)),
        "rounded_levels": ("strides", (Such("[4,1]", lambda strides: len(strides) > 1),)),
    }

    strides: tuple[int, ...] = (4, 1)
    """Band plan: stage k makes every strides[k]-th band, from the first on; the last stage makes all (1)."""
    guidance_weights: tuple[float, ...] = (2.5, 1.0)
    """ICMG weight w of every stage: e = (1 + w) e_condition - w e_empty; 0 is none, at half the cost."""
    clamp_shares: tuple[float, ...] = (0.96, 0.96)
    """PDT: share of a state's values left unclamped at the first step, rising to 1, of every stage; 1 clamps nothing."""
    clamp_table: int = 1000
    """Steps over which the share rises, whatever the steps of the schedule."""
    schedule: ScheduleConfig = ScheduleConfig(steps=1000, start=1e-4, end=2e-2)
    """Noise levels of training."""
    prediction: Annotated[Literal["noise", "clean"], Ours("weights")] = "noise"
    """What the networks predict: the noise, as published, or the clean bands, which narrow networks can learn (ours)."""
    base: Annotated[BaseConfig, Ours("weights")] = NoBaseConfig()
    """Subtracted from the target before it is diffused, and added back (ours): regression, on the condition of a stage; none as
    published."""
    loss: Literal["l1", "l2"] = "l1"
    """Mean absolute or mean squared error of what is predicted."""
    angle_weight: float = 1.0
    """Weight of the spectral angle of the clean estimate."""
    empty_share: float = 0.1
    """Share of training images whose condition is emptied, for guidance."""
    centre: float = 0.5
    """Value in [0, 1] that becomes 0 inside."""
    spread: float = 0.5
    """What values in [0, 1] are divided by, after `centre` was taken off."""
    rounded_levels: int | None = 65535
    """Round what a stage hands on to this many steps of [0, 1], as a file of 16 bits does; None hands on what was sampled."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strides or self.strides[-1] != 1 or any(a <= b for a, b in zip(self.strides, self.strides[1:], strict=False)):
            raise UserError(f"strides={list(self.strides)} is no band plan; choose falling numbers that end with 1, for example [4,1].")
        for name in ("guidance_weights", "clamp_shares"):
            if len(getattr(self, name)) != len(self.strides):
                raise UserError(
                    f"{name}={list(getattr(self, name))} must have one value per stage, of which strides make {len(self.strides)}."
                )
        if min(self.clamp_shares) < 0 or max(self.clamp_shares) > 1 or self.clamp_table < 2:
            raise UserError(
                f"clamp_shares={list(self.clamp_shares)} are shares from 0 to 1, and clamp_table={self.clamp_table} at least 2."
            )
        if not 0 <= self.empty_share < 1:
            raise UserError(f"empty_share={self.empty_share} must be 0 or more and less than 1.")
        if self.spread <= 0 or (self.rounded_levels is not None and self.rounded_levels < 1):
            raise UserError(f"spread={self.spread} and rounded_levels={self.rounded_levels} must be above 0.")

    @property
    def sampled_levels(self) -> int:
        return self.schedule.steps

    def starts_at_image(self, problem: Problem) -> bool:
        return False

    def refuse(self, problem: Problem) -> str | None:
        other_scale = problem.refuse_other_scales("scdm")
        if other_scale is not None:
            return other_scale
        refusal = self.base.refuse_base("scdm", problem)
        if refusal is not None:
            return refusal
        if problem.bands <= self.strides[0]:
            return f"model.strides={list(self.strides)} leave one band of {problem.bands} to the first stage; choose smaller strides."
        return None

    def build(self, problem: Problem) -> SCDM:
        return SCDM(self, problem)


@dataclass
class Objective:
    """What a stage minimises at drawn steps, and what it is made of.

    x      (B, C, H, W), the noisy target
    clean  (B, C, H, W), the estimate of the target, not clamped
    error  mean error of what the network predicts
    angle  `spectral_angle_loss` of the estimate
    """

    x: Tensor
    clean: Tensor
    error: Tensor
    angle: Tensor


class SCDM(Method):
    """See the module and `SCDMConfig`."""

    def __init__(self, options: SCDMConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.schedule = options.schedule.build()
        counts = [len(range(0, problem.bands, stride)) for stride in options.strides]
        conditions = [problem.lr_bands, *counts[:-1]]
        self.counts = counts
        self.networks = nn.ModuleList(options.build_network(*sizes) for sizes in zip(counts, conditions, strict=True))
        problems = [Problem(1, made, given) for made, given in zip(counts, conditions, strict=True)]
        self.bases = nn.ModuleList(options.base.build_base(problem) for problem in problems)

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {f"stage_{index + 1}": network.parameters() for index, network in enumerate(self.networks)}

    def passes(self, stage: Stage) -> Sequence[Stage]:
        return [replace(stage, groups=(group,)) for group in stage.groups]

    def normalise(self, image: Tensor) -> Tensor:
        """Return an image of [0, 1] in the units of the networks."""
        return (image - self.options.centre) / self.options.spread

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        return {group: self.stage_losses(list(self.groups()).index(group), batch, noise) for group in stage.groups}

    def stage_losses(self, stage: int, batch: Batch, noise: NoiseSource) -> Losses:
        """Return the objective of one stage of the cascade on the target's true bands."""
        hr = batch.need("hr")
        require_multiple(batch, self.options.size_multiple)
        target = self.normalise(hr[:, :: self.options.strides[stage]])
        condition = self.normalise(hr[:, :: self.options.strides[stage - 1]] if stage else batch.need("lr"))
        if self.training and self.base(stage).learns:
            self.base(stage).observe(condition, target, batch.whole_pixels)
        valid = None if batch.valid is None else batch.valid[:, :: self.options.strides[stage]]
        t = noise.integers(0, len(self.schedule), (len(hr),), hr.device)
        kept = noise.uniform((len(hr),), hr.device) > self.options.empty_share
        base = self.explained(stage, condition)
        drawn = noise.normal(target.shape, hr.device)
        found = self.objective(stage, target - base, condition * per_image(kept.to(hr), hr), t, drawn, base, valid)
        total = found.error + self.options.angle_weight * found.angle
        return Losses(total, {self.options.prediction: found.error.detach(), "angle": found.angle.detach()})

    def after_step(self, stage: Stage, step: int) -> None:
        for number in range(len(self.bases)):
            self.base(number).settle()

    def base(self, stage: int) -> Base:
        """Return what the targets of a stage are diffused on."""
        return cast(Base, self.bases[stage])

    def explained(self, stage: int, condition: Tensor) -> Tensor:
        """Return the part of a stage's target that is not diffused, in the networks' units: of a regression (B, C, H, W), or 0."""
        base = self.base(stage)
        return base(condition, (condition.shape[-2], condition.shape[-1])) if base.adds else condition.new_zeros(())

    def objective(
        self,
        stage: int,
        target: Tensor,
        condition: Tensor,
        t: Tensor,
        drawn: Tensor,
        base: Tensor | float = 0.0,
        valid: Tensor | None = None,
    ) -> Objective:
        """Return the terms of `stage` for images in its units, steps t (B,) int64 and noise `drawn` of the target's shape.

        base   what is added to target and estimate before the angle between them is taken
        valid  which values of the target count, (B, C, H, W) of 0 and 1, or None for all
        """
        alphas_bar = self.schedule.on(target.device, "alphas_bar")[t]
        signal, deviation = (per_image(part.sqrt(), target) for part in (alphas_bar, 1 - alphas_bar))
        x = signal * target + deviation * drawn
        predicted = self.networks[stage](x, condition, t)
        clean, wanted = predicted, target
        if self.options.prediction == "noise":
            clean, wanted = x * per_image((1 / alphas_bar).sqrt(), x) - predicted * per_image((1 / alphas_bar - 1).sqrt(), x), drawn
        error = (masked_l1 if self.options.loss == "l1" else masked_mse)(predicted, wanted, valid)
        return Objective(x, clean, error, spectral_angle_loss(clean + base, target + base, valid))

    def denoiser(self, stage: int, condition: Tensor) -> TwoCall:
        """Return the network of `stage` as a denoiser guided by its condition (B, c, H, W), both in the networks' units."""

        # What `sampler.clip` limits estimates to; the published sampler does not clip.
        limits = ((0 - self.options.centre) / self.options.spread, (1 - self.options.centre) / self.options.spread)
        if self.base(stage).adds:
            limits = (limits[0] - limits[1], limits[1] - limits[0])

        def bound(given: Tensor) -> Denoiser:
            def predict(x: Tensor, t: Tensor) -> Tensor:
                return self.networks[stage](x, given.to(x.dtype), t)

            return DiscreteDenoiser(predict, self.schedule, self.options.prediction, time="index", data_range=limits)

        return TwoCall(bound(condition), bound(torch.zeros_like(condition)), self.options.guidance_weights[stage])

    def sample_stage(self, stage: int, condition: Tensor, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        """Return the bands of `stage` (B, C, H, W) for a condition, both in the networks' units; not clamped."""
        share = self.options.clamp_shares[stage]
        observers = Observers(before_step=ProgressiveClamp(self.schedule, share, self.options.clamp_table)) if share < 1 else Observers()
        shape = (len(condition), self.counts[stage], *condition.shape[-2:])
        diffused = sample(sampler, self.denoiser(stage, condition), shape, noise, device=condition.device, observers=observers)
        return diffused.float() + self.explained(stage, condition)

    def handed_on(self, image: Tensor) -> Tensor:
        """Return a stage's result (in the networks' units) in [0, 1], as the next one is given it: rounded half up, and limited."""
        values, levels = image.double() * self.options.spread + self.options.centre, self.options.rounded_levels
        return (values if levels is None else ((values * levels + 0.5).floor() / levels).clamp(0, 1)).float()

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        image = batch.need("lr")
        for stage in range(len(self.networks)):
            sampled = self.sample_stage(stage, self.normalise(image), sampler, noise)
            last = stage == len(self.networks) - 1
            image = sampled * self.options.spread + self.options.centre if last else self.handed_on(sampled)
        return image

    def pixel_multiple(self) -> int:
        return self.options.size_multiple


def unclamped_share(t: int, lowest: float, table: int) -> float:
    """Return PDT's quantile at step t: `lowest` at t = table - 1, rising linearly to 1 at t = 0."""
    return 1 - (1 - lowest) * t / (table - 1)


class ProgressiveClamp:
    """PDT as `Observers.before_step`: clamps x = y / sqrt(1 + sigma^2) to its quantile at the step of sigma, or to +-1 if that is more.

    lowest, table  see `unclamped_share`
    The code clamps the state, although the paper's figure speaks of the predicted noise. Levels between two steps take the nearer one.
    """

    def __init__(self, schedule: DiscreteSchedule, lowest: float, table: int) -> None:
        self._logarithms = schedule.sigmas.log()
        self._lowest, self._table = lowest, table

    def __call__(self, y: Tensor, sigma: float) -> Tensor:
        t = int((self._logarithms - torch.tensor(sigma, dtype=torch.float64).log()).abs().argmin())
        factor = (1 + sigma**2) ** 0.5
        return clamp_to_quantile(y / factor, unclamped_share(t, self._lowest, self._table)) * factor
