"""trainer.speed=fast: what trains faster on this device, found by a few passes when a run begins, with its distance from exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from rsdiff.config import UserError
from rsdiff.config.computing import Precision
from rsdiff.data.precision import mixed
from rsdiff.data.sample import Batch
from rsdiff.degradations.base import Degradation
from rsdiff.inference.compilation import compile_regions, compiling, run_as_written
from rsdiff.inference.speed import fastest, has_bf16, tried, words
from rsdiff.methods.base import Method
from rsdiff.training.config import TrainerConfig
from rsdiff.training.step import degrade_on, training_noise, without_traces

FARTHEST = 0.02
"""Relative difference of a loss from the exact one from which bf16 is not taken, however fast it is."""
MOST_ON_A_CPU = 2
"""Images of a pass on a CPU, whose speed depends little on how many there are."""


@dataclass(frozen=True)
class TrainingArithmetic:
    """How a device may compute to train faster; the trainer's options of these names."""

    precision: Precision = "no"
    channels_last: bool = False
    compile: bool | Literal["blocks"] = False


EXACT = TrainingArithmetic()


def chosen_of(config: TrainerConfig) -> TrainingArithmetic:
    """Return how a training with these options computes."""
    return TrainingArithmetic(**{field.name: getattr(config, field.name) for field in fields(TrainingArithmetic)})


@dataclass(frozen=True)
class MeasuredTraining:
    """What was chosen.

    arithmetic  the choice
    ratios      time with each candidate, added to those taken before it, over the time without
    ratio       time of forward and backward pass with the choice over the exact time
    loss        relative difference of the losses from the exact ones, the largest
    gradients   relative difference of the gradients from the exact ones, in the mean square over all weights
    left_out    why something was not measured, or not taken though it is faster; "" where there is nothing to say
    """

    arithmetic: TrainingArithmetic
    ratios: Mapping[str, float]
    ratio: float
    loss: float
    gradients: float
    left_out: str = ""

    def told(self) -> str:
        """Return the choice in a sentence."""
        return (
            f"trainer.speed=fast: forward and backward pass take {self.ratio:.2f} of the exact time by {words(self.arithmetic)}, with "
            f"losses {self.loss:.1g} and gradients {self.gradients:.1g} of theirs from exact ({tried(self.ratios)}){self.left_out}"
        )


def changes_on(device: torch.device) -> dict[str, dict[str, Any]]:
    """Return what may be faster on `device`, in the order in which it is tried. A CPU's compiler takes minutes, so it is not."""
    return {
        "channels_last": {"channels_last": True},
        **({"bf16": {"precision": "bf16"}} if has_bf16(device) else {}),
        **({"compile": {"compile": "blocks"}} if device.type == "cuda" else {}),
    }


@dataclass
class Passes:
    """Forward and backward passes of a method's first stage over one batch, which leave no trace."""

    method: Method
    degradation: Degradation
    device: torch.device
    seed: int
    batch: Batch
    is_compiled: bool = False

    def __post_init__(self) -> None:
        self.method.to(self.device).train()
        self.method.prepare_training()
        self.stage = self.method.stages()[0]
        self.method.start_stage(self.stage)

    def run(self, arithmetic: TrainingArithmetic) -> list[Tensor]:
        """Return the losses of every group, and leave the gradients; what is compiled runs as written where `arithmetic` says so."""
        form = torch.channels_last if arithmetic.channels_last else torch.contiguous_format
        self.method.to(memory_format=form)
        as_written = self.is_compiled and not arithmetic.compile
        stance = torch.compiler.set_stance("force_eager") if as_written else nullcontext()
        found: list[Tensor] = []
        self.forget()
        with without_traces(self.method, self.seed, self.device), stance:
            batch = degrade_on(self.batch, self.device, self.degradation, arithmetic.channels_last)
            for part in self.method.passes(self.stage):
                with mixed(arithmetic.precision, self.device):
                    losses = self.method.losses(batch, part, training_noise(self.seed, part, 0, batch))
                for of_group in losses.values():
                    of_group.total.backward()
                    found.append(of_group.total.detach())
        return found

    def gradients(self) -> list[Tensor]:
        """Return the gradients of the last pass."""
        return [parameter.grad.clone() for parameter in self.method.parameters() if parameter.grad is not None]

    def forget(self) -> None:
        """Drop the gradients of the last pass."""
        for parameter in self.method.parameters():
            parameter.grad = None


def measure(passes: Passes) -> MeasuredTraining:
    """Return in what the method trains fastest on its device; it is left as it trains exactly."""
    changes, device, left_out = changes_on(passes.device), passes.device, ""
    if "compile" in changes:
        try:
            with compiling():
                compile_regions(passes.method, "blocks", partial(passes.run, EXACT), device)
                passes.is_compiled = True
                passes.run(replace(EXACT, compile="blocks"))
        except UserError as error:
            del changes["compile"]
            left_out = f"; {str(error).partition('; leave')[0]}"
    best, ratios, total = fastest(EXACT, changes, passes.run, device)
    loss, gradients = distance(passes, best)
    if loss > FARTHEST and best.precision != "no":
        left_out += f"; bf16 is not taken, for it moves a loss by {loss:.1g}"
        best, total = replace(best, precision="no"), total / ratios["bf16"]
        loss, gradients = distance(passes, best)
    passes.run(EXACT)
    passes.forget()
    run_as_written(passes.method)
    return MeasuredTraining(best, ratios, total, loss, gradients, left_out)


@contextmanager
def nothing_dropped(method: Method) -> Iterator[None]:
    """Train without dropout, whose masks are drawn in the order of the memory: another order is another mask, and no distance."""
    droppers = [module for module in method.modules() if isinstance(module, _DropoutNd) and module.training]
    for module in droppers:
        module.eval()
    try:
        yield
    finally:
        for module in droppers:
            module.train()


def distance(passes: Passes, arithmetic: TrainingArithmetic) -> tuple[float, float]:
    """Return the relative differences of losses and gradients from the exact ones."""
    with nothing_dropped(passes.method):
        losses, gradients = passes.run(arithmetic), passes.gradients()
        exact = passes.run(EXACT)
    away = max(float((loss - true).abs() / true.abs().clamp_min(1e-8)) for loss, true in zip(losses, exact, strict=True))
    true = passes.gradients()
    differences = torch.stack([(found - value).square().sum() for found, value in zip(gradients, true, strict=True)]).sum()
    scale = torch.stack([value.square().sum() for value in true]).sum()
    return away, float((differences / scale.clamp_min(1e-30)).sqrt())


def images_to_try(method: Method, share: int, device: torch.device) -> int:
    """Return the images of a pass: the `share` of a step that this process computes at once; on a CPU few, where they are independent."""
    return min(share, MOST_ON_A_CPU) if device.type == "cpu" and not method.coupling else share
