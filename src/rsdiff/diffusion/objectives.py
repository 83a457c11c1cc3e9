"""Training noise levels and loss weights that methods share: draws first, formulas apart, so that a parity test can give the draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.diffusion.denoisers import Denoiser, per_image
from rsdiff.diffusion.noise import NoiseSource


class LevelLaw(Protocol):
    """Where the noise levels of a training come from and how its errors count: the laws below, or a method's own."""

    def draw(self, noise: NoiseSource, count: int, device: torch.device | str) -> Tensor:
        """Return `count` levels."""
        ...

    def weight(self, sigma: Tensor) -> Tensor:
        """Return the weight of the squared error of the clean image at sigma."""
        ...


@config
class EdmLevels:
    """EDM's levels: log-normal, weighted so that every level contributes equally at initialisation."""

    mean: float = -1.2
    """P_mean, mean of ln(sigma)."""
    deviation: float = 1.2
    """P_std, standard deviation of ln(sigma)."""
    sigma_data: float = 0.5
    """Standard deviation of the data."""

    def draw(self, noise: NoiseSource, count: int, device: torch.device | str) -> Tensor:
        """Return `count` levels, one normal draw per image."""
        return self.sigma(noise.normal((count,), device))

    def sigma(self, draw: Tensor) -> Tensor:
        """Return sigma of a standard normal `draw`."""
        return (draw * self.deviation + self.mean).exp()

    def weight(self, sigma: Tensor) -> Tensor:
        """Return (sigma^2 + sd^2) / (sigma sd)^2."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


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


def weighted_square(clean: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return weight (D - x0)^2 per element; weight is (B,). Published recipes sum it over an image, see each method."""
    return per_image(weight, clean) * (clean - target) ** 2


@dataclass
class DenoisingError:
    """How far a denoiser is from the clean images at drawn levels.

    sigma   (B,), the levels
    clean   (B, C, H, W), the denoiser's estimate
    error   (B, C, H, W), weight (D - x0)^2 per element
    """

    sigma: Tensor
    clean: Tensor
    error: Tensor


def denoising_error(denoiser: Denoiser, levels: LevelLaw, target: Tensor, noise: NoiseSource) -> DenoisingError:
    """Return the weighted error of D(x0 + sigma n; sigma) for clean images `target`; the level is drawn first, then n."""
    sigma = levels.draw(noise, len(target), target.device)
    y = target + per_image(sigma, target) * noise.normal(target.shape, target.device)
    clean = denoiser(y, sigma)
    return DenoisingError(sigma, clean, weighted_square(clean, target, levels.weight(sigma)))


def log_normal_share(sigma: Tensor, mean: float = -1.2, deviation: float = 1.2) -> Tensor:
    """Return the probability that EDM's log-normal level lies below sigma; `log_normal_level` is its inverse."""
    return torch.special.ndtr((sigma.log() - mean) / deviation)


def log_normal_level(share: Tensor, mean: float = -1.2, deviation: float = 1.2) -> Tensor:
    """Return the sigma below which EDM's log-normal level lies with probability `share`."""
    return (torch.special.ndtri(share) * deviation + mean).exp()
