"""Options of the one trainer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from rsdiff.config import UserError, config
from rsdiff.config.computing import Precision
from rsdiff.config.reading import ABOVE_0, ANY_VALUE, ReadWith, require_above, require_at_least, require_below


@config
class OptimiserConfig:
    """One optimiser; every optimiser group of a method has its own."""

    read_with: ClassVar[ReadWith] = {"eps": ("algorithm", ("adam", "adamw"))}

    algorithm: Literal["adam", "adamw", "lion", "sgd"] = "adam"
    """Update rule."""
    lr: float = 1e-4
    """Learning rate at full height."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moment (adam, adamw, lion); the first is the momentum of sgd."""
    eps: float = 1e-8
    """Term added to the denominator (adam, adamw)."""
    weight_decay: float = 0.0
    """L2 penalty (adam, sgd) or decoupled decay (adamw, lion)."""

    def __post_init__(self) -> None:
        require_above(self, lr=0.0)
        require_at_least(self, betas=0.0, eps=0.0, weight_decay=0.0)
        require_below(self, betas=1.0)


@config
class LearningRateConfig:
    """How the learning rate of every group changes; a factor of `lr` as a function of the step or of the images seen."""

    read_with: ClassVar[ReadWith] = {
        "milestones": ("shape", ("multistep",)),
        "gamma": ("shape", ("multistep",)),
        "gammas": ("shape", ("multistep",)),
        "periods": ("shape", ("cosine_restarts",)),
        "restart_weights": ("shape", ("cosine_restarts",)),
        "floor": ("shape", ("cosine", "cosine_restarts")),
    }

    shape: Literal["constant", "multistep", "cosine", "cosine_restarts"] = "constant"
    """constant; halved (by `gamma`) at `milestones`; half a cosine to `floor`; half cosines of length `periods`."""
    warmup_images: int = 0
    """Linear rise from 0 over this many images."""
    milestones: tuple[int, ...] = ()
    """Steps at which multistep multiplies by `gamma`."""
    gamma: float = 0.5
    """Factor of multistep."""
    gammas: tuple[float, ...] = ()
    """Factor of multistep at each milestone, where they differ; empty means `gamma` at all."""
    periods: tuple[int, ...] = ()
    """Lengths in steps of the cosines of cosine_restarts."""
    restart_weights: tuple[float, ...] = ()
    """Height of each cosine of cosine_restarts, relative to lr; empty means 1 for all."""
    floor: float = 0.0
    """Lowest factor of cosine and cosine_restarts."""

    def __post_init__(self) -> None:
        require_at_least(self, warmup_images=0, milestones=1, gamma=0.0, gammas=0.0, periods=1, restart_weights=0.0, floor=0.0)
        needed = {"multistep": "milestones", "cosine_restarts": "periods"}.get(self.shape)
        if needed is not None and not getattr(self, needed):
            raise UserError(f"shape={self.shape} needs its {needed}; add trainer.learning_rate.{needed}=[STEP,..] or choose another shape.")
        if any(later <= earlier for earlier, later in itertools.pairwise(self.milestones)):
            raise UserError(f"milestones={list(self.milestones)} are not in rising order; correct the list.")
        if self.restart_weights and len(self.restart_weights) != len(self.periods):
            raise UserError(
                f"learning_rate has {len(self.periods)} periods and {len(self.restart_weights)} restart_weights; give as many, or none."
            )
        if self.gammas and len(self.gammas) != len(self.milestones):
            raise UserError(
                f"learning_rate has {len(self.milestones)} milestones and {len(self.gammas)} gammas; give one for each milestone, or none."
            )


@config
class EmaConfig:
    """Averages of the weights over training; the first is the one that evaluation uses."""

    read_with: ClassVar[ReadWith] = {
        "decays": ("rule", ("constant", "rising")),
        "half_lives_images": ("rule", ("half_life",)),
        "ramp_up": ("rule", ("half_life",)),
        "start_step": ("rule", ("constant", "rising", "half_life")),
        "every_steps": ("rule", ("constant", "rising", "half_life")),
    }

    rule: Literal["off", "constant", "rising", "half_life"] = "off"
    """off; a constant decay per step; (1 + n) / (10 + n) at step n up to the decay (latent diffusion); a half-life in images with ramp-up
    (EDM)."""
    decays: tuple[float, ...] = (0.999,)
    """One average per decay (constant, rising)."""
    half_lives_images: tuple[int, ...] = (500_000,)
    """One average per half-life (half_life)."""
    ramp_up: float | None = 0.05
    """The half-life is at most this share of the images seen so far (half_life); None means no ramp-up."""
    start_step: int = 0
    """Averages equal the weights until this step."""
    every_steps: int = 1
    """Averages are updated every so many steps."""

    def __post_init__(self) -> None:
        needed = {"constant": "decays", "rising": "decays", "half_life": "half_lives_images"}.get(self.rule)
        if needed is not None and not getattr(self, needed):
            raise UserError(f"{needed} is empty, so rule={self.rule} makes no average; give one or more, or leave it out.")
        require_at_least(self, decays=0.0, half_lives_images=1, start_step=0, every_steps=1)
        require_below(self, decays=1.0)
        require_above(self, ramp_up=0.0)


def _a_number(batch: object) -> object:
    """Refuse batch=auto in a file, which would not say what the batch is; on a command line it stands for accumulate=auto."""
    if batch == "auto":
        raise UserError(
            "auto was given; give a number of images, which results depend on, or trainer.accumulate=auto, which keeps that number and "
            "computes as many of them at once as fit the memory."
        )
    return batch


@config
class TrainerConfig:
    """The training loop: length, batch, optimisers, precision, what is saved and how often."""

    result_neutral: ClassVar[frozenset[str]] = frozenset(
        {"workers", "log_every_steps", "save_every_steps", "keep_checkpoints", "time_limit_minutes", "validation_batch"}
    )
    read_with: ClassVar[ReadWith] = {
        "scale_keeps": ("scale_range", (ANY_VALUE,)),
        "scale_per": ("scale_range", (ANY_VALUE,)),
        "extend_schedule": ("extend", (ANY_VALUE,)),
        "best_metric": (("validate_every_steps", (ABOVE_0,)), ("validation_images", (ABOVE_0,))),
        "precision": ("speed", ("exact",)),
        "channels_last": ("speed", ("exact",)),
        "compile": ("speed", ("exact",)),
    }

    budget: Literal["quick", "paper", "none"] = "none"
    """What reports call this budget: 'quick' checks the machinery, 'paper' is a published recipe, 'none' is neither."""
    steps: int = 1000
    """Optimiser steps."""
    batch: Annotated[int, BeforeValidator(_a_number)] = 16
    """Images per optimiser step, over all processes and micro-batches; part of the recipe. To fit the memory, set accumulate=auto."""
    accumulate: int | Literal["auto"] = 1
    """Micro-batches per optimiser step and process; auto: as few as the memory allows, found when the run begins and kept."""
    split_coupled: bool = False
    """Share a batch among micro-batches and processes although the model's loss couples its images; results then depend on how many."""
    patch: int = 128
    """Side of the square HR crop in pixels."""
    crop_step: int = 1
    """Crops begin at multiples of so many pixels from the top left corner."""
    scale_range: tuple[float, float] | None = None
    """Draw the scale of every step from (lowest, highest), for continuous-scale methods; None means `scale` always."""
    scale_keeps: Literal["lr", "hr"] = "lr"
    """Which crop keeps its size at every scale drawn: the LR crop, with patch / highest pixels a side, or the HR crop, with `patch`."""
    scale_per: Literal["batch", "image"] = "batch"
    """Whether the images of a step share the scale drawn, or each draws its own (methods that query single pixels; LR crops keep size)."""
    augment: bool = True
    """Flip and transpose the crops, each with probability 1/2."""
    least_valid: float = 0.5
    """Share of a crop's values that must be known, and far enough from missing ones for the degradation; others are drawn again."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """The optimiser of every group that `optimisers` does not name."""
    optimisers: Mapping[str, OptimiserConfig] = field(default_factory=dict)
    """Optimisers of single groups, e.g. {discriminator: {lr: 2e-4}}."""
    learning_rate: LearningRateConfig = LearningRateConfig()
    """Schedule of the learning rate."""
    ema: EmaConfig = EmaConfig()
    """Averages of the weights."""
    speed: Literal["exact", "fast"] = "exact"
    """exact: as precision, channels_last and compile say, which by default is float32. fast: what of them trains faster with this model on
    this device, measured in a few passes when the run begins; the choice is printed with its distance from exact, noted in speed.json and
    in every checkpoint, and kept."""
    precision: Precision = "no"
    """Mixed precision of the networks, in training and validations; 'no' is float32. Scores at the end are of float32."""
    tf32: bool = True
    """On a GPU, products and convolutions of float32 read 10 of the 23 bits of a mantissa (TF32): several times faster than exact ones."""
    cudnn_benchmark: bool = True
    """On a GPU, cuDNN tries its algorithms for every shape of a convolution and keeps the fastest; worth it for crops of one size."""
    fused: bool = True
    """Adam and SGD move all weights in one kernel, and under fp16 the host does not wait for the overflow flags. The other kernels round
    some bits otherwise."""
    clip_norm: float | None = None
    """Largest gradient norm per group; None means no clipping."""
    replace_nan_gradients: bool = False
    """Set NaN gradients to 0 and infinite ones to +-1e5 (EDM)."""
    compile: bool | Literal["blocks"] = False
    """torch.compile: true takes what a step calls of the networks, blocks the repeated blocks in it (compiled once for all, in seconds).
    What is compiled, and what is not, is said when the training begins."""
    channels_last: bool = False
    """Store images and weights channels-last (faster convolutions in 16 bits, and of networks without GroupNorm on a CPU)."""
    validate_every_steps: int = 500
    """Validate, and save a checkpoint, every so many steps and at the end; 0 means never, and the last checkpoint counts as the best."""
    validation_images: int = 8
    """Training images held out, at most a fifth of them, and restored each time; 0 means that there is no validation."""
    validation_batch: int = 1
    """Images of one size restored together in validations and in the evaluation at the end; more than 1 helps on a GPU."""
    best_metric: str | None = "psnr"
    """Validation metric that decides which checkpoint is the best; None takes the last one (GANs, which PSNR does not rank)."""
    patience: int | None = None
    """Stop early when so many validations in a row did not improve `best_metric`; None trains all steps."""
    save_every_steps: int = 500
    """Save a checkpoint to resume from every so many steps."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept besides the best one; the newest one always is."""
    log_every_steps: int = 10
    """Write losses to the log every so many steps."""
    workers: int = 2
    """Loader processes per training process; results do not depend on it."""
    time_limit_minutes: float | None = None
    """Save and stop cleanly after this time; the same command continues."""
    processor_minutes: float | None = None
    """Train for so much processor time, over all the processes that continue it, in place of `steps`; schedules and stages follow the share
    of it, as if it were so many `steps`. For comparisons of methods on equal terms; with workers=0, so that loading counts."""
    extend: str | None = None
    """Run (its folder or signature) whose training this one continues: from its newest checkpoint, with weights, moments, averages and
    step, under the settings given here. `steps` counts from the beginning of that run."""
    extend_schedule: Literal["continue", "restart"] = "continue"
    """Learning rate of an extended training: that of this run's schedule at the step reached, or the schedule begun anew."""
    partial: bool = False
    """Take from `checkpoint` the weights whose name and shape fit (another scale, other bands or widths); the others are drawn anew."""

    def __post_init__(self) -> None:
        if self.scale_per == "image" and (self.scale_range is None or self.scale_keeps == "hr"):
            raise UserError("scale_per=image needs a scale_range and scale_keeps=lr, for the LR images of a step must have one size.")
        require_at_least(self, steps=1, batch=1, accumulate=1, patch=1, crop_step=1, save_every_steps=1, log_every_steps=1, patience=1)
        require_at_least(self, validation_batch=1)
        require_at_least(self, validate_every_steps=0, validation_images=0, keep_checkpoints=0, workers=0)
        require_above(self, clip_norm=0.0, time_limit_minutes=0.0, processor_minutes=0.0)
        require_at_least(self, scale_range=1.0)
        if self.processor_minutes is not None and self.workers:
            raise UserError(
                f"processor_minutes counts this process alone, and workers={self.workers} processes would load for it; set workers=0."
            )
        if not 0 <= self.least_valid <= 1:
            raise UserError(f"least_valid is {self.least_valid}; it is a share of the crop's values: choose 0 to 1.")
        if self.scale_range is not None and self.scale_range[0] > self.scale_range[1]:
            raise UserError(f"scale_range is {list(self.scale_range)}; give the lowest scale first.")
        shape = self.learning_rate
        if shape.shape == "cosine_restarts" and sum(shape.periods) < self.steps and shape.floor == 0:
            raise UserError(
                f"learning_rate.periods={list(shape.periods)} end at step {sum(shape.periods)} and steps={self.steps}, so the "
                "learning rate would be 0 from there on; let the periods last as long as the training."
            )
        if self.patience is not None and (self.best_metric is None or not self.validates):
            raise UserError(
                "patience has no effect without validations and a best_metric; set validate_every_steps, validation_images and "
                "best_metric, or leave it out."
            )

    @property
    def validates(self) -> bool:
        """Whether there are validations at all."""
        return self.validate_every_steps > 0 and self.validation_images > 0

    def cautions(self) -> list[str]:
        """Return a sentence for each setting that cannot have its effect in so few steps."""
        rate, said = self.learning_rate, []
        if rate.shape == "multistep" and rate.milestones[0] >= self.steps:
            said.append(
                f"note: the first of trainer.learning_rate.milestones is step {rate.milestones[0]}, which a training of {self.steps} steps "
                "does not reach: its learning rate is constant."
            )
        if rate.warmup_images >= self.steps * self.batch:
            said.append(
                f"note: trainer.learning_rate.warmup_images={rate.warmup_images} is not less than the {self.steps * self.batch} images of "
                "this training: the full learning rate is never reached."
            )
        if self.ema.rule != "off" and self.ema.start_step >= self.steps:
            said.append(f"note: trainer.ema.start_step={self.ema.start_step} is never reached: the averages are the weights themselves.")
        return said

    def optimiser_of(self, group: str) -> OptimiserConfig:
        """Return the optimiser config of one group."""
        return self.optimisers.get(group, self.optimiser)
