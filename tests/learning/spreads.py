"""How much of the true spread each published sampler keeps when its network is perfect: recursions of a single Gaussian coordinate.

A sampler of few levels does not reach the posterior even with a perfect network. Its error is known: along a principal axis of the
posterior, of variance v in the space of the diffusion, every published step is linear in the state, so that the variance of the result
follows from a recursion over the levels. These are the steps as papers print them, in x = a y, written without the code under test.
All functions return the standard deviation of the result over sqrt(v), (n,), for variances v (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Spread = Callable[[Tensor], Tensor]
"""Variances of axes (n,) -> what a perfect network's samples have of their deviations, (n,)."""


def ancestral(alphas_bar: Sequence[float], ends_clean: bool = True, largest_variance: bool = False) -> Spread:
    """DDPM's ancestral sampling (Ho et al., algorithm 2) from the standard normal, through descending noise: ascending alpha_bar.

    ends_clean        the last step returns the clean estimate; else the state at the last level is the result
    largest_variance  beta ("fixed large") in place of the posterior variance; no noise in a step to the clean image
    """

    def spread(v: Tensor) -> Tensor:
        variance = torch.ones_like(v)
        following = [*alphas_bar[1:], 1.0] if ends_clean else alphas_bar[1:]
        for bar, bar_next in zip(alphas_bar, following, strict=False):
            alpha = bar / bar_next
            of_clean = math.sqrt(bar_next) * (1 - alpha) / (1 - bar)
            of_state = math.sqrt(alpha) * (1 - bar_next) / (1 - bar)
            estimate = math.sqrt(bar) * v / (bar * v + 1 - bar)  # of x0, per unit of the state
            added = (1 - alpha) if largest_variance else (1 - alpha) * (1 - bar_next) / (1 - bar)
            variance = (of_clean * estimate + of_state).square() * variance + (added if bar_next < 1 else 0.0)
        return (variance / v).sqrt()

    return spread


def learned_variance(alphas_bar: Sequence[float]) -> Spread:
    """Ancestral sampling with the best variance of a pixel in every step: the posterior's, plus that of the step's mean, over all axes."""

    def spread(v: Tensor) -> Tensor:
        variance = torch.ones_like(v)
        for bar, bar_next in zip(alphas_bar, [*alphas_bar[1:], 1.0], strict=True):
            alpha = bar / bar_next
            of_clean = math.sqrt(bar_next) * (1 - alpha) / (1 - bar)
            of_state = math.sqrt(alpha) * (1 - bar_next) / (1 - bar)
            share = bar * v + 1 - bar
            left = float((v * (1 - bar) / share).mean())
            added = (1 - alpha) * (1 - bar_next) / (1 - bar) + of_clean**2 * left
            variance = (of_clean * math.sqrt(bar) * v / share + of_state).square() * variance + (added if bar_next < 1 else 0.0)
        return (variance / v).sqrt()

    return spread


def edm_heun(steps: int, lowest: float, highest: float, rho: float = 7.0) -> Spread:
    """EDM's algorithm 1 on its own grid, from noise of the highest level, with an Euler step to 0."""
    high, low = highest ** (1 / rho), lowest ** (1 / rho)
    levels = [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)] + [0.0]

    def spread(v: Tensor) -> Tensor:
        state = torch.full_like(v, levels[0])
        for sigma, following in pairwise(levels):
            slope = sigma / (v + sigma**2)
            moved = 1 + (following - sigma) * slope
            if following > 0:
                slope = (slope + following / (v + following**2) * moved) / 2
            state = state * (1 + (following - sigma) * slope)
        return state / v.sqrt()

    return spread


def edm_stochastic_heun(
    start_variance: Tensor, steps: int, lowest: float, highest: float, churn: float, low: float, high: float, inflation: float
) -> Spread:
    """EDM's algorithm 2 from a state whose variance about the posterior's mean is given by axis, (n,); rho is 7."""
    start, end = highest ** (1 / 7), lowest ** (1 / 7)
    levels = [(start + i / (steps - 1) * (end - start)) ** 7 for i in range(steps)] + [0.0]
    gamma = min(churn / steps, math.sqrt(2) - 1)

    def spread(v: Tensor) -> Tensor:
        variance = start_variance
        for sigma, following in pairwise(levels):
            raised = sigma * (1 + gamma) if low <= sigma <= high else sigma
            variance = variance + inflation**2 * (raised**2 - sigma**2)
            slope = raised / (v + raised**2)
            moved = 1 + (following - raised) * slope
            if following > 0:
                slope = (slope + following / (v + following**2) * moved) / 2
            variance = variance * (1 + (following - raised) * slope).square()
        return (variance / v).sqrt()

    return spread


def euler_maruyama(drifts: Sequence[float], totals: Sequence[float]) -> Spread:
    """EDiffSR's reverse SDE, all steps T..1: the mean of the state before, plus noise of variance 2 tau, in the last step too."""

    def spread(v: Tensor) -> Tensor:
        variance = torch.ones_like(v)
        for t in range(len(totals) - 1, 0, -1):
            bar, bar_next, alpha = math.exp(-2 * totals[t]), math.exp(-2 * totals[t - 1]), math.exp(-2 * drifts[t])
            of_clean = math.sqrt(bar_next) * (1 - alpha) / (1 - bar)
            of_state = math.sqrt(alpha) * (1 - bar_next) / (1 - bar)
            estimate = math.sqrt(bar) * v / (bar * v + 1 - bar)
            variance = (of_clean * estimate + of_state).square() * variance + 2 * drifts[t]
        return (variance / v).sqrt()

    return spread
