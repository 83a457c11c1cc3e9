"""Discrete noise schedules: betas, everything derived from them in float64, the sigma table that solvers see, and the denoiser.

What a network predicts, and what that says of the clean image, is known here alone, for every method. (EDM's F is that of its
preconditioning, because its coefficients depend on the data.)
Notation: x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) n; y = x_t / sqrt(alpha_bar_t) = x0 + sigma_t n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.solvers import DataRange, Network, nearest_index, per_image

ScheduleName = Literal["linear", "quad", "const", "warmup10", "warmup50", "cosine", "linear_cosine"]
LOWEST_VARIANCE = 1e-20  # below it the published code clips posterior variances before taking the logarithm


def _linspace(start: float, end: float, steps: int) -> Tensor:
    return torch.linspace(start, end, steps, dtype=torch.float64)


def _linear(steps: int, start: float, end: float, offset: float) -> Tensor:
    return _linspace(start, end, steps)


def _quad(steps: int, start: float, end: float, offset: float) -> Tensor:
    """Linear in sqrt(beta): Stable Diffusion's "linear", DDPM's "quad"."""
    return _linspace(math.sqrt(start), math.sqrt(end), steps).square()


def _const(steps: int, start: float, end: float, offset: float) -> Tensor:
    return torch.full((steps,), end, dtype=torch.float64)


def _warmup(share: float) -> Callable[[int, float, float, float], Tensor]:
    def warmup(steps: int, start: float, end: float, offset: float) -> Tensor:
        rising = int(steps * share)
        return torch.cat([_linspace(start, end, rising), torch.full((steps - rising,), end, dtype=torch.float64)])

    return warmup


def _jsd(steps: int, start: float, end: float, offset: float) -> Tensor:
    return 1 / _linspace(steps, 1, steps)


def _cosine(steps: int, start: float, end: float, offset: float) -> Tensor:
    """Improved DDPM's cosine: alpha_bar follows cos^2, betas capped at 0.999."""
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((time + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - curve[1:] / curve[:-1]).clamp(max=0.999)


def _linear_cosine(steps: int, start: float, end: float, offset: float) -> Tensor:
    """DiffBSR's: linear betas plus 1.5 times the cosine's, capped at 0.999; for few steps."""
    return (_linear(steps, start, end, offset) + 1.5 * _cosine(steps, start, end, offset)).clamp(0, 0.999)


BETAS: Mapping[str, Callable[[int, float, float, float], Tensor]] = {
    "linear": _linear,
    "quad": _quad,
    "const": _const,
    "warmup10": _warmup(0.1),
    "warmup50": _warmup(0.5),
    "jsd": _jsd,
    "cosine": _cosine,
    "linear_cosine": _linear_cosine,
}
"""Betas by name: function(steps, start, end, offset) -> (steps,) float64. A new schedule is a function, a line here and in ScheduleName;
"jsd" is no option, for its last beta is 1, after which no image can be restored."""


def make_betas(name: str, steps: int, start: float, end: float, offset: float = 0.008) -> Tensor:
    """Return the float64 betas (steps,) of schedule `name`; `offset` is the cosine's s. Source: SR3, make_beta_schedule."""
    return BETAS[name](steps, start, end, offset)


@config
class ScheduleConfig:
    """The noise schedule a network is trained with."""

    read_with: ClassVar[ReadWith] = {
        "start": ("name", ("linear", "quad", "warmup10", "warmup50", "linear_cosine")),
        "end": ("name", ("linear", "quad", "const", "warmup10", "warmup50", "linear_cosine")),
        "offset": ("name", ("cosine", "linear_cosine")),
    }

    name: ScheduleName = "linear"
    """Shape of beta over t."""
    steps: int = 2000
    """T, number of levels."""
    start: float = 1e-6
    """First beta."""
    end: float = 1e-2
    """Last beta."""
    offset: float = 0.008
    """s of the cosine schedules."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"a schedule of {self.steps} steps was given; choose at least 1.")
        if not (0 < self.start < 1 and 0 < self.end < 1):
            raise UserError(f"betas start={self.start} and end={self.end} were given; choose both between 0 and 1.")

    def build(self) -> DiscreteSchedule:
        with torch.device("cpu"):  # also where a method is built on the meta device: the levels are numbers, not weights
            return DiscreteSchedule(make_betas(self.name, self.steps, self.start, self.end, self.offset))


@dataclass(frozen=True, eq=False)
class DiscreteSchedule:
    """T noise levels of a variance-preserving diffusion, in float64 on the CPU.

    betas    (T,), each in (0, 1)
    indices  (T,) int64, the time index the network is given at each level: 0..T-1, or the original indices of a respaced schedule

    Raises UserError when a beta lies outside (0, 1): alpha_bar = 0 (beta = 1, the end of `jsd`) has no finite sigma.
    """

    betas: Tensor
    indices: Tensor

    def __init__(self, betas: Tensor | Sequence[float], indices: Tensor | Sequence[int] | None = None) -> None:
        values = torch.as_tensor(betas, dtype=torch.float64)
        if values.ndim != 1 or not bool(((values > 0) & (values < 1)).all()):
            raise UserError(f"betas from {float(values.min())} to {float(values.max())} were given; each must lie between 0 and 1.")
        object.__setattr__(self, "betas", values)
        object.__setattr__(self, "indices", torch.arange(len(values)) if indices is None else torch.as_tensor(indices))
        object.__setattr__(self, "_moved", {})

    def __len__(self) -> int:
        return len(self.betas)

    def on(self, device: torch.device, name: Literal["alphas_bar", "signal_levels", "sigmas", "indices"]) -> Tensor:
        """Return a table on `device`, copied there once: a training step looks its levels up without waiting. Not to be written to."""
        moved: dict[tuple[torch.device, str], Tensor] = self.__dict__["_moved"]
        if (device, name) not in moved:
            moved[device, name] = to_device(getattr(self, name), device)
        return moved[device, name]

    @property
    def alphas_bar(self) -> Tensor:
        """alpha_bar (T,) = prod(1 - beta), descending."""
        return (1 - self.betas).cumprod(0)

    @property
    def alphas_bar_before(self) -> Tensor:
        """alpha_bar_{t-1} (T,), starting with 1."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_bar[:-1]])

    @property
    def sigmas(self) -> Tensor:
        """sigma_t (T,) = sqrt((1 - alpha_bar) / alpha_bar), ascending."""
        return ((1 - self.alphas_bar) / self.alphas_bar).sqrt()

    @property
    def signal_levels(self) -> Tensor:
        """s (T+1,) = sqrt([1, alpha_bar_0, .., alpha_bar_{T-1}]), descending: the continuous noise level of SR3."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_bar]).sqrt()

    @property
    def posterior_variance(self) -> Tensor:
        """Variance (T,) of x_{t-1} given x_t and x0."""
        return self.betas * (1 - self.alphas_bar_before) / (1 - self.alphas_bar)

    def signal_between(self, step: Tensor, fraction: Tensor) -> Tensor:
        """Return s[step-1] + (s[step] - s[step-1]) * fraction, float64: SR3's continuous level for step in 1..T, fraction in [0, 1)."""
        signal = self.on(step.device, "signal_levels")
        before = signal[step - 1]
        return before + (signal[step] - before) * fraction.to(torch.float64)

    def kept(self, indices: Tensor | Sequence[int]) -> DiscreteSchedule:
        """Return the schedule of the levels `indices` (ascending): new betas 1 - abar_i / abar_(previous kept). Source: improved DDPM."""
        chosen = torch.as_tensor(indices)
        alphas_bar = self.alphas_bar[chosen]
        before = torch.cat([torch.ones(1, dtype=torch.float64), alphas_bar[:-1]])
        return DiscreteSchedule(1 - alphas_bar / before, self.indices[chosen])

    def buffers(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Return the published buffers under their published names, derived in float64 and cast once to `dtype`."""
        bar, before, variance = self.alphas_bar, self.alphas_bar_before, self.posterior_variance
        derived = {
            "betas": self.betas,
            "alphas_cumprod": bar,
            "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": bar.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - bar).sqrt(),
            "log_one_minus_alphas_cumprod": (1 - bar).log(),
            "sqrt_recip_alphas_cumprod": (1 / bar).sqrt(),
            "sqrt_recipm1_alphas_cumprod": (1 / bar - 1).sqrt(),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": variance.clamp(min=LOWEST_VARIANCE).log(),
            "posterior_mean_coef1": self.betas * before.sqrt() / (1 - bar),
            "posterior_mean_coef2": (1 - before) * (1 - self.betas).sqrt() / (1 - bar),
        }
        return {name: values.to(dtype) for name, values in derived.items()}


def respaced(length: int, count: int) -> list[int]:
    """Return `count` of the indices 0 .. length-1, evenly from the first to the last, rounded half to even.

    Positions are sums of the stride in float64, whose rounding decides ties as published. Source: improved DDPM, space_timesteps.
    Raises UserError unless 1 <= count <= length.
    """
    if not 1 <= count <= length:
        raise UserError(f"{count} of {length} levels were to be kept; choose 1 to {length}.")
    stride = (length - 1) / max(count - 1, 1)
    return [round(position) for position in accumulate([stride] * (count - 1), initial=0.0)]


TimeInput = Literal["level", "index", "fractional_index"]
"""What a network is told of the level, see `DiscreteDenoiser`."""

Prediction = Literal["noise", "clean", "velocity"]
"""The noise n (DDPM), the clean image x0, or the velocity a n - b x0 (Salimans and Ho, 2022)."""


def clean_of(prediction: Prediction, y: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
    """Return x0 (B, C, H, W) from a network's output; y is the state at sigma (B, 1, 1, 1)."""
    match prediction:
        case "noise":
            return y - sigma * output
        case "clean":
            return output
        case "velocity":
            total = 1 + sigma.square()
            return y / total - output * sigma / total.sqrt()


def right_output(prediction: Prediction, clean: Tensor, noise: Tensor, signal: Tensor, deviation: Tensor) -> Tensor:
    """Return what a network should have said of x = signal clean + deviation noise; signal and deviation are (B, 1, 1, 1)."""
    match prediction:
        case "noise":
            return noise
        case "clean":
            return clean
        case "velocity":
            return signal * noise - deviation * clean


def variance_preserving_scale(sigma: Tensor) -> Tensor:
    """Return a = 1 / sqrt(1 + sigma^2), the factor of x = a y in a variance-preserving process, in float64."""
    return (1 + sigma.to(torch.float64).square()).rsqrt()


class DiscreteDenoiser:
    """A network trained on a variance-preserving schedule, seen as a denoiser.

    network     see Network; further channels of its output (learned variances) do not enter the estimate
    schedule    the levels it was trained with
    time        what the network receives: 'level' = sqrt(alpha_bar), valid for every sigma in the range (SR3);
                'index' = the schedule's time index, int64, of the nearest level; 'fractional_index' = that index interpolated in
                log sigma, for embeddings that take floats
    prediction  what it predicts
    data_range  bounds of clean images
    dtype       the network's dtype; y may be wider
    """

    def __init__(
        self,
        network: Network,
        schedule: DiscreteSchedule,
        prediction: Prediction = "noise",
        *,
        time: TimeInput = "level",
        data_range: DataRange | None = (-1.0, 1.0),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        table = schedule.sigmas
        self.network = network
        self.prediction: Prediction = prediction
        self.time = time
        self.data_range = data_range
        self.dtype = dtype
        self.sigma_min = float(table[0])
        self.sigma_max = float(table[-1])
        self.table: Tensor | None = table
        self._schedule = schedule

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        return self.evaluate(y, sigma)[0]

    def evaluate(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return x0, and the further channels (B, C' - C, H, W) of the network's output, both in y's dtype."""
        levels = sigma.to(torch.float64).expand(len(y))
        state = per_image(variance_preserving_scale(levels), y) * y
        output = self.network(state.to(self.dtype), to_device(self.time_of(levels), y.device)).to(y.dtype)
        return clean_of(self.prediction, y, per_image(levels, y), output[:, : y.shape[1]]), output[:, y.shape[1] :]

    def time_of(self, sigma: Tensor) -> Tensor:
        """Return the network's time input (B,) for sigma (B,): int64 for 'index', else the network's dtype."""
        if self.time == "level":
            return variance_preserving_scale(sigma).to(self.dtype)
        if self.time == "index":
            return self._schedule.on(sigma.device, "indices")[self._nearest(sigma)]
        table, indices = self._schedule.on(sigma.device, "sigmas").log(), self._schedule.on(sigma.device, "indices").to(sigma.dtype)
        above = torch.searchsorted(table, sigma.log()).clamp(1, len(table) - 1)
        share = ((sigma.log() - table[above - 1]) / (table[above] - table[above - 1])).clamp(0, 1)
        return torch.lerp(indices[above - 1], indices[above], share).to(self.dtype)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        if self.time == "index":
            return self._schedule.on(sigma.device, "sigmas")[self._nearest(sigma)].to(sigma.dtype)
        return sigma.clamp(self.sigma_min, self.sigma_max)

    def _nearest(self, sigma: Tensor) -> Tensor:
        return nearest_index(self._schedule.on(sigma.device, "sigmas"), sigma)
