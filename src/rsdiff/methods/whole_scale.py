"""Methods whose networks enlarge by one whole number."""

from __future__ import annotations

from rsdiff.config import UserError
from rsdiff.data.sample import Batch


def require_scale(batch: Batch, scale: int) -> None:
    """Raise ValueError unless the target is the LR enlarged by `scale`."""
    h, w = batch.lr_size
    if batch.size != (h * scale, w * scale):
        raise UserError(
            f"a target of {batch.size[0]}x{batch.size[1]} for an input of {h}x{w} was given to a model of scale {scale}; "
            f"its targets are {h * scale}x{w * scale}: set scale={scale}."
        )
