"""Solvers: plain functions that walk a noisy image y = x0 + sigma n down a grid of levels.

Every solver takes (denoiser, levels, y, noise): levels is a descending float64 CPU tensor (N+1,), y (B, C, H, W) is the state at levels[0],
and the result is the state at levels[-1]; where that is 0 the result is the clean image. The last evaluation is at levels[N-1].
Noise is drawn only where it is used; `draw_unused` draws in every step, for the order of draws of published code.
Source of the (y, sigma) forms: DDIM, DDPM, DPM-Solver++ and EDM rewritten with x = a y; the tests compare them with the published forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

from rsdiff.diffusion.denoisers import Denoiser
from rsdiff.diffusion.noise import NoiseSource


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
