"""Several restorations of one input, whose spread says what is not known: by a method's own noise, or by its eight flips and transposes.

A method that draws nothing (a regression, interpolation) restores an image and its mirror image a little differently; where it is sure the
two agree. That is a spread, too, which only a calibration makes one of errors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.config.computing import Precision
from rsdiff.data.sample import Batch
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import VARIANTS, restore_seeded, transformed, undo
from rsdiff.methods.base import Method


def restored_draws(
    method: Method, batch: Batch, sampler: SamplerConfig, seed: int, count: int, first: Tensor, precision: Precision = "no"
) -> Tensor:
    """Return `count` >= 2 restorations (N, B, C, H, W) of a batch, of which `first` (B, C, H, W) is known.

    Raises UserError for more than eight of a method that draws nothing.
    """

    def restored(given: Batch, draw: int = 0) -> Tensor:
        return restore_seeded(method, given, sampler, seed, draw, precision)

    with torch.no_grad():
        second = restored(batch, 1)
        if not torch.equal(first, second):
            return torch.stack([first, second, *(restored(batch, draw) for draw in range(2, count))])
        require_variants(count)
        return torch.stack([first, *(variant(batch, number, restored) for number in range(1, count))])


def variant(batch: Batch, number: int, restore: Callable[[Batch], Tensor]) -> Tensor:
    """Return what `restore` makes of one of the eight variants of a batch, turned back."""
    return undo(restore(transformed(batch, VARIANTS[number])), VARIANTS[number])


def require_variants(count: int) -> None:
    """Raise UserError for more samples than a method without noise has."""
    if count > len(VARIANTS):
        raise UserError(
            f"task.samples={count} was given and this model draws nothing at random: its samples are the restorations of the eight flips "
            f"and transposes; choose task.samples={len(VARIANTS)} or fewer."
        )
