"""Exact networks: what a network of each method would answer had it learned the Gaussian world perfectly.

They know nothing of the code under test: schedules, scalings and targets are written here from the papers and the released code, and the
LR is taken from the condition that the network is shown. A fault in schedule, preconditioning, target or sampler then shows as a wrong
distribution of samples, or as a loss that is not the Bayes error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.learning.world import GaussianWorld


def bicubic(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge without antialiasing, half-pixel centres, a = -0.75: what the published codes condition on."""
    return F.interpolate(lr, size=size, mode="bicubic", align_corners=False)


def nearest(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat pixels."""
    return F.interpolate(lr, size=size, mode="nearest")


def bilinear(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge with half-pixel centres."""
    return F.interpolate(lr, size=size, mode="bilinear", align_corners=False)


Enlarge = Callable[[Tensor, tuple[int, int]], Tensor]


def alphas_bar_of(betas: np.ndarray) -> Tensor:
    """Return alpha_bar (T,) of betas."""
    return torch.from_numpy(np.cumprod(1 - betas))


def linear_betas(start: float, end: float, steps: int) -> np.ndarray:
    """DDPM's and SR3's betas."""
    return np.linspace(start, end, steps, dtype=np.float64)


def cosine_betas(steps: int, offset: float = 0.008) -> np.ndarray:
    """Improved DDPM's betas."""
    curve = [math.cos((t / steps + offset) / (1 + offset) * math.pi / 2) ** 2 for t in range(steps + 1)]
    return np.array([min(1 - after / before, 0.999) for before, after in pairwise(curve)])


def level_of_signal(signal: Tensor) -> Tensor:
    """Return sigma of y = x / a for a = sqrt(alpha_bar)."""
    a = signal.double()
    return ((1 - a.square()).clamp(min=0).sqrt() / a).clamp(min=1e-9)


@dataclass(frozen=True)
class Space:
    """What a method diffuses: v = factor x + shift(lr), for images x in [0, 1]; shift is (B, C, H, W) or a number."""

    factor: float = 2.0
    shift: Callable[[Tensor], Tensor | float] = field(default=lambda lr: -1.0)


SIGNED = Space()
UNIT = Space(1.0, lambda lr: 0.0)


class Exact(nn.Module):
    """The best denoiser of a world in the space of a method, and a record of the levels that it was asked at.

    gain, bias  its estimate of the noise is multiplied by and added to; 1 and 0 are exact
    """

    def __init__(self, world: GaussianWorld, space: Space = SIGNED, enlarge: Enlarge = bicubic) -> None:
        super().__init__()
        self.world, self.space, self.enlarge = world, space, enlarge
        self.sigmas: list[Tensor] = []
        self.gain = 1.0
        self.anchor = nn.Parameter(torch.zeros(()))  # methods ask their network for its device
        self.noise_error: Tensor | None = None
        self.lr: Tensor | None = None

    def lr_of(self, condition: Tensor, signed: bool = True) -> Tensor:
        """Return the LR in [0, 1] that was enlarged to `condition`, by least squares."""
        side = self.world.lr_side
        lr = (condition.double().flatten(2) @ self.shrink).reshape(*condition.shape[:2], side, side)
        return (lr + 1) / 2 if signed else lr

    @cached_property
    def shrink(self) -> Tensor:
        """The inverse (n, m) of the enlargement of the condition."""
        return inverse_of(self.enlarge, self.world.lr_side, self.world.side)

    def clean(self, y: Tensor, sigma: Tensor, lr: Tensor) -> Tensor:
        """Return the mean of v given v + sigma n = y (B, C, H, W) and lr; sigma (B,)."""
        self.sigmas.append(sigma.detach().clone())
        factor = self.space.factor
        shift = self.space.shift(lr)
        image = ((y.double() - shift) / factor).flatten(1)
        best = self.world.posterior(lr).denoise(image, sigma.double() / factor)
        clean = factor * best.reshape(y.shape) + shift
        if self.gain != 1.0:
            noise = (y.double() - clean) / _column(sigma)
            clean = y.double() - self.gain * noise * _column(sigma)
        return clean

    def noise(self, x: Tensor, signal: Tensor, lr: Tensor) -> Tensor:
        """Return the mean of n given x = a v + sqrt(1 - a^2) n, a = signal (B,)."""
        sigma = level_of_signal(signal)
        y = x.double() / _column(signal)
        return ((y - self.clean(y, sigma, lr)) / _column(sigma)).float()


def _column(values: Tensor) -> Tensor:
    return values.double().reshape(-1, 1, 1, 1)


def inverse_of(enlarge: Enlarge, small: int, large: int) -> Tensor:
    """Return the inverse (large^2, small^2) of an enlargement, by least squares."""
    units = torch.eye(small**2, dtype=torch.float64).reshape(-1, 1, small, small)
    return torch.linalg.pinv(enlarge(units, (large, large)).flatten(1))


class Concatenated(Exact):
    """SR3 and its twins: noise of cat(condition, x), told the level or the index of a table.

    table       alpha_bar by index, or None where the level sqrt(alpha_bar) is told
    """

    def __init__(self, world: GaussianWorld, table: Tensor | None = None, space: Space = SIGNED) -> None:
        super().__init__(world, space)
        self.table = table

    def signal(self, time: Tensor) -> Tensor:
        """Return sqrt(alpha_bar) of what the network is told."""
        return time if self.table is None else self.table[time].sqrt()

    def forward(self, x: Tensor, time: Tensor, code: Tensor | None = None) -> Tensor:
        condition, state = x.chunk(2, dim=1)
        return self.noise(state, self.signal(time), self.lr_of(condition))


class ExactIDM(Exact):
    """IDM: noise, told the level; the condition is what `ExactIDM.encode` makes."""

    def __init__(self, world: GaussianWorld) -> None:
        super().__init__(world, enlarge=nearest)

    def forward(self, x: Tensor, condition: Tensor, scaler: Tensor, level: Tensor) -> Tensor:
        assert torch.allclose(scaler, torch.full_like(scaler, (self.world.scale - 1) / 7)), "told another scale than (s - 1) / (8 - 1)"
        return self.noise(x, level, self.lr_of(condition))


class ExactEDM(Exact):
    """EDM under its preconditionings: F of D = c_skip y + c_out F(c_in y, c_noise), from table 1 of the paper."""

    def __init__(self, world: GaussianWorld, kind: str = "edm", enlarge: Enlarge = bicubic) -> None:
        super().__init__(world, enlarge=enlarge)
        self.kind = kind

    def forward(self, x: Tensor, noise_level: Tensor, augment_labels: Tensor | None = None) -> Tensor:
        state, condition = x.chunk(2, dim=1)
        return self.answer(state, noise_level, self.lr_of(condition))

    def answer(self, state: Tensor, noise_level: Tensor, lr: Tensor) -> Tensor:
        """Return F."""
        told = noise_level.double()
        if self.kind == "edm":
            sigma = (4 * told).exp()
            total = (sigma.square() + 0.25).sqrt()
            skip, out, into = 0.25 / total.square(), 0.5 * sigma / total, 1 / total
        elif self.kind == "vp":
            time = told / 999
            sigma = torch.expm1(0.5 * 19.9 * time.square() + 0.1 * time).sqrt()
            skip, out, into = torch.ones_like(sigma), -sigma, (sigma.square() + 1).rsqrt()
        else:
            sigma = 2 * told.exp()
            skip, out, into = torch.ones_like(sigma), sigma, torch.ones_like(sigma)
        y = state.double() / _column(into)
        return ((self.clean(y, sigma, lr) - _column(skip) * y) / _column(out)).float()


class ExactRefDiff(ExactEDM):
    """Ref-Diff where the reference shows other ground: F, told ln(sigma) / 4. Trained on bilinear enlargements, used on repeated pixels."""

    @property
    def shrink(self) -> Tensor:
        """See Exact."""
        return inverse_of(bilinear if self.training else nearest, self.world.lr_side, self.world.side)

    def forward(self, x: Tensor, noise_level: Tensor, lr: Tensor, ref: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return self.answer(x, noise_level, self.lr_of(lr))


class ExactSRDiff(Concatenated):
    """DiffBSR's SRDiff ablation: noise of the residual, told the index; the feature is the LR in [0, 1]."""

    def forward(self, x: Tensor, step: Tensor, feature: Tensor) -> Tensor:  # type: ignore[override]
        return self.noise(x, self.signal(step), feature.double())


class ExactBlindSRSNF(Exact):
    """BlindSRSNF: the clean image, told the level; the feature is the LR in [-1, 1]."""

    def forward(self, x: Tensor, level: Tensor, feature: Tensor, code: Tensor) -> Tensor:
        lr = (feature.double() + 1) / 2
        return self.clean(x.double() / _column(level), level_of_signal(level), lr).float()


class ExactBlindDiff(Concatenated):
    """BlindDiff: noise, the variance channel, and the kernel; told the index of 1000 levels.

    The best variance of a step is the posterior's plus that of the step's mean, pixel by pixel.
    """

    def __init__(self, world: GaussianWorld, kept: Tensor, kernel: Tensor) -> None:
        super().__init__(world, alphas_bar_of(linear_betas(1e-4, 2e-2, 1000)), UNIT)
        self.kept, self.kernel = kept, kernel
        self.variance_shift = 0.0

    def enlarge_lr(self, lr: Tensor) -> Tensor:
        """What the method asks of its network for starts at the image."""
        return bicubic(lr, (self.world.side, self.world.side))

    def forward(self, x: Tensor, time: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        table = self.table
        assert table is not None
        noise = self.noise(x, table[time].sqrt(), lr.double())
        place = torch.searchsorted(self.kept, time)
        before = torch.where(place > 0, table[self.kept[(place - 1).clamp(min=0)]], torch.ones((), dtype=torch.float64))
        now = table[time]
        beta = 1 - now / before
        least = (beta * (1 - before) / (1 - now)).clamp(min=1e-20)
        of_clean = beta * before.sqrt() / (1 - now)
        left = self.world.posterior(lr).pixel_variance(level_of_signal(now.sqrt()))
        best = (_column(least) + _column(of_clean.square()) * left.reshape(x.shape)).log()
        low, high = _column(least.log()), _column(beta.log())
        channel = (2 * (best - low) / (high - low).clamp(min=1e-12) - 1).float() + self.variance_shift
        return torch.cat([noise, channel], dim=1), self.kernel.expand(len(x), *self.kernel.shape)


class ExactEDiffSR(Exact):
    """EDiffSR: the noise that makes the published Euler step the posterior mean of the state before; told the step 1..100."""

    strength = 50 / 255

    def __init__(self, world: GaussianWorld, steps: int = 100, remainder: float = 0.005) -> None:
        super().__init__(world, Space(1 / self.strength, lambda lr: -bicubic(lr, (world.side, world.side)) / self.strength))
        count = steps + 2
        time = torch.arange(count + 1, dtype=torch.float64) / count
        curve = torch.cos((time + 0.008) / 1.008 * math.pi / 2).square()
        thetas = 1 - (curve / curve[0])[1:-1]
        self.drifts = thetas * (-math.log(remainder) / float(thetas[1:].sum()))
        self.totals = torch.cat([torch.zeros(1, dtype=torch.float64), self.drifts[1:].cumsum(0)])

    def forward(self, x: Tensor, mean: Tensor, time: Tensor) -> Tensor:
        lr = self.lr_of(mean, signed=False)
        t = time.double().round().long()
        assert bool((t - time).abs().max() < 1e-3)
        state = (x.double() - mean.double()) / self.strength
        signal = (-self.totals[t]).exp()
        clean = self.clean(state / _column(signal), level_of_signal(signal), lr)
        drift, decay, before = self.drifts[t], (-self.drifts[t]).exp(), (-self.totals[t - 1]).exp()
        spread = 1 - signal.square()
        wanted = _column(decay * (1 - before.square()) / spread) * state + _column(before * (1 - decay.square()) / spread) * clean
        return ((_column(1 + drift) * state - wanted) / _column(2 * drift / spread.sqrt())).float()


class Restorer(nn.Module):
    """Stands for the CNN of a blind method: the bicubically enlarged LR, and the LR itself as feature."""

    size_multiple = 1

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, lr: Tensor) -> Tensor:
        return bicubic(lr, (self.side, self.side))

    def trunk(self, lr: Tensor) -> list[Tensor]:
        """Features."""
        return [lr] * 3

    def head(self, feature: Tensor) -> Tensor:
        """Image of a feature."""
        return self(feature)
