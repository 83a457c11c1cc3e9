"""The only interface between networks and solvers: D(y, sigma) -> x0, for y = x0 + sigma * noise.

A wrapper turns a network into a denoiser: `DiscreteDenoiser` (schedules), `EdmDenoiser` (preconditioning), or a method's own. The network
is a plain callable `network(x, time)`: a method binds its conditions in a closure. A hook wraps a denoiser and is one, so that hooks
compose in any order and with any solver.

What a network predicts, and what that says of the clean image, is known here alone, for every method. A variance-preserving state is
x = a x0 + b n with a^2 + b^2 = 1; solvers see y = x / a and sigma = b / a. EDM's F is that of its preconditioning, because its
coefficients depend on the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor

from rsdiff.data.transfer import to_device

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


Network = Callable[[Tensor, Tensor], Tensor]
"""network(x, time): x (B, C, H, W) in the network's dtype, time (B,); returns (B, C', H, W), C' >= C."""

DataRange = tuple[float, float] | tuple[Tensor, Tensor]
"""Lowest and highest value of clean images, or the same for every pixel (residuals of an image)."""
TimeInput = Literal["level", "index", "fractional_index"]


class Denoiser(Protocol):
    """Estimates the clean image; its condition is bound when it is made.

    Every Gaussian process x_t = a x0 + b n is seen as y = x_t / a, sigma = b / a.
    """

    sigma_min: float
    sigma_max: float
    table: Tensor | None
    """Ascending float64 sigmas of a discrete process, on the CPU, or None for a continuous one."""
    data_range: DataRange | None
    """Bounds of clean images, or None where they have none (latents); `sampler.clip` clamps to it."""

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Return x0 of y's shape and dtype; y is (B, C, H, W), sigma is () or (B,) float64, > 0, on the CPU or y's device."""
        ...

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the level nearest to `sigma` that the network was trained for."""
        ...


def per_image(values: Tensor, image: Tensor) -> Tensor:
    """Return `values` () or (B,) as (1, 1, 1, 1) or (B, 1, 1, 1) in the dtype and on the device of `image`."""
    return to_device(values.reshape(-1, *[1] * (image.ndim - 1)), image.device, image.dtype)


def nearest_index(levels: Tensor, sigma: Tensor) -> Tensor:
    """Return the index of the entry of `levels` (T,) nearest to each `sigma` in its logarithm, int64, of sigma's shape."""
    return (sigma.log().reshape(-1, 1) - levels.log()).abs().argmin(1).reshape(sigma.shape)


class DenoiserHook:
    """A denoiser with the levels and data range of another one."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.sigma_min = denoiser.sigma_min
        self.sigma_max = denoiser.sigma_max
        self.table = denoiser.table
        self.data_range: DataRange | None = denoiser.data_range

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.denoiser.round_sigma(sigma)


class Clamped(DenoiserHook):
    """Clamps the clean estimate to [low, high], of all pixels or of each, at every evaluation (SR3's clip_denoised)."""

    def __init__(self, denoiser: Denoiser, low: float | Tensor, high: float | Tensor) -> None:
        super().__init__(denoiser)
        self.low = low
        self.high = high

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        clean = self.denoiser(y, sigma)
        if isinstance(self.low, Tensor) and isinstance(self.high, Tensor):
            return clean.clamp(self.low.to(clean), self.high.to(clean))
        return clean.clamp(float(self.low), float(self.high))
