"""Options of the one trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from rsdiff.config import UserError, config


@config
class OptimiserConfig:
    """One optimiser; every optimiser group of a method has its own."""

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
        if self.lr <= 0:
            raise UserError(f"the learning rate is {self.lr}; it must be above 0.")


@config
class LearningRateConfig:
    """How the learning rate of every group changes; a factor of `lr` as a function of the step or of the images seen."""

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
        if self.gammas and len(self.gammas) != len(self.milestones):
            raise UserError(
                f"learning_rate has {len(self.milestones)} milestones and {len(self.gammas)} gammas; give one for each milestone, or none."
            )


@config
class EmaConfig:
    """Averages of the weights over training; the first is the one that evaluation uses."""

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
        {"workers", "log_every_steps", "save_every_steps", "keep_checkpoints", "time_limit_minutes"}
    )

    budget: Literal["quick", "paper", "none"] = "none"
    """What reports call this budget: 'quick' checks the machinery, 'paper' is a published recipe, 'none' is neither."""
    steps: int = 1000
    """Optimiser steps."""
    batch: Annotated[int, BeforeValidator(_a_number)] = 16
    """Images per optimiser step, over all processes and micro-batches; part of the recipe. To fit the memory, set accumulate=auto."""
    accumulate: int | Literal["auto"] = 1
    """Micro-batches per optimiser step and process; auto: as few as the memory allows, found when the run begins and kept."""
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
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision of Accelerate; 'no' is float32."""
    clip_norm: float | None = None
    """Largest gradient norm per group; None means no clipping."""
    replace_nan_gradients: bool = False
    """Set NaN gradients to 0 and infinite ones to +-1e5 (EDM)."""
    compile: bool = False
    """torch.compile every network."""
    channels_last: bool = False
    """Store images and weights channels-last (faster convolutions on CUDA)."""
    validate_every_steps: int = 500
    """Validate, and save a checkpoint, every so many steps and at the end; 0 means never."""
    validation_images: int = 8
    """Images of the validation split that are restored each time."""
    best_metric: str | None = "psnr"
    """Column of the validation rows that decides which checkpoint is the best; None takes the last one (GANs, which PSNR does not rank)."""
    save_every_steps: int = 500
    """Save a checkpoint to resume from every so many steps."""
    keep_checkpoints: int = 2
    """Checkpoints kept besides the best one."""
    log_every_steps: int = 10
    """Write losses to the log every so many steps."""
    workers: int = 2
    """Loader processes per training process; results do not depend on it."""
    time_limit_minutes: float | None = None
    """Save and stop in good order after this time; the same command continues."""

    def __post_init__(self) -> None:
        if self.scale_per == "image" and (self.scale_range is None or self.scale_keeps == "hr"):
            raise UserError("scale_per=image needs a scale_range and scale_keeps=lr, for the LR images of a step must have one size.")
        for name in ("steps", "batch", "accumulate", "patch", "crop_step", "save_every_steps", "log_every_steps"):
            if getattr(self, name) != "auto" and getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1.")

        if not 0 <= self.least_valid <= 1:
            raise ValueError(f"least_valid is {self.least_valid}; it is a share of the crop's values: choose 0 to 1.")

    def optimiser_of(self, group: str) -> OptimiserConfig:
        """Return the optimiser config of one group."""
        return self.optimisers.get(group, self.optimiser)
