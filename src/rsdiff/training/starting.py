"""Weights that a training or a restoration starts from: all of a checkpoint's, or the part of them that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from rsdiff.methods.base import Method
from rsdiff.training.checkpoints import CheckpointError


@dataclass(frozen=True)
class Taken:
    """What became of a model's tensors when another's weights were given to it.

    taken     names that have the values of the checkpoint
    drawn     name -> why it keeps its fresh values
    left_out  tensors of the checkpoint that the model has no use for
    """

    taken: tuple[str, ...]
    drawn: Mapping[str, str]
    left_out: tuple[str, ...]

    def lines(self, where: Path) -> list[str]:
        """Return the lines to print."""
        said = [f"taken from {where}: {len(self.taken)} of {len(self.taken) + len(self.drawn)} tensors"]
        said += [f"drawn anew: {name} ({why})" for name, why in list(self.drawn.items())[:10]]
        if len(self.drawn) > 10:
            said.append(f"drawn anew: {len(self.drawn) - 10} more")
        if self.left_out:
            said.append(f"not used of the checkpoint: {len(self.left_out)} tensors (first: {self.left_out[0]})")
        return said


OTHER_MODEL = "choose the model it was trained with"


def load_weights(method: Method, weights: Mapping[str, Tensor], where: Path, advice: str = OTHER_MODEL) -> None:
    """Load weights strictly; raises CheckpointError in one sentence when they belong to another method or another size of it.

    What only training uses, such as a discriminator, may be missing as a whole, as it is in released files: it keeps its fresh weights.
    """
    own = method.state_dict()
    absent = tuple(part for part in method.training_only if not any(name.startswith(part) for name in weights))
    missing = sorted(name for name in own if name not in weights and not (absent and name.startswith(absent)))
    unknown = sorted(set(weights) - set(own))
    shapes = sorted(name for name in set(own) & set(weights) if own[name].shape != weights[name].shape)
    if missing or unknown or shapes:
        example = (missing or unknown or shapes)[0]
        raise CheckpointError(
            f"{where} holds weights of another model: {len(missing)} of {len(own)} tensors are missing, {len(unknown)} are unknown and "
            f"{len(shapes)} have another shape (first: {example}); {advice}."
        )
    method.load_state_dict(dict(weights), strict=not absent)


def load_what_fits(method: nn.Module, weights: Mapping[str, Tensor], where: Path) -> Taken:
    """Load the tensors that have the name and shape of the model's own, leave the others as drawn, and return which is which.

    Raises CheckpointError where nothing fits.
    """
    own = method.state_dict()
    taken = {name: weights[name] for name, value in own.items() if name in weights and weights[name].shape == value.shape}
    if not taken:
        raise CheckpointError(f"{where} holds no weight that fits this model; leave checkpoint= out, or choose one of the same network.")
    drawn = {
        name: f"{_shape(weights[name])} there, {_shape(value)} here" if name in weights else "not in the checkpoint"
        for name, value in own.items()
        if name not in taken
    }
    method.load_state_dict(taken, strict=False)
    return Taken(tuple(taken), drawn, tuple(sorted(set(weights) - set(own))))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
