"""The only interface between networks and solvers: D(y, sigma) -> x0, for y = x0 + sigma * noise."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Denoiser(Protocol):
    """Estimates the clean image; its condition is bound when it is made.

    Every Gaussian process x_t = a x0 + b n is seen as y = x_t / a, sigma = b / a.
    """

    sigma_min: float
    sigma_max: float
    table: Tensor | None
    """Ascending float64 sigmas of a discrete process, or None for a continuous one."""

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Return x0 of y's shape and dtype; y is (B, C, H, W), sigma is () or (B,) float64, > 0."""
        ...

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the level nearest to `sigma` that the network was trained for."""
        ...
