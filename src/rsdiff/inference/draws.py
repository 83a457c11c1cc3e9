"""Several restorations of one input, whose spread says what is not known: by a method's own noise, by several trained models, or by the
eight flips and transposes of the input.

A method that draws nothing (a regression, interpolation) restores an image and its mirror image a little differently; where it is sure the
two agree. That is a spread, too, which only a calibration makes one of errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.config.computing import Precision
from rsdiff.data.sample import Batch
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import VARIANTS, restore_seeded, transformed, undo
from rsdiff.methods.base import Method


def restored_draws(
    methods: Sequence[Method],
    batch: Batch,
    sampler: SamplerConfig,
    seed: int,
    count: int,
    first: Tensor,
    precision: Precision = "no",
    tile: int = 0,
) -> Tensor:
    """Return `count` >= 2 restorations (N, B, C, H, W) of a batch, of which `first` (B, C, H, W), by the first method, is known.

    tile     side in input pixels of the tiles that larger images are restored in; 0 restores them whole
    methods  take turns; those that draw nothing then restore flips and transposes in turn
    Raises UserError for more than eight of each method that draws nothing.
    """
    turns = len(methods)

    def restored(given: Batch, draw: int) -> Tensor:
        return restore_seeded(methods[draw % turns], given, sampler, seed, draw, precision, tile)

    with torch.no_grad():
        found = [first, *(restored(batch, draw) for draw in range(1, min(turns, count)))]
        if len(found) < count:
            again = restored(batch, turns)
            if not torch.equal(first, again):
                return torch.stack([*found, again, *(restored(batch, draw) for draw in range(turns + 1, count))])
            require_variants(count, turns)
            found += [variant(batch, draw // turns, partial(restored, draw=draw % turns)) for draw in range(turns, count)]
        return torch.stack(found)


def variant(batch: Batch, number: int, restore: Callable[[Batch], Tensor]) -> Tensor:
    """Return what `restore` makes of one of the eight variants of a batch, turned back."""
    return undo(restore(transformed(batch, VARIANTS[number])), VARIANTS[number])


def require_variants(count: int, methods: int = 1) -> None:
    """Raise UserError for more samples than methods without noise have."""
    most = methods * len(VARIANTS)
    if count > most:
        who = "this model draws nothing at random: its samples are" if methods == 1 else "these models draw nothing at random: theirs are"
        raise UserError(
            f"task.samples={count} was given and {who} the restorations of the eight flips and transposes; "
            f"choose task.samples={most} or fewer."
        )
