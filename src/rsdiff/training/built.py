"""Methods built anew, or with the weights of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rsdiff.config import UserError, config_from_mapping
from rsdiff.data.normalisation import Normaliser
from rsdiff.data.seeding import derived_seed
from rsdiff.methods import METHODS
from rsdiff.methods.base import Method, MethodConfig, Problem
from rsdiff.methods.former import present_groups
from rsdiff.training.checkpoints import Checkpoint, CheckpointError
from rsdiff.training.starting import load_weights


def build_method(config: MethodConfig, problem: Problem, seed: int) -> Method:
    """Build the method with initial weights that depend on the seed alone.

    Raises UserError with the method's own sentence when it cannot treat the problem.
    """
    reason = config.refuse(problem)
    if reason is not None:
        raise UserError(reason)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "initial weights"))
        return config.build(problem)


@dataclass(frozen=True)
class Trained:
    """A method with the weights of a checkpoint."""

    method: Method
    problem: Problem
    checkpoint: Checkpoint

    @property
    def normaliser(self) -> Normaliser:
        """That of the data it was trained on."""
        return Normaliser.from_json(self.checkpoint.card["normaliser"])

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """Of the bands of those data, where they were known."""
        return tuple(float(value) for value in self.checkpoint.card.get("wavelengths", ()))


def method_from(checkpoint: Checkpoint, scale: float, options: MethodConfig | None = None) -> Trained:
    """Rebuild the method that a checkpoint holds, for a run at `scale`.

    options  of the run, for methods that have some for restoration alone; None takes those of the checkpoint's card

    Raises CheckpointError when the card names a method this version does not know, or the weights do not fit.
    """
    model: dict[str, Any] = dict(present_groups(checkpoint.card["config"])["model"])
    kind = model.pop("kind")
    if kind not in METHODS:
        raise CheckpointError(f"{checkpoint.name} holds a model of kind '{kind}', which this version of rsdiff does not know; update it.")
    trained = checkpoint.card["problem"]
    problem = Problem(scale=trained["scale"], bands=trained["bands"], lr_bands=trained["lr_bands"])
    config: MethodConfig = options if options is not None else config_from_mapping(METHODS[kind], model, "model")
    wanted = Problem(scale=scale, bands=problem.bands, lr_bands=problem.lr_bands)
    if scale != problem.scale and not config.any_scale:
        raise CheckpointError(
            f"{checkpoint.name} was trained at scale={problem.scale:g} and kind '{kind}' has one scale; leave scale={scale:g} out."
        )
    if scale < 1:
        raise UserError(f"{checkpoint.name} enlarges images and scale={scale:g} makes them smaller; choose 1 or more.")
    reason = config.refuse(wanted)
    if reason is not None:
        raise UserError(reason)
    method = build_method(config, problem, seed=0)
    load_weights(method, checkpoint.best_weights, checkpoint.folder)
    method.eval()
    return Trained(method, problem, checkpoint)
