"""The four preconditionings of EDM: D(x; sigma) = c_skip x + c_out F(c_in x, c_noise), the denoiser they make, and how it is trained.

Levels are drawn first, formulas stand apart, so that a parity test can give the draws. Source: Karras et al., arXiv 2206.00364, table 1.
Every formula is evaluated in the dtype of the sigma it is given: published networks were trained with float32 expressions whose
cancellation at small sigma (VP) is part of what the network has seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.denoisers import DataRange, Denoiser, Network, per_image
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.solvers import iddpm_levels


class Coefficients(NamedTuple):
    """c_skip, c_out, c_in and c_noise, of sigma's shape and dtype."""

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


class Preconditioning(Protocol):
    """Coefficients around a network, and the levels it was trained for."""

    @property
    def sigma_min(self) -> float: ...
    @property
    def sigma_max(self) -> float: ...
    @property
    def table(self) -> Tensor | None: ...
    def coefficients(self, sigma: Tensor) -> Coefficients: ...
    def round_sigma(self, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EdmPreconditioning:
    """EDM: unit variance of the network's input and target at every level.

    sigma_data  standard deviation of the data, 0.5 for images in [-1, 1]
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    table: None = None

    def coefficients(self, sigma: Tensor) -> Coefficients:
        total = sigma**2 + self.sigma_data**2
        return Coefficients(self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma


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


class EdmDenoiser:
    """A network in EDM form, D = c_skip y + c_out F(c_in y, c_noise), under any of the four preconditionings.

    Everything is evaluated in `dtype`, as published; D is widened to y's dtype. Further output channels (iDDPM) are cut off.
    """

    def __init__(
        self,
        network: Network,
        preconditioning: Preconditioning,
        *,
        data_range: DataRange | None = (-1.0, 1.0),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.network = network
        self.preconditioning = preconditioning
        self.data_range = data_range
        self.dtype = dtype
        self.sigma_min = self.preconditioning.sigma_min
        self.sigma_max = self.preconditioning.sigma_max
        self.table: Tensor | None = self.preconditioning.table

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        state = y.to(self.dtype)
        c = self.preconditioning.coefficients(sigma.to(dtype=self.dtype).expand(len(y)))
        output = self.network(per_image(c.into, state) * state, to_device(c.noise, y.device))[:, : y.shape[1]]
        return (per_image(c.skip, state) * state + per_image(c.out, state) * output.to(self.dtype)).to(y.dtype)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.preconditioning.round_sigma(sigma)


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
