"""Multistep solvers of higher order: one evaluation per step, past evaluations give the order (see solvers.py for the conventions).

In (y, sigma) with l = -log sigma the flow is d(y / sigma) / dl = D / sigma, or dy / dl = -sigma eps with eps = (y - D) / sigma. A step of
width h replaces D or eps by the polynomial in l through its last values and integrates exactly: exponential Adams methods.
- dpmpp_3m: the polynomial of D. DPM-Solver++ (Lu et al., 2022). The published third-order code weighs the second difference by half of what
  the integral gives and is of second order; this one is of third.
- unipc: the same predictor, and a corrector that uses the next evaluation, which the next step needs anyway. UniPC-B2(h) (Zhao et al.,
  2023) with its simplified weights: the midpoint for the predictor of order 2, halves for the corrector of order 1.
- deis: the polynomial of eps. DEIS (Zhang and Chen, 2023) with the exponent's own variable, log sigma.
The order grows from 1 as evaluations come, and shrinks again before a last step to 0, which returns the clean estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.solvers import SILENT, Denoiser, Observers, evaluate, walk


def clean_weights(nodes: Sequence[float], width: float) -> list[float]:
    """Return w with y(h) = exp(-h) y(0) + sum w_i D(nodes_i), exact where D is a polynomial of degree len(nodes) - 1.

    nodes  values of l at which D is known, less l at the start of the step
    width  h > 0
    """
    moments = [-math.expm1(-width)]  # of exp(s - h) over [0, h]
    for power in range(1, len(nodes)):
        moments.append(width**power - power * moments[-1])
    return _through(nodes, moments)


def noise_weights(nodes: Sequence[float], width: float) -> list[float]:
    """Return w with y(h) = y(0) - sigma(0) sum w_i eps(nodes_i), as `clean_weights`."""
    moments = [-math.expm1(-width)]  # of exp(-s) over [0, h]
    for power in range(1, len(nodes)):
        moments.append(power * moments[-1] - width**power * math.exp(-width))
    return _through(nodes, moments)


def _through(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Return the weights at `nodes` that integrate powers as `moments` say."""
    return list(map(float, np.linalg.solve(np.vander(nodes, increasing=True).T, moments)))


class Memory:
    """The last evaluations of a walk, newest first, and how many of them the next step may use."""

    def __init__(self, levels: Tensor, order: int) -> None:
        self.levels = levels.tolist()
        self.order = order
        self.values: list[Tensor] = []
        self.positions: list[float] = []

    def keep(self, value: Tensor, sigma: float) -> None:
        self.values = [value, *self.values][: self.order]
        self.positions = [-math.log(sigma), *self.positions][: self.order]

    def usable(self, sigma: float) -> int:
        """Return the order of the step from `sigma`."""
        left = sum(level < sigma for level in self.levels) if self.levels[-1] == 0 else self.order
        return min(len(self.values), left)

    def nodes(self, count: int) -> list[float]:
        return [position - self.positions[0] for position in self.positions[:count]]


def weighted(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """Return the sum of weights times values."""
    total = values[0] * weights[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total.add(value, alpha=weight)
    return total


def dpmpp_3m(denoiser: Denoiser, levels: Tensor, y: Tensor, noise: NoiseSource, *, observers: Observers = SILENT) -> Tensor:
    """DPM-Solver++ of third order from past evaluations. Deterministic; `noise` is taken so that all solvers are called alike."""
    memory = Memory(levels, 3)

    def step(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
        clean = evaluate(denoiser, y, sigma)
        memory.keep(clean, sigma)
        if sigma_next == 0:
            return clean, clean
        count = memory.usable(sigma)
        weights = clean_weights(memory.nodes(count), math.log(sigma / sigma_next))
        return y * (sigma_next / sigma) + weighted(weights, memory.values[:count]), clean

    return walk(levels, y, step, observers)


def unipc(denoiser: Denoiser, levels: Tensor, y: Tensor, noise: NoiseSource, *, order: int = 2, observers: Observers = SILENT) -> Tensor:
    """UniPC: a predictor of `order` (2 or 3), corrected by the evaluation at the point it predicts. Deterministic."""
    memory = Memory(levels, order)
    correction: Callable[[Tensor], Tensor] | None = None

    def step(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
        nonlocal correction
        clean = evaluate(denoiser, y, sigma)
        if correction is not None:
            y = y + correction(clean)
        memory.keep(clean, sigma)
        if sigma_next == 0:
            return clean, clean
        count, width = memory.usable(sigma), math.log(sigma / sigma_next)
        values, nodes = memory.values[:count], memory.nodes(count)
        weights = predictor_weights(nodes, width)
        now, *past = corrector_weights(nodes, width)
        changes = [after - before for after, before in zip(past, weights, strict=True)]
        correction = lambda new: weighted([now, *changes], [new, *values])  # noqa: E731
        return y * (sigma_next / sigma) + weighted(weights, values), clean

    return walk(levels, y, step, observers)


def predictor_weights(nodes: Sequence[float], width: float) -> list[float]:
    """Return `clean_weights` as UniPC-B2 has them: those of order 2 by the midpoint."""
    if len(nodes) == 2:
        ahead = 0.5 * width / -nodes[1]
        return [-math.expm1(-width) * share for share in (1 + ahead, -ahead)]
    return clean_weights(nodes, width)


def corrector_weights(nodes: Sequence[float], width: float) -> list[float]:
    """Return `clean_weights` with the new evaluation first, as UniPC-B2 has them: those of order 1 by halves."""
    if len(nodes) == 1:
        return [-math.expm1(-width) / 2] * 2
    return clean_weights([width, *nodes], width)


def deis(denoiser: Denoiser, levels: Tensor, y: Tensor, noise: NoiseSource, *, order: int = 2, observers: Observers = SILENT) -> Tensor:
    """DEIS of `order` 2 or 3: past estimates of the noise, extrapolated in log sigma. Deterministic."""
    memory = Memory(levels, order)

    def step(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
        clean = evaluate(denoiser, y, sigma)
        memory.keep((y - clean) / sigma, sigma)
        if sigma_next == 0:
            return clean, clean
        count = memory.usable(sigma)
        weights = noise_weights(memory.nodes(count), math.log(sigma / sigma_next))
        return y - sigma * weighted(weights, memory.values[:count]), clean

    return walk(levels, y, step, observers)
