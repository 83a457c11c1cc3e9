"""What diffused before EDM, in EDM's form: the score SDEs VP and VE and improved DDPM, their coefficients and their training levels.

Every formula is evaluated in the dtype of the sigma it is given: published networks were trained with float32 expressions whose
cancellation at small sigma (VP) is part of what the network has seen. Source: Karras et al., arXiv 2206.00364, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.edm import Coefficients
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.solvers import iddpm_levels


@dataclass(frozen=True)
class VpPreconditioning:
    """VP (score SDE, DDPM): eps-prediction with the continuous time t(sigma) of linear betas.

    beta_d, beta_min  slope and start of beta(t)
    steps             M, the network's time runs from 0 to M-1
    epsilon_t         smallest trained t
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    steps: int = 1000
    epsilon_t: float = 1e-5
    table: None = None

    @property
    def sigma_min(self) -> float:
        return float(self.sigma(torch.tensor(self.epsilon_t)))

    @property
    def sigma_max(self) -> float:
        return float(self.sigma(torch.tensor(1.0)))

    def sigma(self, time: Tensor) -> Tensor:
        """Return sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1)."""
        return ((0.5 * self.beta_d * time**2 + self.beta_min * time).exp() - 1).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Return t(sigma), the inverse of `sigma`."""
        return ((self.beta_min**2 + 2 * self.beta_d * (1 + sigma**2).log()).sqrt() - self.beta_min) / self.beta_d

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), (self.steps - 1) * self.time(sigma))

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma


@dataclass(frozen=True)
class VePreconditioning:
    """VE (score SDE, NCSN++)."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    table: None = None

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(torch.ones_like(sigma), sigma, torch.ones_like(sigma), (0.5 * sigma).log())

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma


class IddpmPreconditioning:
    """Improved DDPM: eps-prediction with a table of levels.

    steps         M
    lowest_ratio  C_1, lower bound of the ratio of neighbouring alpha_bar
    offset        C_2, the cosine's s
    """

    def __init__(self, steps: int = 1000, lowest_ratio: float = 0.001, offset: float = 0.008) -> None:
        self.steps = steps
        self.levels = iddpm_levels(steps, lowest_ratio, offset)
        self.sigma_min = float(self.levels[steps - 1])
        self.sigma_max = float(self.levels[0])
        self.table = self.levels[:steps].flip(0).to(torch.float64)

    def index(self, sigma: Tensor) -> Tensor:
        """Return the index (int64) of the entry of u nearest to sigma."""
        levels = to_device(self.levels, sigma.device)
        nearest = (sigma.to(torch.float32).reshape(-1, 1) - levels).abs().argmin(1)
        return nearest.reshape(sigma.shape)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        noise = self.steps - 1 - self.index(sigma)
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), noise.to(sigma.dtype))

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return to_device(self.levels, sigma.device)[self.index(sigma)].to(sigma.dtype)


@config
class VpLevels:
    """Levels of the VP score SDE: uniform in the time of linear betas, weighted as eps-prediction."""

    beta_d: float = 19.9
    """Slope of beta(t)."""
    beta_min: float = 0.1
    """Start of beta(t)."""
    epsilon_t: float = 1e-5
    """Smallest t."""

    def draw(self, noise: NoiseSource, count: int, device: torch.device | str) -> Tensor:
        """Return `count` levels, one uniform draw per image."""
        return self.sigma(noise.uniform((count,), device))

    def sigma(self, draw: Tensor) -> Tensor:
        """Return sigma of a `draw` from [0, 1), which runs from t = 1 down to epsilon_t."""
        time = 1 + draw * (self.epsilon_t - 1)
        return ((0.5 * self.beta_d * time**2 + self.beta_min * time).exp() - 1).sqrt()

    def weight(self, sigma: Tensor) -> Tensor:
        """Return 1 / sigma^2."""
        return 1 / sigma**2


@config
class VeLevels:
    """Levels of the VE score SDE: uniform in ln(sigma), weighted as eps-prediction."""

    sigma_min: float = 0.02
    """Lowest level."""
    sigma_max: float = 100.0
    """Highest level."""

    def draw(self, noise: NoiseSource, count: int, device: torch.device | str) -> Tensor:
        """Return `count` levels, one uniform draw per image."""
        return self.sigma(noise.uniform((count,), device))

    def sigma(self, draw: Tensor) -> Tensor:
        """Return sigma of a `draw` from [0, 1)."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** draw

    def weight(self, sigma: Tensor) -> Tensor:
        """Return 1 / sigma^2."""
        return 1 / sigma**2
