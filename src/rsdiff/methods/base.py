"""The contract of every method: what it needs, what it minimises, how it restores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.data.problem import Problem as Problem
from rsdiff.data.sample import Batch

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


Term = tuple[float, Tensor]
"""(weight, unweighted loss ())"""


@dataclass
class Losses:
    """total: the scalar to back-propagate; terms: its named parts, detached, for the log."""

    total: Tensor
    terms: Mapping[str, Tensor]

    @classmethod
    def summed(cls, terms: Mapping[str, Tensor]) -> Losses:
        """Return the sum of terms that hold their weights."""
        return cls(torch.stack(list(terms.values())).sum(), {name: value.detach() for name, value in terms.items()})

    @classmethod
    def weighted(cls, terms: Mapping[str, Term]) -> Losses:
        """Return the sum of the terms times their weights; the log shows the terms without."""
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        return cls(total, {name: value.detach() for name, (_, value) in terms.items()})


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    name    shown in the log and in checkpoints
    groups  optimiser groups stepped in this order at every step
    steps   length in optimiser steps; None means until the end of training
    step    optimiser steps of the whole training made before; the trainer keeps it up to date
    """

    name: str
    groups: Sequence[str]
    steps: int | None = None
    step: int = 0


@dataclass(frozen=True)
class Predecessor:
    """The earlier training that a method starts from, e.g. the frozen first stage of a latent diffusion.

    kind     method kind of that run
    options  options of its config that must be equal, by name
    """

    kind: str
    options: Mapping[str, Any]


class MethodConfig:
    """Base of every method's config class (see rsdiff.config.typed.config), which holds every option of the method and builds it.

    A class overrides what differs from these defaults.
    """

    usual_scale: ClassVar[int] = 4
    """Scale of a run that gives none; 1 for methods that add bands and keep the pixels."""
    samples: ClassVar[bool] = True
    """Whether restoring runs a sampler; where it does not, options of the group `sampler` have no effect and are refused."""
    has_own_step: ClassVar[bool | None] = None
    """Whether the denoiser has a step of its own, which sampler.solver=native takes; None where nobody says so."""
    takes_checkpoint: ClassVar[bool] = False
    """Whether `checkpoint=FILE` is the method's own option `weights`: a file that is no checkpoint of rsdiff."""

    taught_on_checkpoint: ClassVar[bool] = False
    """Whether `checkpoint=RUN` of another model brings that model's settings as the option `regression`, which then is trained upon."""

    @property
    def requires(self) -> frozenset[str]:
        """Batch fields the method cannot be trained without, among hr, lr, ref, change_mask, kernel, noise_level, lr_clean, hr_views."""
        return frozenset({"hr", "lr"})

    @property
    def views(self) -> int:
        """Crops per training image under one degradation; more than 1 for contrastive methods."""
        return 1

    @property
    def target_kernel_size(self) -> int | None:
        """Side of the blur kernels that training compares with; None where it compares with none, or with any."""
        return None

    @property
    def target_side(self) -> int | None:
        """Side in pixels of the training targets that a discriminator is built for; None where they may have any."""
        return None

    @property
    def any_scale(self) -> bool:
        """Whether one set of weights serves every scale."""
        return False

    def trained_scales(self, highest: float, drawn: tuple[float, float] | None) -> tuple[float, float]:
        """Return the lowest and the highest scale of a training at `scale=highest` with trainer.scale_range=`drawn`."""
        return (highest, highest) if drawn is None else drawn

    @property
    def is_ready(self) -> bool:
        """Whether `build` returns a method that restores without training and without a checkpoint."""
        return False

    @property
    def files(self) -> Sequence[Path]:
        """Files that `build` reads: runs are distinguished by their content."""
        return ()

    @property
    def predecessor(self) -> Predecessor | None:
        """The finished training without which this one cannot begin, or None."""
        return None

    @property
    def sampled_levels(self) -> int | None:
        """Return how many noise levels samplers choose from, 0 where they may take any, None where nobody says so."""
        return None

    @property
    def leaves_unread(self) -> Mapping[str, str]:
        """Return options of other groups, or groups, that have no effect with this method -> why and what to do, as a sentence goes on."""
        if not self.samples:
            return {"sampler": "has no effect with this model, which restores without a sampler; leave it out, or choose a diffusion."}
        if self.sampled_levels == 0:
            why = "has no effect with this model, which has no table of levels; leave it out, or set sampler.steps."
            return dict.fromkeys(("sampler.spacing", "sampler.stride"), why)
        return {}

    def starts_at_image(self, problem: Problem) -> bool:
        """Whether sampling may begin at the enlarged LR image (sampler.start=image..) instead of at noise."""
        return True

    def refuse(self, problem: Problem) -> str | None:
        """Return None, or one sentence that says why the method cannot treat `problem` and what to change."""
        return None

    def build(self, problem: Problem) -> Method:
        """Return the method with fresh weights drawn from PyTorch's global generator, which the caller seeds."""
        raise NotImplementedError


def coupling_of(layer: nn.Module) -> str:
    """Return what makes the result of a layer for an image depend on other images, or on the number of batches; "" where nothing does.

    A layer of ours says so itself, in `couples_images`.
    """
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return "its batch normalisation takes the statistics of the images of a batch"
    return str(getattr(layer, "couples_images", ""))


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Leave the parameters of `modules` out of the graph that is recorded meanwhile: what judges is not trained by what it judges."""
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


class Method(nn.Module):
    """Networks, objective and restoration put together. Subclasses define `losses` and `restore` and may define the rest.

    The trainer calls `prepare_training` once, `start_stage` when a stage begins, and per step, for each of `passes`: `losses`, the backward
    pass of every group's loss, the optimiser step of every group; then `after_step`.
    Everything that must survive a resume is a parameter or a buffer (queues, momentum encoders, counters).
    """

    couples_batch: bool = False
    """Whether the loss of an image depends on the other images of its batch (contrasts, queues, batch normalisation, relative adversaries):
    micro-batches then change the objective, not only the memory it takes. `coupling` says how."""
    training_only: ClassVar[tuple[str, ...]] = ()
    """How the names of tensors begin that only training uses (a discriminator's): not counted, and not needed to restore."""
    predicts_quantiles: ClassVar[bool] = False
    """Whether several samples of an image are quantiles of every pixel (see `at_level`) instead of images that could be."""

    @property
    def architecture(self) -> str:
        """The networks that restore, by their class, for results."""
        used = [part for name, part in self.named_children() if not f"{name}.".startswith(self.training_only)]
        return ", ".join(dict.fromkeys(type(part).__name__ for part in used if any(True for _ in part.parameters()))) or "no network"

    def parameter_count(self) -> int:
        """Return how many parameters restoring uses."""
        return sum(value.numel() for name, value in self.named_parameters() if not name.startswith(self.training_only))

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Optimiser groups by name; by default one group 'restorer' of all trainable parameters."""
        return {"restorer": [p for p in self.parameters() if p.requires_grad]}

    def stages(self) -> Sequence[Stage]:
        """Stages in order; by default one stage that steps every group."""
        return [Stage("train", tuple(self.groups()))]

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take what this method needs of its predecessor's weights; called once, before the first step of a training that has one."""
        raise NotImplementedError

    def prepare_training(self) -> None:
        """Called once before the first step of a training or of its continuation, with the weights in place: reads what only training
        needs (perceptual networks). Raises ValueError in one sentence when that is nowhere."""

    def start_stage(self, stage: Stage) -> None:
        """Called when a stage begins (and again when a run resumes in it) to freeze what it does not train; `losses` is given the stage."""

    def passes(self, stage: Stage) -> Sequence[Stage]:
        """Return the parts of a stage's step that are computed and optimised one after the other, each with some of its groups.

        By default one: all losses come from one forward pass, before any weight moves. Groups of networks that share nothing take a pass
        each, so that only one of their graphs is in memory.
        """
        return [stage]

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        """Return the objective of each of `stage.groups` on a degraded batch; its gradient reaches the parameters of its group alone
        (see `frozen`). All randomness comes from `noise`."""
        raise NotImplementedError

    @property
    def coupling(self) -> str:
        """What couples the images of a batch, as it follows the word "for" in a sentence; "" where nothing does.

        The trainer then shares a batch neither among micro-batches nor among processes, unless it is allowed to. Layers that couple are
        found here; a method that couples otherwise says so.
        """
        said = "its objective compares the images of a batch with each other" if self.couples_batch else ""
        return next((words for module in self.modules() if (words := coupling_of(module))), said)

    def after_step(self, stage: Stage, step: int) -> None:
        """Called after all groups of a step were optimised (momentum updates, counters)."""

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        """Return (B, C, H, W) in [0, 1] (not clamped, not rounded) for batch.lr and batch.size; hr may be absent."""
        raise NotImplementedError

    def at_level(self, level: float) -> Method:
        """Return the method, with the same weights, as one whose `restore` gives every pixel's quantile at `level` in (0, 1); of methods
        that predict them."""
        raise NotImplementedError

    def estimates(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return what the method estimates besides the image, e.g. {'kernel': (B, k, k)}, for result rows and reports.

        'true_kernel' (B, k, k) beside it, where the batch tells it, is what the estimate is compared with.
        """
        return {}

    def degradation_code(self, batch: Batch) -> Tensor | None:
        """Return (B, ...), what the method estimates that is common to all pixels of a scene, or None if it estimates nothing of the kind.

        A mean over windows of a scene comes back as `batch.code`, which `restore` then uses in place of an estimate of its own.
        """
        return None

    def target_multiple(self) -> int:
        """Tiles of a scene begin at multiples of so many target pixels and have such sides: the cell of a latent, where there is one."""
        return 1

    def pixel_multiple(self) -> int:
        """LR height and width must be multiples of this; callers pad by reflection and crop the result."""
        return 1


def require_multiple(batch: Batch, multiple: int) -> None:
    """Raise ValueError unless the targets' height and width are multiples of `multiple`."""
    if batch.size[0] % multiple or batch.size[1] % multiple:
        raise UserError(
            f"training images of {batch.size[0]}x{batch.size[1]} pixels were given to a network that halves them; "
            f"choose trainer.patch as a multiple of {multiple}."
        )


def require_scale(batch: Batch, scale: int) -> None:
    """Raise ValueError unless the target is the LR enlarged by `scale`."""
    h, w = batch.lr_size
    if batch.size != (h * scale, w * scale):
        raise UserError(
            f"a target of {batch.size[0]}x{batch.size[1]} for an input of {h}x{w} was given to a model of scale {scale}; "
            f"its targets are {h * scale}x{w * scale}: set scale={scale}."
        )
