"""The denoiser, D(y, sigma) -> x0 for y = x0 + sigma n, and solvers: plain functions that walk y down a grid of levels with it.

The denoiser is the only interface between networks and solvers. A wrapper turns a network into one: `DiscreteDenoiser` (schedules),
`EdmDenoiser` (EDM), or a method's own; the method binds its conditions in a closure. A hook wraps a denoiser and is one, so that hooks
compose in any order and with any solver.

Every solver takes (denoiser, levels, y, noise): levels is a descending float64 CPU tensor (N+1,), y (B, C, H, W) is the state at levels[0],
and the result is the state at levels[-1]; where that is 0 the result is the clean image. The last evaluation is at levels[N-1].
Noise is drawn only where it is used; `draw_unused` draws in every step, for the order of draws of published code.
Source of the (y, sigma) forms: DDIM, DDPM, DPM-Solver++ and EDM rewritten with x = a y; the tests compare them with the published forms.

Grids of such levels come first; they do not include the final 0, which `to_zero` appends. Sources: EDM's generate.py (edm, vp, ve, iddpm),
diffusers (linspace, leading, trailing), SR3 (strided).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.noise import NoiseSource

Network = Callable[[Tensor, Tensor], Tensor]
"""network(x, time): x (B, C, H, W) in the network's dtype, time (B,); returns (B, C', H, W), C' >= C."""

DataRange = tuple[float, float] | tuple[Tensor, Tensor]
"""Lowest and highest value of clean images, or the same for every pixel (residuals of an image)."""


class Denoiser(Protocol):
    """Estimates the clean image; its condition is bound when it is made.

    Every Gaussian process x_t = a x0 + b n is seen as y = x_t / a, sigma = b / a.
    """

    sigma_min: float
    sigma_max: float
    table: Tensor | None
    """Ascending float64 sigmas of a discrete process, on the CPU, or None for a continuous one."""
    data_range: DataRange | None
    """Bounds of clean images, or None where they have none (latents); `sampler.clip` clamps to it."""

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Return x0 of y's shape and dtype; y is (B, C, H, W), sigma is () or (B,) float64, > 0, on the CPU or y's device."""
        ...

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the level nearest to `sigma` that the network was trained for."""
        ...


def per_image(values: Tensor, image: Tensor) -> Tensor:
    """Return `values` () or (B,) as (1, 1, 1, 1) or (B, 1, 1, 1) in the dtype and on the device of `image`."""
    return to_device(values.reshape(-1, *[1] * (image.ndim - 1)), image.device, image.dtype)


def nearest_index(levels: Tensor, sigma: Tensor) -> Tensor:
    """Return the index of the entry of `levels` (T,) nearest to each `sigma` in its logarithm, int64, of sigma's shape."""
    return (sigma.log().reshape(-1, 1) - levels.log()).abs().argmin(1).reshape(sigma.shape)


class DenoiserHook:
    """A denoiser with the levels and data range of another one."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.sigma_min = denoiser.sigma_min
        self.sigma_max = denoiser.sigma_max
        self.table = denoiser.table
        self.data_range: DataRange | None = denoiser.data_range

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.denoiser.round_sigma(sigma)


class Clamped(DenoiserHook):
    """Clamps the clean estimate to [low, high], of all pixels or of each, at every evaluation (SR3's clip_denoised)."""

    def __init__(self, denoiser: Denoiser, low: float | Tensor, high: float | Tensor) -> None:
        super().__init__(denoiser)
        self.low = low
        self.high = high

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        clean = self.denoiser(y, sigma)
        if isinstance(self.low, Tensor) and isinstance(self.high, Tensor):
            return clean.clamp(self.low.to(clean), self.high.to(clean))
        return clean.clamp(float(self.low), float(self.high))


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
    Raises UserError when the table has fewer than `steps` levels, which count nothing beside a stride.
    """
    if not stride and not 1 <= steps <= length:
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


@dataclass(frozen=True)
class StepRecord:
    """What a callback sees after a step: its index from 0, the two levels, the state at sigma_next and the last clean estimate."""

    index: int
    sigma: float
    sigma_next: float
    state: Tensor
    clean: Tensor


Step = Callable[[Tensor, float, float], tuple[Tensor, Tensor]]
"""(y, sigma, sigma_next) -> (y at sigma_next, clean estimate)"""


@dataclass(frozen=True)
class Observers:
    """What may look at, or act on, the state between steps.

    callback     called after each step
    before_step  returns the state to use in place of (y, sigma), before each step (dynamic clamping of SCDM)
    around_step  takes a solver's step and returns the one to use in its place (guidance of whole steps, see rsdiff.diffusion.guidance)
    """

    callback: Callable[[StepRecord], None] | None = None
    before_step: Callable[[Tensor, float], Tensor] | None = None
    around_step: Callable[[Step], Step] | None = None


SILENT = Observers()
Rule = Callable[[float, float], tuple[float, float]]
"""(sigma, sigma_next) -> (down, up) of the first-order step."""


def walk(levels: Tensor, y: Tensor, step: Step, observers: Observers = SILENT) -> Tensor:
    """Return the state after one `step` per pair of neighbouring levels."""
    if observers.around_step is not None:
        step = observers.around_step(step)
    for index, (sigma, sigma_next) in enumerate(pairwise(levels.tolist())):
        if observers.before_step is not None:
            y = observers.before_step(y, sigma)
        y, clean = step(y, sigma, sigma_next)
        if observers.callback is not None:
            observers.callback(StepRecord(index, sigma, sigma_next, y, clean))
    return y


def evaluate(denoiser: Denoiser, y: Tensor, sigma: float) -> Tensor:
    """Return D(y, sigma) for a plain number."""
    return denoiser(y, torch.tensor(sigma, dtype=torch.float64))


def first_order(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    rule: Rule,
    *,
    draw_unused: bool = False,
    observers: Observers = SILENT,
) -> Tensor:
    """Universal first-order step y' = D + down / sigma (y - D) + up n, which `rule` makes DDPM or DDIM."""

    def step(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
        clean = evaluate(denoiser, y, sigma)
        down, up = rule(sigma, sigma_next)
        following = clean + (down / sigma) * (y - clean)
        if up > 0 or draw_unused:
            following = following + up * noise.normal(y.shape, y.device, y.dtype)
        return following, clean

    return walk(levels, y, step, observers)


def ddim_rule(eta: float) -> Rule:
    """DDIM with stochasticity eta in [0, 1]; 0 is Euler's step and DPM-Solver++(1), 1 is DDPM with the posterior variance."""

    def rule(sigma: float, sigma_next: float) -> tuple[float, float]:
        up = eta * sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
        return math.sqrt(max(sigma_next**2 - up**2, 0.0)), up

    return rule


def ddpm_rule(variance: Literal["posterior", "beta"]) -> Rule:
    """DDPM with the posterior variance ("fixed small", SR3) or with beta_t ("fixed large")."""

    def rule(sigma: float, sigma_next: float) -> tuple[float, float]:
        gap = max(sigma**2 - sigma_next**2, 0.0)
        if variance == "posterior":
            return sigma_next**2 / sigma, sigma_next * math.sqrt(gap) / sigma
        up = math.sqrt(gap * (1 + sigma_next**2) / (1 + sigma**2)) if sigma_next > 0 else 0.0
        return sigma_next**2 / sigma, up

    return rule


def residual_shift_rule(deviation: float) -> Rule:
    """Residual shifting, x_t = x0 + eta (image - x0) + deviation sqrt(eta) n, seen as y = (x_t - eta image) / (1 - eta).

    sigma = deviation sqrt(eta) / (1 - eta), eta < 1. Source: ResShift (Yue et al., 2023), eq. 8.
    """

    def share(sigma: float) -> float:
        s2, k2 = sigma**2, deviation**2
        return 2 * s2 / (2 * s2 + k2 + math.sqrt(k2 * k2 + 4 * s2 * k2))

    def rule(sigma: float, sigma_next: float) -> tuple[float, float]:
        eta, following = share(sigma), share(sigma_next)
        up2 = deviation**2 * following * max(eta - following, 0.0) / (eta * (1 - following) ** 2)
        return math.sqrt(max(sigma_next**2 - up2, 0.0)), math.sqrt(up2)

    return rule


def ddpm(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    *,
    variance: Literal["posterior", "beta"] = "posterior",
    draw_unused: bool = False,
    observers: Observers = SILENT,
) -> Tensor:
    """DDPM's ancestral sampling (Ho et al., 2020, algorithm 2), on any grid; no noise in a last step to 0."""
    return first_order(denoiser, levels, y, noise, ddpm_rule(variance), draw_unused=draw_unused, observers=observers)


def ddim(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    *,
    eta: float = 0.0,
    draw_unused: bool = False,
    observers: Observers = SILENT,
) -> Tensor:
    """DDIM (Song et al., 2021, eq. 12 and 16); the noise direction is derived anew from a clipped D. FastDPM is this on its own grids."""
    return first_order(denoiser, levels, y, noise, ddim_rule(eta), draw_unused=draw_unused, observers=observers)


def dpmpp_2m(denoiser: Denoiser, levels: Tensor, y: Tensor, noise: NoiseSource, *, observers: Observers = SILENT) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022, algorithm 2): one evaluation per step, first order in the first step and in a step to 0.

    Deterministic; `noise` is taken so that all solvers are called alike.
    """
    before: tuple[Tensor, float] | None = None

    def step(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
        nonlocal before
        clean = evaluate(denoiser, y, sigma)
        if sigma_next == 0:
            return clean, clean
        width = math.log(sigma / sigma_next)
        ahead = clean if before is None else clean + (clean - before[0]) * (width / (2 * before[1]))
        before = (clean, width)
        return torch.lerp(ahead, y, sigma_next / sigma), clean

    return walk(levels, y, step, observers)


class SteppingDenoiser(Denoiser, Protocol):
    """A denoiser whose method published a step that no (y, sigma) rule expresses."""

    def step(self, y: Tensor, sigma: float, sigma_next: float, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Return (y at sigma_next, clean estimate); draws from `noise` what it needs."""
        ...


def native(denoiser: SteppingDenoiser, levels: Tensor, y: Tensor, noise: NoiseSource, *, observers: Observers = SILENT) -> Tensor:
    """The method's own step (learned variances, centred processes), walked down the same grids."""
    return walk(levels, y, lambda y, sigma, sigma_next: denoiser.step(y, sigma, sigma_next, noise), observers)
