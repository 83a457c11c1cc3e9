"""Levels that bring a solver nearest to its own fine solution in few steps: found for given weights and images, without training.

The start noise is the same for every grid, so that two results differ by the steps alone. The best of some usual grids between the highest
and the lowest level is moved level by level in log sigma as long as the error falls. After "Align Your Steps" (Sabour et al., 2024) and
"Learning to efficiently sample from diffusion models" (Watson et al., 2021), with the error itself in place of their bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rsdiff.diffusion.solvers import edm_levels

RHOS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0)
"""Exponents of the grids that are tried first, see `edm_levels`."""
SHARE = 0.4
"""How far a level is moved first, as a share of the way to its neighbour; halved in every round."""
Error = Callable[[Sequence[float]], float]
"""levels, descending and without the final 0 -> error; infinite where they cannot be walked"""


def fitted(first: Sequence[float], lowest: float, error: Error, rounds: int, progress: Callable[[int, int], None]) -> list[float]:
    """Return as many levels as `first` with the smallest error found; the highest stays.

    first   levels to begin from, descending
    lowest  level below which none is looked for
    rounds  times that every level is moved
    """
    steps, total, done = len(first), len(RHOS) + 1 + 2 * rounds * (len(first) - 1), 0

    def judged(levels: Sequence[float]) -> tuple[float, list[float]]:
        nonlocal done
        done += 1
        found = error(levels)
        progress(done, total)
        return found, list(levels)

    starts = [list(first)]
    if steps > 1:
        # Their ends are set, since powers and roots may leave the model's range by a rounding.
        middles = [edm_levels(steps, max(lowest, 1e-6), first[0], rho).tolist()[1:-1] for rho in RHOS]
        starts += [[first[0], *middle, max(lowest, 1e-6)] for middle in middles]
    best, levels = min((judged(start) for start in starts), key=lambda found: found[0])
    for number in range(rounds):
        for place in range(1, steps):
            for towards in (-1, 1):
                moved = _moved(levels, place, towards, SHARE / 2**number, lowest)
                smaller, candidate = judged(moved)
                if smaller < best:
                    best, levels = smaller, candidate
    return levels


def _moved(levels: Sequence[float], place: int, towards: int, share: float, lowest: float) -> list[float]:
    """Return levels of which one went a share of the way to its neighbour in log sigma; the last one's lower neighbour is `lowest`."""
    neighbour = levels[place + towards] if place + towards < len(levels) else lowest
    here, there = math.log(levels[place]), math.log(max(neighbour, 1e-9))
    return [*levels[:place], math.exp(here + share * (there - here)), *levels[place + 1 :]]
