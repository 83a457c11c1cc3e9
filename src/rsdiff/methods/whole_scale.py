"""Methods whose networks enlarge by one whole number."""

from __future__ import annotations

from rsdiff.config import UserError
from rsdiff.data.sample import Batch
from rsdiff.methods.base import Problem


def refuse_fraction(model: str, problem: Problem) -> str | None:
    """Return a sentence where the scale is no whole number of at least 1, else None."""
    if problem.scale >= 1 and problem.scale == int(problem.scale):
        return None
    return f"model {model} enlarges by whole numbers and the scale is {problem.scale:g}; set scale=2, 3 or 4."


def require_scale(batch: Batch, scale: int) -> None:
    """Raise ValueError unless the target is the LR enlarged by `scale`."""
    h, w = batch.lr_size
    if batch.size != (h * scale, w * scale):
        raise UserError(
            f"a target of {batch.size[0]}x{batch.size[1]} for an input of {h}x{w} was given to a model of scale {scale}; "
            f"its targets are {h * scale}x{w * scale}: set scale={scale}."
        )
