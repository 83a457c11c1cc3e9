"""The only interface between networks and solvers: D(y, sigma) -> x0, for y = x0 + sigma * noise.

A wrapper turns a network into a denoiser: `DiscreteDenoiser` (schedules), `EdmDenoiser` (preconditioning), or a method's own. The network
is a plain callable `network(x, time)`: a method binds its conditions in a closure. A hook wraps a denoiser and is one, so that hooks
compose in any order and with any solver.

What a network predicts, and what that says of the clean image, is known here alone, for every method. A variance-preserving state is
x = a x0 + b n with a^2 + b^2 = 1; solvers see y = x / a and sigma = b / a. EDM's F is that of its preconditioning, because its
coefficients depend on the data. What an estimate of the image is added to is its base: nothing, the enlarged LR image, or a regression per
pixel that is fitted while training runs. A method asks its base for the image to add and, in training, shows it what it may learn from;
networks know nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.config.kinds import Kinds
from rsdiff.config.tagged import Tagged
from rsdiff.data.enlarging import enlarge
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


class Target(Protocol):
    """What a base must know of the problem: the bands of target and input, and the ratio of their pixels."""

    @property
    def scale(self) -> float: ...
    @property
    def bands(self) -> int: ...
    @property
    def lr_bands(self) -> int: ...


class Base(nn.Module):
    """forward(lr (B, c, h, w), size (H, W)) -> (B, C, H, W), in the range of lr; this one adds nothing."""

    adds: ClassVar[bool] = False
    """Whether there is something to add: where there is not, `onto` leaves an estimate as it is."""
    learns: ClassVar[bool] = False
    """Whether `observe` shall see the training batches."""

    def observe(self, lr: Tensor, target: Tensor, valid: Tensor | None) -> None:
        """Learn from a training batch; valid (B, 1, H, W) says which pixels count, None all."""

    def settle(self) -> None:
        """Use what was learned, after an optimiser step."""

    def onto(self, estimate: Tensor, lr: Tensor) -> Tensor:
        """Return what an estimate (B, C, H, W) makes with the base."""
        return estimate + self(lr, (int(estimate.shape[-2]), int(estimate.shape[-1]))) if self.adds else estimate

    def taken_off(self, target: Tensor, lr: Tensor) -> Tensor:
        """Return what of a target (B, C, H, W) is left to estimate: the inverse of `onto`."""
        return target - self(lr, (int(target.shape[-2]), int(target.shape[-1]))) if self.adds else target


class Enlarged(Base):
    """The LR image, enlarged bicubically."""

    adds: ClassVar[bool] = True

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        return enlarge(lr, size)


class BaseConfig(Tagged):
    """The family of bases."""

    family: ClassVar[str] = "base"
    kinds: ClassVar[Kinds] = Kinds(
        {
            "enlarged": "rsdiff.diffusion.denoisers:EnlargedConfig",
            "none": "rsdiff.diffusion.denoisers:NoBaseConfig",
            "regression": "rsdiff.diffusion.regression_base:RegressionConfig",
        }
    )

    def refuse_base(self, model: str, problem: Target) -> str | None:
        """Return None, or one sentence that says why there is no such base for `problem`."""
        return None

    def build_base(self, problem: Target) -> Base:
        """Return the base."""
        return Base()


@config
class NoBaseConfig(BaseConfig):
    """Nothing: the estimate is the image."""

    kind: ClassVar[str] = "none"


@config
class EnlargedConfig(BaseConfig):
    """The enlarged LR image: an untrained model then gives that."""

    kind: ClassVar[str] = "enlarged"

    def refuse_base(self, model: str, problem: Target) -> str | None:
        if problem.bands != problem.lr_bands:
            return f"model {model} is to begin at the enlarged LR of {problem.lr_bands} bands for {problem.bands}; set model.base=none."
        return None

    def build_base(self, problem: Target) -> Base:
        return Enlarged()
