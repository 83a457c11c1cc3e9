"""FastDPM's grids: short chains whose levels end where a long one does, by variances that are bisected.

Source: FastDPM (Kong and Ping, 2021), variance schedules; BlindSRSNF samples on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor


def fastdpm_levels(steps: int, shape: Literal["quadratic", "linear"], start: float = 1e-4, end: float = 2e-2, length: int = 1000) -> Tensor:
    """Return `steps` levels of a short chain whose prod(1 - beta) meets that of the linear chain start..end of `length` steps.

    The betas are quadratic, start (1 + i x)^2, or linear from start to x; x is bisected until the product lies within 1e-4
    (relative) above the target. For very few steps the bound of x is met first, as published.
    """
    alphas_bar = np.cumprod(1 - fastdpm_betas(steps, shape, start, end, length))
    return torch.from_numpy(np.sqrt((1 - alphas_bar) / alphas_bar)).flip(0)


def fastdpm_betas(steps: int, shape: Literal["quadratic", "linear"], start: float, end: float, length: int) -> np.ndarray:
    """Return the ascending betas (steps,) of `fastdpm_levels`."""
    target = float(np.prod(1 - np.linspace(start, end, length)))
    if shape == "quadratic":
        low, high = 0.0, 0.95 / (np.sqrt(start) * steps)

        def betas(x: float) -> np.ndarray:
            return np.asarray(start * (1 + np.arange(steps) * x) ** 2)
    else:
        low, high = start, 0.99

        def betas(x: float) -> np.ndarray:
            return np.linspace(start, x, steps)

    return betas(_bisect(lambda x: float(np.prod(1 - betas(x))), low, high, target))


def _bisect(falling: Callable[[float], float], low: float, high: float, target: float) -> float:
    """Return x in (low, high) with target <= falling(x) <= 1.0001 target, or the bound that comes nearest."""
    middle = (low + high) / 2
    for _ in range(1000):
        value = falling(middle)
        if target <= value <= 1.0001 * target:
            break
        low, high = (low, middle) if value < target else (middle, high)
        middle = (low + high) / 2
    return middle
