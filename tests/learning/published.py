"""Published objectives of a perfect network, and the published laws of training levels, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests.learning import exact
from tests.learning.exact import Space
from tests.learning.world import GaussianWorld

Law = Callable[[Tensor], Tensor]
"""sigma (N,) -> the probability that a published training level is lower; of a table, the middle of its step."""
Expected = Callable[[GaussianWorld, Space, Tensor], Tensor]
"""(world, space, sigma (N,)) -> the published loss of a perfect network at these levels, (N,)."""


def absolute_noise(world: GaussianWorld, space: Space, sigma: Tensor) -> Tensor:
    """Mean absolute error of the noise: of a Gaussian, sqrt(2 / pi) deviations."""
    left = world.posterior(torch.zeros(1, world.bands, world.lr_side, world.lr_side)).pixel_variance(sigma / space.factor)
    return math.sqrt(2 / math.pi) * space.factor * left.sqrt().mean(1) / sigma


def squared_noise(world: GaussianWorld, space: Space, sigma: Tensor) -> Tensor:
    """Mean squared error of the noise."""
    return squared_clean(world, space, sigma) / sigma.square()


def squared_clean(world: GaussianWorld, space: Space, sigma: Tensor) -> Tensor:
    """Mean squared error of the clean image in the space of the diffusion."""
    left = world.posterior(torch.zeros(1, world.bands, world.lr_side, world.lr_side)).pixel_variance(sigma / space.factor)
    return space.factor**2 * left.mean(1)


def edm_loss(world: GaussianWorld, space: Space, sigma: Tensor) -> Tensor:
    """EDM's loss: the sum over an image, weighted by (sigma^2 + 0.25) / (0.5 sigma)^2."""
    return world.values * squared_clean(world, space, sigma) * (sigma.square() + 0.25) / (0.5 * sigma).square()


def score_loss(world: GaussianWorld, space: Space, sigma: Tensor) -> Tensor:
    """The loss of the VP and VE score SDEs: the sum over an image of the squared error of the noise."""
    return world.values * squared_noise(world, space, sigma)


def ediffsr_loss(world: GaussianWorld, space: Space, sigma: Tensor) -> Tensor:
    """EDiffSR's: the mean absolute error of the state before, in units of the image."""
    network = exact.ExactEDiffSR(world)
    signals = (-network.totals[1:]).exp()
    t = 1 + (exact.level_of_signal(signals)[None] / sigma[:, None]).log().abs().argmin(1)
    before, decay = (-network.totals[t - 1]).exp(), (-network.drifts[t]).exp()
    share = before * (1 - decay.square()) / (1 - signals[t - 1].square())
    return network.strength * share * absolute_noise(world, space, sigma) * sigma


def log_normal(sigma: Tensor) -> Tensor:
    """EDM's law: ln(sigma) is normal with mean -1.2 and deviation 1.2."""
    return torch.special.ndtr((sigma.log() + 1.2) / 1.2)


def of_table(alphas_bar: Tensor, between: bool) -> Law:
    """Return the law of steps drawn evenly from a table, with levels evenly spread between neighbouring sqrt(alpha_bar), or at them."""
    signals = torch.cat([torch.ones(1, dtype=torch.float64), alphas_bar.sqrt()])

    def law(sigma: Tensor) -> Tensor:
        signal = (1 + sigma.double().square()).rsqrt()
        step = torch.searchsorted(-signals, -signal + (0 if between else 1e-7)).clamp(1, len(alphas_bar))
        share = (signals[step - 1] - signal) / (signals[step - 1] - signals[step]) if between else 0.5
        return ((step - 1 + share) / len(alphas_bar)).clamp(0, 1)

    return law


def vp_law(sigma: Tensor) -> Tensor:
    """The VP score SDE's: t even in [1e-5, 1], sigma^2 = exp(19.9 t^2 / 2 + 0.1 t) - 1."""
    log = sigma.double().square().log1p()
    time = ((0.1**2 + 2 * 19.9 * log).sqrt() - 0.1) / 19.9
    return (time - 1e-5) / (1 - 1e-5)


def ve_law(sigma: Tensor) -> Tensor:
    """The VE score SDE's: ln(sigma) even from 0.02 to 100."""
    return (sigma.double() / 0.02).log() / math.log(100 / 0.02)
