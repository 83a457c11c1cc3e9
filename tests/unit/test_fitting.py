"""Levels fitted to a solver: on a Gaussian, whose fine solution is known, they come nearer than the grids they began from."""

from __future__ import annotations

from itertools import pairwise

import torch

from rsdiff.diffusion.fitting import fitted
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.solvers import ddim, dpmpp_2m
from rsdiff.diffusion.stability import worst_error


def test_fitted_levels_are_nearer_the_exact_solution_than_any_grid_they_began_from() -> None:
    for solve in (ddim, dpmpp_2m):
        tried: list[list[float]] = []

        def error(levels: list[float], solve=solve, tried=tried) -> float:  # type: ignore[no-untyped-def]
            tried.append(list(levels))
            grid = torch.tensor([*levels, 0.0], dtype=torch.float64)
            return worst_error(lambda denoiser, walked, y: solve(denoiser, walked, y, ReplayNoise([])), grid)

        said: list[tuple[int, int]] = []
        first = [20.0, 5.0, 1.0, 0.1]
        found = fitted(first, 0.01, error, 4, lambda done, total, said=said: said.append((done, total)))  # type: ignore[misc]
        assert found[0] == first[0]
        assert all(a > b > 0 for a, b in pairwise(found))
        assert error(found) < 0.9 * min(error(grid) for grid in tried[:8])
        assert said[-1][0] == said[-1][1]
