"""What methods share that are built for x4 and search a reference image: their inputs at other multiples of 4, which is ours."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rsdiff.data.sample import Batch
from rsdiff.degradations.resizing import resize
from rsdiff.methods.base import Problem, require_scale


def quarter_of_target(batch: Batch, scale: int) -> Tensor:
    """Return the LR (B, c, H / 4, W / 4) at a quarter of the target's size: as it is at x4, enlarged bicubically at x8 and more."""
    require_scale(batch, scale)
    lr = batch.need("lr")
    quarter = (batch.size[0] // 4, batch.size[1] // 4)
    with torch.no_grad():
        return lr if scale == 4 else resize(lr.float(), quarter, "torch")


def blurred_as_lr(ref: Tensor, scale: int, size: tuple[int, int]) -> Tensor:
    """Return a reference (B, C, y, x) made smaller by `scale`, then brought to `size` where that is another."""
    small = (max(1, ref.shape[-2] // scale), max(1, ref.shape[-1] // scale))
    with torch.no_grad():
        made = resize(ref.float(), small, "torch")
        return made if small == size else resize(made, size, "torch")


def pairs(batch: Batch) -> Iterator[Batch]:
    """Yield LR image and reference of a batch one by one, in which methods search when they restore.

    Matches that are as good as each other but for rounding (flat areas, references of few pixels) are decided by rounding, which depends on
    how many images are computed at once: at x16 6 of 256 matches of an image changed in a batch of two, and its values by up to 3e-3.
    """
    lr, ref = batch.need("lr"), batch.need("ref")
    for index, meta in enumerate(batch.metas):
        yield Batch([meta], batch.size, batch.lr_size, lr=lr[index : index + 1], ref=ref[index : index + 1])


def refuse_reference(model: str, problem: Problem) -> str | None:
    """Return a sentence where a model that is built for x4 and compares LR and reference cannot treat `problem`."""
    if problem.scale % 4:
        return f"model {model} enlarges by 4 and the scale is {problem.scale:g}; set scale=4, 8 or 16."
    if problem.lr_bands != problem.bands:
        return (
            f"model {model} compares LR and reference, but the LR has {problem.lr_bands} bands and the target {problem.bands}; choose "
            "data with as many in both."
        )
    return None
