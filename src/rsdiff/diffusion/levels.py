"""Step grids: descending float64 noise levels that a solver walks down. Grids do not include the final 0; `to_zero` appends it.

Sources: EDM's generate.py (edm, vp, ve, iddpm), diffusers (linspace, leading, trailing), SR3 (strided), FastDPM (bisected variances).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rsdiff.config import UserError

Spacing = Literal["linspace", "leading", "trailing", "strided", "fastdpm_linear", "fastdpm_quadratic"]
VP_SHORTEST_TIME = 1e-3  # EDM's epsilon_s: t of the lowest level of the vp grid


def _fractions(steps: int) -> Tensor:
    """0, 1/(steps-1), .., 1; a single step starts at 0, the highest level."""
    return torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)


def to_zero(levels: Tensor) -> Tensor:
    """Return the levels with a final 0."""
    return torch.cat([levels, levels.new_zeros(1)])


def edm_levels(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Return `steps` levels, equidistant in sigma^(1/rho)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (high + _fractions(steps) * (low - high)) ** rho


def vp_betas(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """Return (beta_d, beta_min) such that sigma(1e-3) = sigma_min and sigma(1) = sigma_max."""
    low, high = float(np.log(sigma_min**2 + 1)), float(np.log(sigma_max**2 + 1))
    beta_d = 2 * (low / VP_SHORTEST_TIME - high) / (VP_SHORTEST_TIME - 1)
    return beta_d, high - 0.5 * beta_d


def vp_sigma(time: Tensor, beta_d: float, beta_min: float) -> Tensor:
    """Return sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1)."""
    return torch.expm1(0.5 * beta_d * time**2 + beta_min * time).sqrt()


def vp_levels(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Return `steps` levels, equidistant in the time of linear betas refitted to the range."""
    time = 1 + _fractions(steps) * (VP_SHORTEST_TIME - 1)
    return vp_sigma(time, *vp_betas(sigma_min, sigma_max))


def ve_levels(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Return `steps` levels, geometric."""
    return (sigma_max**2 * (sigma_min**2 / sigma_max**2) ** _fractions(steps)).sqrt()


def iddpm_grid(steps: int, sigma_min: float, sigma_max: float, offset: float = 0.008) -> Tensor:
    """Return `steps` of improved DDPM's 1000 levels inside the range, equidistant in their index. Raises UserError if none is inside."""
    levels = iddpm_levels(offset=offset, dtype=torch.float64)
    inside = levels[(levels >= sigma_min) & (levels <= sigma_max)]
    if len(inside) == 0:
        raise UserError(f"no level of the iddpm grid lies between sigma {sigma_min} and {sigma_max}; widen the range.")
    return inside[((len(inside) - 1) * _fractions(steps)).round().to(torch.int64)]


def table_indices(length: int, steps: int, spacing: Spacing, stride: int = 0) -> list[int]:
    """Return descending indices into a table of `length` levels.

    linspace  `steps` indices from length-1 to 0
    leading   `steps` multiples of length // steps, from 0 up
    trailing  `steps` indices from length-1 down, length / steps apart
    strided   every index of range(0, length, stride): about `steps` of them when stride is 0, meaning length // steps
    fastdpm_linear     linspace, rounded down (FastDPM's STEP)
    fastdpm_quadratic  squares of equidistant numbers up to sqrt(0.8 length), rounded down (FastDPM's STEP); ends at 80 % of the table
    Raises UserError when the table has fewer than `steps` levels.
    """
    if not 1 <= steps <= length:
        raise UserError(f"sampler.steps={steps} was given and the model's table has {length} levels; choose 1 to {length} steps.")
    match spacing:
        case "linspace":
            ascending = np.linspace(0, length - 1, steps).round() if steps > 1 else np.array([length - 1])
        case "leading":
            ascending = np.arange(steps) * (length // steps)
        case "trailing":
            ascending = (np.arange(length, 0, -length / steps).round() - 1)[:steps][::-1]
        case "strided":
            ascending = np.arange(0, length, stride or length // steps)
        case "fastdpm_linear":
            ascending = np.floor(np.arange(steps) * ((length - 1) / max(steps - 1, 1)))
        case "fastdpm_quadratic":
            ascending = np.floor(np.linspace(0, np.sqrt(0.8 * length), steps) ** 2)  # many steps repeat entries near 0
    return [int(index) for index in ascending[::-1]]


def fastdpm_levels(steps: int, shape: Literal["quadratic", "linear"], start: float = 1e-4, end: float = 2e-2, length: int = 1000) -> Tensor:
    """Return `steps` levels of a short chain whose prod(1 - beta) meets that of the linear chain start..end of `length` steps.

    The betas are quadratic, start (1 + i x)^2, or linear from start to x; x is bisected until the product lies within 1e-4
    (relative) above the target. For very few steps the bound of x is met first, as published.
    Source: FastDPM (Kong and Ping, 2021), variance schedules; used by BlindSRSNF.
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


def iddpm_levels(steps: int = 1000, lowest_ratio: float = 0.001, offset: float = 0.008, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return u (steps+1,), descending to u[steps] = 0: the levels of improved DDPM's cosine schedule as EDM writes them.

    alpha_bar is float32 and the recursion is in `dtype`, as published (float32 in the network, float64 in the sampler's grid).
    """
    index = torch.arange(steps + 1)
    alphas_bar = (0.5 * math.pi * index / steps / (offset + 1)).sin() ** 2
    ratios = (alphas_bar[:-1] / alphas_bar[1:]).clamp(min=lowest_ratio)
    levels = torch.zeros(steps + 1, dtype=dtype)
    for j in range(steps, 0, -1):
        levels[j - 1] = ((levels[j] ** 2 + 1) / ratios[j - 1] - 1).sqrt()
    return levels
