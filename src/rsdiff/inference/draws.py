"""Several restorations of one input, whose spread says what is not known: by a method's own noise, by the quantiles it predicts, by several
trained models, or by the eight flips and transposes of the input.

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
    methods  take turns; those that draw nothing then restore flips and transposes in turn. Quantiles are predicted at as many levels, and
             `first`, which is not one of them, is none of the samples
    Raises UserError for more than eight of each method that draws nothing.
    """
    given_quantiles, methods = are_quantiles(methods), in_turn(methods, count)
    turns = len(methods)

    def restored(given: Batch, draw: int) -> Tensor:
        return restore_seeded(methods[draw % turns], given, sampler, seed, draw, precision, tile)

    with torch.no_grad():
        if given_quantiles:
            return torch.stack([restored(batch, draw) for draw in range(count)])
        found = [first, *(restored(batch, draw) for draw in range(1, min(turns, count)))]
        if len(found) < count:
            again = restored(batch, turns)
            if not torch.equal(first, again):
                return torch.stack([*found, again, *(restored(batch, draw) for draw in range(turns + 1, count))])
            require_variants(count, turns)
            found += [variant(batch, draw // turns, partial(restored, draw=draw % turns)) for draw in range(turns, count)]
        return torch.stack(found)


def are_quantiles(methods: Sequence[Method]) -> bool:
    """Say whether samples of these methods are quantiles of every pixel; raises UserError where those of some are and of others are not."""
    kinds = {method.predicts_quantiles for method in methods}
    if len(kinds) > 1:
        raise UserError("task.ensemble names models that predict quantiles and others that do not; name models of one sort.")
    return kinds == {True}


def in_turn(methods: Sequence[Method], count: int) -> tuple[Method, ...]:
    """Return what restores sample 0, 1, ... of `count`, in turn: the methods, or where they predict quantiles one view of them per sample.

    The n samples of one method are its quantiles at the levels (i + 1/2) / n: the points whose mean and CRPS are those of the distribution
    by the midpoint rule.
    """
    if count < 2 or not are_quantiles(methods):
        return tuple(methods)
    turns = len(methods)
    own = [len(range(first, count, turns)) for first in range(turns)]
    return tuple(methods[draw % turns].at_level((draw // turns + 0.5) / own[draw % turns]) for draw in range(count))


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
