"""Whether a grid of levels suits a multistep solver, tried on Gaussians whose exact answer is known: no network, a few milliseconds.

Multistep solvers extrapolate past evaluations. Where a step is much longer in log sigma than the one before it, as between the last two
levels of a table from end to end, the extrapolation overshoots, and a solver of higher order ends farther from the exact solution than
one of first order: in ten steps of DPM-Solver++(2M) from end to end of SR3's table 0.58 of the images' range against DDIM's 0.19, and 0.10
with the spacing `trailing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.solvers import DataRange, ddim

DEVIATIONS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Standard deviations of what remains undetermined of images in [-1, 1], from smooth ground to all of an image."""
NEGLIGIBLE = 0.02
"""Error in units of the images' range that no grid is refused for."""
TOLERATED = 1.2
"""How many times the first order's error a solver may have: the Gaussians stand for images only roughly."""


class GaussianDenoiser:
    """The exact denoiser of pixels of mean 0, one variance per image of the batch."""

    sigma_min, sigma_max = 0.0, math.inf
    table: Tensor | None = None
    data_range: DataRange | None = None

    def __init__(self) -> None:
        self.variance = torch.tensor(DEVIATIONS, dtype=torch.float64).square().reshape(-1, 1, 1, 1)

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        return y * (self.variance / (self.variance + sigma.to(y.dtype) ** 2))

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma


Solve = Callable[[GaussianDenoiser, Tensor, Tensor], Tensor]
"""(denoiser, levels, y) -> state at the last level"""


def worst_error(solve: Solve, levels: Tensor) -> float:
    """Return the largest error at the end of the grid over all variances, for states one standard deviation from the mean."""
    denoiser = GaussianDenoiser()
    exact = [(denoiser.variance + float(level) ** 2).sqrt() for level in (levels[0], levels[-1])]
    return float((solve(denoiser, levels, exact[0]) - exact[1]).abs().max())


def errors_where_unstable(solve: Solve, levels: Tensor) -> tuple[float, float] | None:
    """Return the errors of a solver and of DDIM on a grid where the solver's is larger, else None."""
    error = worst_error(solve, levels)
    first = worst_error(lambda denoiser, grid, y: ddim(denoiser, grid, y, ReplayNoise([])), levels)
    return (error, first) if error > max(NEGLIGIBLE, TOLERATED * first) else None
