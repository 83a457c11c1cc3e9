"""Real-ESRGAN's second-order degradation: blur, resize, noise and JPEG twice, then a sinc filter, ending with 8-bit rounding.

Source: RealESRGANDataset and RealESRGANModel.feed_data (kernels, order, ranges), degradations.py and diffjpeg.py of BasicSR. Deviations:
- everything is drawn per image; the published code shares resize factors, interpolations, noise kinds, the order of the last stages and
  the grey noise field within a batch, and mixes batches in a pool of 180 pairs to make up for it (rsdiff.degradations.pool has it)
- sharpening by separable filters moves a target by up to 4e-4; sharpening=dense is the published arithmetic
- JPEG by libjpeg is available beside the published "differentiable" formulas
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from rsdiff.config import UserError, config
from rsdiff.degradations.base import DegradationConfig
from rsdiff.degradations.bsrgan import Size, check_probabilities
from rsdiff.degradations.camera_kernels import KernelShape
from rsdiff.degradations.draws import Draws
from rsdiff.degradations.interpolation import INTERPOLATIONS
from rsdiff.degradations.jpeg import JpegBackend
from rsdiff.degradations.practical import PracticalDegradation
from rsdiff.degradations.sharpening import SharpeningBackend
from rsdiff.degradations.stages import (
    Backend,
    Blur,
    GaussianNoise,
    Jpeg,
    Resize,
    Round,
    ScaledPoissonNoise,
    ShapedBlur,
    Sharpen,
    SincBlur,
    Stage,
    noise_field,
)

KERNEL_SIZES = tuple(range(7, 22, 2))
SHAPES: tuple[KernelShape, ...] = ("gaussian", "gaussian", "generalised", "generalised", "plateau", "plateau")
"""Kinds of kernels in the order of `kernels`: each isotropic, then anisotropic."""


@config
class RoundOptions:
    """One of the two rounds of blur, resizing, noise and JPEG."""

    blur: float = 1.0
    "probability of the blur"
    sinc: float = 0.1
    "probability that the blur is a sinc filter"
    kernels: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    "weights of isotropic and anisotropic Gaussian, isotropic and anisotropic generalised Gaussian, isotropic and anisotropic plateau"
    width: tuple[float, float] = (0.2, 3.0)
    "standard deviations of the kernels, in pixels"
    generalised_exponent: tuple[float, float] = (0.5, 4.0)
    "exponents of generalised Gaussians; below and above 1 are equally likely"
    plateau_exponent: tuple[float, float] = (1.0, 2.0)
    "exponents of plateaus; half of them are the lower value, as published"
    resize: tuple[float, float, float] = (0.2, 0.7, 0.1)
    "weights of enlarging, shrinking and keeping the size"
    factor: tuple[float, float] = (0.15, 1.5)
    "smallest and largest resizing factor: of the HR in the first round, of the final LR in the second"
    gaussian: float = 0.5
    "probability of Gaussian noise; otherwise Poisson noise"
    noise: tuple[float, float] = (1.0, 30.0)
    "standard deviation of Gaussian noise, in 8-bit grey levels"
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    "multiples of physical Poisson noise"
    grey: float = 0.4
    "probability that the noise is equal in all bands"
    quality: tuple[float, float] = (30.0, 95.0)
    "JPEG quality"

    def __post_init__(self) -> None:
        for name in ("blur", "sinc", "gaussian", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)} is not a probability; give a number from 0 to 1.")
        for name in ("width", "generalised_exponent", "plateau_exponent", "factor", "noise", "poisson_scale", "quality"):
            low, high = getattr(self, name)
            if not 0 <= low <= high or (name not in ("noise", "poisson_scale") and low == 0):
                raise UserError(f"{name}=[{low}, {high}] is not a range of positive numbers; give [low, high] with low <= high.")
        if self.quality[1] >= 100:
            raise UserError(f"quality=[{self.quality[0]}, {self.quality[1]}] reaches 100, where the published formula divides by 0.")
        for name in ("kernels", "resize"):
            weights = getattr(self, name)
            if min(weights) < 0 or sum(weights) <= 0:
                raise UserError(f"{name}={list(weights)} are not weights; give numbers from 0 on that are not all 0.")


@config
class RealEsrganConfig(DegradationConfig):
    """Real-ESRGAN's degradation; the defaults are those of the published x2 and x4 options."""

    first: RoundOptions = RoundOptions()
    "the first round, at the size of the HR"
    second: RoundOptions = RoundOptions(
        blur=0.8, width=(0.2, 1.5), resize=(0.3, 0.4, 0.3), factor=(0.3, 1.2), noise=(1.0, 25.0), poisson_scale=(0.05, 2.5)
    )
    "the second round"
    final_sinc: float = 0.8
    "probability of the sinc filter beside the last JPEG"
    target: Literal["sharpened", "raw"] = "sharpened"
    "what is learned: the sharpened HR (Real-ESRNet), or the HR itself (Real-ESRGAN's discriminator); the LR is made of the sharpened one"
    sharpening: Literal["fast", "dense"] = "fast"
    "fast: separable filters; dense: the published arithmetic, several times slower"
    crop: int | None = None
    "side of the LR patch kept of each training image (published: 64 at x4, 128 at x2, of patches of 400/scale); null keeps all"
    backend: Backend = "opencv"
    "of blurs and sharpening. opencv: image by image in the loader's workers; torch: batched on the accelerator, as published"
    jpeg: JpegBackend = "differentiable"
    "differentiable: the published torch formulas; libjpeg: the codec, on the CPU, at whole qualities"

    def __post_init__(self) -> None:
        check_probabilities(self, "final_sinc")
        if self.crop is not None and self.crop < 1:
            raise UserError(f"crop={self.crop} keeps nothing; give a side in LR pixels (published: 64 at x4), or null.")

    @property
    def in_workers(self) -> bool:
        return self.backend == "opencv" or self.jpeg == "libjpeg"

    @property
    def sharpening_backend(self) -> SharpeningBackend:
        """The back-end that `sharpening` and `backend` stand for."""
        if self.sharpening == "dense":
            return "dense"
        return "opencv" if self.backend == "opencv" else "separable"

    def for_tests(self) -> Self:
        return replace(self, crop=None)

    def build(self) -> PracticalDegradation:
        return PracticalDegradation(RealEsrganPlan(self), self.crop, "real_esrgan")


@dataclass(frozen=True)
class RealEsrganPlan:
    """Draws the stages of one image: `StageDraws` of the practical degradations."""

    config: RealEsrganConfig

    def __call__(self, draws: Draws, bands: int, size: Size, scale: int) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
        options = self.config
        final = (size[0] // scale, size[1] // scale)
        sharpen = (Sharpen(name="sharpen", backend=options.sharpening_backend),)
        stages = self._round(draws, 1, options.first, bands, size, draws_ratio=True)
        stages += self._jpeg(draws, "jpeg1", options.first)
        stages += self._round(draws, 2, options.second, bands, final, draws_ratio=False)
        back = Resize(
            name="resize_back", height=final[0], width=final[1], mode=draws.choice(INTERPOLATIONS), backend="torch", limited=False
        )
        ending: list[Stage] = [back, *self._final_sinc(draws)]
        jpeg = self._jpeg(draws, "jpeg2", options.second)
        stages += [*ending, *jpeg] if draws.chance(0.5) else [*jpeg, *ending]
        stages.append(Round(name="round"))
        return (sharpen, tuple(stages)) if options.target == "sharpened" else ((), (*sharpen, *stages))

    def _round(self, draws: Draws, number: int, options: RoundOptions, bands: int, reference: Size, draws_ratio: bool) -> list[Stage]:
        """Draw blur, resizing and noise.

        reference    size (H, W) that the resizing factor refers to
        draws_ratio  resize by the factor itself, not by the rounded size it leads to; they sample at slightly different positions
        """
        stages: list[Stage] = [draw_kernel(draws, f"blur{number}", options, self.config.backend)] if draws.chance(options.blur) else []
        low, high = options.factor
        kind = draws.weighted(("up", "down", "keep"), options.resize)
        factor = 1.0 if kind == "keep" else draws.uniform(1, high) if kind == "up" else draws.uniform(low, 1)
        size = (max(1, int(reference[0] * factor)), max(1, int(reference[1] * factor)))
        mode = draws.choice(INTERPOLATIONS)
        ratio = factor if draws_ratio and mode != "area" else None
        stages.append(Resize(name=f"resize{number}", height=size[0], width=size[1], mode=mode, backend="torch", limited=False, ratio=ratio))
        stages.append(draw_noise(draws, f"noise{number}", options, bands, size))
        return stages

    def _final_sinc(self, draws: Draws) -> list[Stage]:
        if not draws.chance(self.config.final_sinc):
            return []
        size, cutoff = draws.choice(KERNEL_SIZES), draws.uniform(math.pi / 3, math.pi)
        return [SincBlur(name="sinc", size=size, cutoff=cutoff, backend=self.config.backend)]

    def _jpeg(self, draws: Draws, name: str, options: RoundOptions) -> list[Stage]:
        quality = draws.uniform(*options.quality)
        return [Jpeg(name=name, quality=quality if self.config.jpeg == "differentiable" else round(quality), backend=self.config.jpeg)]


def draw_kernel(draws: Draws, name: str, options: RoundOptions, backend: Backend) -> Blur:
    """Draw a blur of a side of 7, 9, ..., 21 pixels."""
    size = draws.choice(KERNEL_SIZES)
    if draws.chance(options.sinc):
        cutoff = draws.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi)
        return SincBlur(name=name, size=size, cutoff=cutoff, backend=backend)
    kind = draws.weighted(range(len(SHAPES)), options.kernels)
    width = draws.uniform(*options.width)
    second_width, angle = (draws.uniform(*options.width), draws.uniform(-math.pi, math.pi)) if kind % 2 else (width, 0.0)
    exponent = 1.0
    if SHAPES[kind] == "generalised":
        low, high = options.generalised_exponent
        exponent = draws.uniform(low, 1) if draws.chance(0.5) else draws.uniform(1, high)
    elif SHAPES[kind] == "plateau":
        low, high = options.plateau_exponent
        exponent = low if draws.chance(0.5) else draws.uniform(low, high)
    return ShapedBlur(
        name=name,
        size=size,
        width=width,
        second_width=second_width,
        angle=angle,
        shape=SHAPES[kind],
        exponent=exponent,
        backend=backend,
    )


def draw_noise(draws: Draws, name: str, options: RoundOptions, bands: int, size: Size) -> Stage:
    """Draw Gaussian or Poisson noise for an image of size (H, W)."""
    is_gaussian, is_grey = draws.chance(options.gaussian), draws.chance(options.grey)
    if not is_gaussian:
        return ScaledPoissonNoise(name=name, scale=draws.uniform(*options.poisson_scale), is_grey=is_grey, seed=draws.seed())
    sigma_8bit = draws.uniform(*options.noise)
    field = noise_field(draws, sigma_8bit, (1 if is_grey else bands, *size))
    return GaussianNoise(name=name, kind="grey" if is_grey else "colour", sigma_8bit=sigma_8bit, field=field)
