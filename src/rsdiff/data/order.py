"""Orders in which an endless training run visits its samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rsdiff.config import UserError


def windowed_shuffle(length: int, rank: int, ranks: int, seed: int, window: float = 0.5, shuffle: bool = True) -> Iterator[int]:
    """Yield sample indices without end; the ranks share one order and take turns.

    After each visit the entry just visited changes places with one at most `window` (a share of `length`) behind it, so that passes
    over the data differ while no sample waits much longer than one pass.
    Source: EDM, InfiniteSampler; the draws are numpy's RandomState's, so published runs can be repeated.
    """
    if length < 1:
        raise UserError("an empty data set was given to windowed_shuffle; it needs at least one sample.")
    order = np.arange(length)
    random, reach = np.random.RandomState(seed), 0
    if shuffle:
        random.shuffle(order)
        reach = int(np.rint(length * window))
    visit = 0
    while True:
        here = visit % length
        if visit % ranks == rank:
            yield int(order[here])
        if reach >= 2:
            there = (here - random.randint(reach)) % length
            order[here], order[there] = order[there], order[here]
        visit += 1
