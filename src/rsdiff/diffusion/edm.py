"""EDM: its preconditioning, how it is trained, and its stochastic Euler and Heun solvers with every choice of its ablation.

D(x; sigma) = c_skip x + c_out F(c_in x, c_noise); the denoiser takes the coefficients of other preconditionings, too (preconditioning.py).
Levels are drawn first, formulas stand apart, so that a parity test can give the draws. Every formula is evaluated in the dtype of the sigma
it is given, as published networks were trained.
Source: Karras et al., arXiv 2206.00364: table 1, and for the solvers algorithms 1 and 2 and section C; `schedule='linear',
scaling='none', alpha=1` is Algorithm 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.solvers import SILENT, DataRange, Denoiser, Network, Observers, evaluate, per_image, walk


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


@dataclass(frozen=True)
class Trajectory:
    """The curve along which the ODE is discretised: x(t) = s(t) y, noise level sigma(t).

    schedule          linear: sigma = t; ve: sigma = sqrt(t); vp: sigma of linear betas
    scaling           none: s = 1; vp: s = 1 / sqrt(1 + sigma^2)
    beta_d, beta_min  slope and start of the betas; read by schedule vp
    """

    schedule: Literal["linear", "ve", "vp"] = "linear"
    scaling: Literal["none", "vp"] = "none"
    beta_d: float = 19.9
    beta_min: float = 0.1

    def time(self, sigma: float) -> float:
        """Return t of level sigma; 0 at 0, where refitted betas with beta_min < 0 have a second root."""
        if sigma == 0:
            return 0.0
        match self.schedule:
            case "linear":
                return sigma
            case "ve":
                return sigma**2
            case "vp":
                return (math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log1p(sigma**2)) - self.beta_min) / self.beta_d

    def sigma(self, time: float) -> float:
        """Return the level at t."""
        match self.schedule:
            case "linear":
                return time
            case "ve":
                return math.sqrt(time)
            case "vp":
                return math.sqrt(math.expm1(0.5 * self.beta_d * time**2 + self.beta_min * time))

    def sigma_rate(self, time: float) -> float:
        """Return d sigma / dt at t > 0."""
        match self.schedule:
            case "linear":
                return 1.0
            case "ve":
                return 0.5 / math.sqrt(time)
            case "vp":
                sigma = self.sigma(time)
                return 0.5 * (self.beta_min + self.beta_d * time) * (sigma + 1 / sigma)

    def scale(self, sigma: float) -> float:
        """Return s at level sigma."""
        return 1.0 if self.scaling == "none" else 1 / math.sqrt(1 + sigma**2)

    def relative_scale_rate(self, time: float) -> float:
        """Return (ds / dt) / s at t > 0."""
        if self.scaling == "none":
            return 0.0
        sigma = self.sigma(time)
        return -sigma * self.sigma_rate(time) / (1 + sigma**2)


@dataclass(frozen=True)
class Churn:
    """Noise added before a step, EDM's S_churn, S_min, S_max and S_noise.

    amount    over a whole run; a step's share gamma = amount / steps is capped at sqrt(2) - 1
    low, high  levels between which noise is added
    inflation  factor on the standard deviation of the added noise
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    inflation: float = 1.0

    def share(self, sigma: float, steps: int) -> float:
        """Return gamma at level sigma: the level is raised to sigma (1 + gamma)."""
        return min(self.amount / steps, math.sqrt(2) - 1) if self.low <= sigma <= self.high else 0.0


LINEAR = Trajectory()
CALM = Churn()


def euler(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    *,
    churn: Churn = CALM,
    trajectory: Trajectory = LINEAR,
    draw_unused: bool = False,
    observers: Observers = SILENT,
) -> Tensor:
    """Euler's method on the probability-flow ODE, with optional churn: one evaluation per step."""
    return _solve(denoiser, levels, y, noise, None, churn, trajectory, draw_unused, observers)


def heun(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    *,
    alpha: float = 1.0,
    churn: Churn = CALM,
    trajectory: Trajectory = LINEAR,
    draw_unused: bool = False,
    observers: Observers = SILENT,
) -> Tensor:
    """EDM's stochastic second-order sampler: two evaluations per step, one in a step to 0.

    alpha  where the second slope is taken, as a share of the step in (0, 1]: 1 is Heun's method, 0.5 the midpoint method
    """
    return _solve(denoiser, levels, y, noise, alpha, churn, trajectory, draw_unused, observers)


def _solve(
    denoiser: Denoiser,
    levels: Tensor,
    y: Tensor,
    noise: NoiseSource,
    alpha: float | None,
    churn: Churn,
    trajectory: Trajectory,
    draw_unused: bool,
    observers: Observers,
) -> Tensor:
    """Shared loop; alpha None is first order. The slope at t is (sigma'/sigma + s'/s) x - (sigma'/sigma) s D(x / s, sigma)."""
    steps = len(levels) - 1

    def slope(x: Tensor, time: float) -> tuple[Tensor, Tensor]:
        sigma = trajectory.sigma(time)
        rate = trajectory.sigma_rate(time) / sigma
        scale = trajectory.scale(sigma)
        clean = evaluate(denoiser, x / scale, sigma)
        return (rate + trajectory.relative_scale_rate(time)) * x - rate * scale * clean, clean

    def step(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
        gamma = churn.share(sigma, steps)
        raised = float(denoiser.round_sigma(torch.tensor(sigma * (1 + gamma), dtype=torch.float64))) if gamma > 0 else sigma
        added = math.sqrt(max(raised**2 - sigma**2, 0.0)) * churn.inflation
        if added > 0 or draw_unused:
            y = y + added * noise.normal(y.shape, y.device, y.dtype)
        x = trajectory.scale(raised) * y
        time = trajectory.time(raised)
        width = trajectory.time(sigma_next) - time
        first, clean = slope(x, time)
        following = x + width * first
        if alpha is not None and sigma_next > 0:
            second, clean = slope(x + alpha * width * first, time + alpha * width)
            following = x + width * ((1 - 0.5 / alpha) * first + (0.5 / alpha) * second)
        return following / trajectory.scale(sigma_next), clean

    return walk(levels, y, step, observers)
