"""Guidance: classifier-free, which wraps a denoiser and is one; by gradients of an energy; and SCDM's dynamic thresholding.

`GuidedSteps` and `clamp_to_quantile` act on the solver's state instead, as `Observers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rsdiff.diffusion.solvers import Denoiser, DenoiserHook, Step, per_image


class TwoCall(DenoiserHook):
    """Classifier-free guidance: D + weight (D - D_without), where `without` is the denoiser without its condition.

    weight 0 is no guidance. It equals (1 + w) eps - w eps_without, since D is linear in eps. Clamp outside of it, not inside.
    """

    def __init__(self, denoiser: Denoiser, without: Denoiser, weight: float) -> None:
        super().__init__(denoiser)
        self.without = without
        self.weight = weight

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        clean = self.denoiser(y, sigma)
        if self.weight == 0:
            return clean
        return clean + self.weight * (clean - self.without(y, sigma))


class GuidedSteps:
    """Gradient guidance of whole steps of any solver, for `Observers.around_step`: x' = step(x) - weight d energy(x0(x)) / dx.

    energy  energy(clean) -> (B,), one number per image, so that images do not influence each other
    weight  length of the step along the negative gradient
    x is the variance-preserving state y / sqrt(1 + sigma^2) and x0(x) the clean estimate of the step, differentiated through the network.
    Works under torch.no_grad(). States carry no graph from one step to the next, so memory does not depend on the number of steps.
    Source: BlindDiff (Li et al., 2024), p_sample_loop_progressive.
    """

    def __init__(self, energy: Callable[[Tensor], Tensor], weight: float) -> None:
        self.energy = energy
        self.weight = weight

    def __call__(self, step: Step) -> Step:
        def guided(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                variable = y.detach().requires_grad_()
                following, clean = step(variable, sigma, sigma_next)
                (gradient,) = torch.autograd.grad(self.energy(clean).sum(), variable)
            # dE/dx = sqrt(1 + sigma^2) dE/dy, and y' = sqrt(1 + sigma_next^2) x'
            factor = math.sqrt((1 + sigma**2) * (1 + sigma_next**2))
            return following.detach() - self.weight * factor * gradient, clean.detach()

        return guided


def clamp_to_quantile(state: Tensor, share: float, least: float = 1.0) -> Tensor:
    """Return each image of `state` (B, C, H, W) clamped to +-max(least, quantile of its absolute values at `share`), undivided.

    For use as `Observers.before_step`, on x = a y; SCDM's dynamic thresholding acts on the state and not on the estimate.
    """
    bound = per_image(quantile_of_magnitudes(state, share).clamp(min=least), state)
    return torch.minimum(torch.maximum(state, -bound), bound)


def quantile_of_magnitudes(state: Tensor, share: float) -> Tensor:
    """Return (B,), the quantile at `share` of the absolute values of each image, linearly interpolated.

    Sorts instead of torch.quantile, which refuses more than 16 million values.
    """
    magnitudes = state.abs().flatten(1).sort(1).values
    position = share * (magnitudes.shape[1] - 1)
    below = int(position)
    above = min(below + 1, magnitudes.shape[1] - 1)
    return torch.lerp(magnitudes[:, below], magnitudes[:, above], position - below)
