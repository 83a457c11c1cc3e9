"""The only interface between networks and solvers: D(y, sigma) -> x0, for y = x0 + sigma * noise.

A wrapper turns a network into a denoiser. The network is a plain callable `network(x, time)`: a method binds its conditions in a closure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from rsdiff.data.transfer import to_device
from rsdiff.diffusion.preconditioning import Preconditioning
from rsdiff.diffusion.predictions import Prediction, clean_of
from rsdiff.diffusion.schedules import DiscreteSchedule, variance_preserving_scale

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


class DiscreteDenoiser:
    """A network trained on a variance-preserving schedule, seen as a denoiser.

    network     see Network; further channels of its output (learned variances) do not enter the estimate
    schedule    the levels it was trained with
    time        what the network is told: 'level' = sqrt(alpha_bar), valid for every sigma in the range (SR3);
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
        distance = sigma.log().reshape(-1, 1) - self._schedule.on(sigma.device, "sigmas").log()
        return distance.abs().argmin(1).reshape(sigma.shape)


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
