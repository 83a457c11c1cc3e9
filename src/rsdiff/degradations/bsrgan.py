"""BSRGAN's degradation: two blurs, two-step downsampling, noise and JPEG in random order, always ended by a JPEG.

Source: degradation_bsrgan of BSRGAN (utils_blindsr.py); the published outputs follow bit for bit from their recorded decisions. Deviations:
- one generator per image instead of two global ones; nothing is drawn that is not used
- variances near 0 (draws below 1e-4) are deltas instead of errors
- the published slot for a camera model was never filled by its authors; ours (rsdiff.degradations.camera) is off unless camera > 0
- any number of bands: see rsdiff.degradations.jpeg and .camera_noise for what each stage then does
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.degradations.base import DegradationConfig
from rsdiff.degradations.camera import CameraNoise, draw_camera
from rsdiff.degradations.camera_noise import NoiseKind, correlated_covariance
from rsdiff.degradations.draws import Draws
from rsdiff.degradations.interpolation import INTERPOLATIONS, Interpolation, InterpolationBackend
from rsdiff.degradations.jpeg import JpegBackend
from rsdiff.degradations.practical import PracticalDegradation
from rsdiff.degradations.rounding import GREY_LEVELS
from rsdiff.degradations.stages import (
    Backend,
    Blur,
    Decimate,
    GaussianNoise,
    Halve,
    IsotropicBlur,
    Jpeg,
    OrientedBlur,
    Resize,
    Speckle,
    Stage,
    noise_field,
)

CORRELATED_SIGMA_8BIT = 25.0
"""The published code draws a level for correlated noise and then ignores it."""

Size = tuple[int, int]


@config
class SharedOptions(DegradationConfig):
    """What BSRGAN's degradation and its extension have in common."""

    quality: tuple[int, int] = (30, 95)
    "lowest and highest JPEG quality"
    noise: tuple[int, int] = (2, 25)
    "lowest and highest standard deviation of Gaussian noise, in 8-bit grey levels"
    camera: float = 0.0
    "probability of our camera pipeline (published: a slot of 0.25 without code); needs three bands"
    crop: int | None = None
    "side of the LR patch kept of each training image, at a random place (published: 72 of patches of 320/scale); null keeps all"
    backend: Backend = "opencv"
    "opencv: image by image in the loader's workers, the published arithmetic; torch: batched on the accelerator"
    jpeg: JpegBackend = "libjpeg"
    "libjpeg: the codec, on the CPU; differentiable: torch formulas, another degradation by about 3 grey levels"

    def __post_init__(self) -> None:
        for name, lowest, highest in (("quality", 1, 100), ("noise", 0, 255)):
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise UserError(f"{name}=[{low}, {high}] is not a range within {lowest}..{highest}; give [low, high] with low <= high.")
        check_probabilities(self, "camera")
        if self.crop is not None and self.crop < 1:
            raise UserError(f"crop={self.crop} keeps nothing; give a side in LR pixels (published: 72), or null.")

    @property
    def in_workers(self) -> bool:
        return self.backend == "opencv"

    def for_tests(self) -> Self:
        return replace(self, crop=None)

    @property
    def resizing(self) -> InterpolationBackend:
        """The back-end of interpolation that belongs to `backend`."""
        return "opencv" if self.backend == "opencv" else "opencv_matrix"

    def jpeg_stage(self, draws: Draws, name: str) -> Jpeg:
        """Draw a JPEG."""
        return Jpeg(name=name, quality=draws.integer(*self.quality), backend=self.jpeg)

    def camera_stage(self, draws: Draws, name: str, bands: int, size: Size) -> CameraNoise:
        """Draw a camera; raises UserError unless the image has three bands."""
        if bands != 3:
            raise UserError(f"degradation.camera={self.camera} needs images of 3 bands, and these have {bands}; set degradation.camera=0.")
        return draw_camera(draws, name, size)


@config
class BsrganConfig(SharedOptions):
    """BSRGAN's degradation; the defaults are the published ones, for scales of 2 and 4 (other whole scales work alike)."""

    first_downsample: float = 0.25
    "at scale 4: probability of halving the image before anything else"
    middle_jpeg: float = 0.9
    "probability of the JPEG among the shuffled stages"
    resize: float = 0.75
    "probability of interpolating to a random size; otherwise a shifted blur and every s-th pixel"

    def __post_init__(self) -> None:
        SharedOptions.__post_init__(self)
        check_probabilities(self, "first_downsample", "middle_jpeg", "resize")

    def build(self) -> PracticalDegradation:
        return PracticalDegradation(BsrganPlan(self), self.crop, "bsrgan")


@dataclass(frozen=True)
class BsrganPlan:
    """Draws the stages of one image: `StageDraws` of the practical degradations."""

    config: BsrganConfig

    def __call__(self, draws: Draws, bands: int, size: Size, scale: int) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
        options, stages = self.config, list[Stage]()
        if scale == 4 and draws.chance(options.first_downsample):
            # From here on everything is drawn for scale 2, narrower blurs included, as published.
            stages.append(_first_downsample(draws, size, options))
            size, scale = (size[0] // 2, size[1] // 2), 2
        final = (size[0] // scale, size[1] // scale)
        for operation in shuffled_operations(draws):
            match operation:
                case 0 | 1:
                    stages.append(draw_blur(draws, f"blur{operation}", scale, options.backend))
                case 2:
                    stages.append(self._second_downsample(draws, size, scale))
                    size = size_after(stages[-1], size)
                case 3:
                    stages.append(Resize(name="downsample3", height=final[0], width=final[1], mode=_mode(draws), backend=options.resizing))
                    size = final
                case 4:
                    stages.append(draw_gaussian_noise(draws, "noise", bands, size, options.noise))
                case 5:
                    if draws.chance(options.middle_jpeg):
                        stages.append(options.jpeg_stage(draws, "jpeg"))
                case _:
                    if draws.chance(options.camera):
                        stages.append(options.camera_stage(draws, "camera", bands, size))
        stages.append(options.jpeg_stage(draws, "final_jpeg"))
        return (), tuple(stages)

    def _second_downsample(self, draws: Draws, size: Size, scale: int) -> Stage:
        if draws.chance(self.config.resize):
            factor = draws.uniform(1, 2 * scale)
            height, width = (max(1, int(side / factor)) for side in size)
            return Resize(name="downsample2", height=height, width=width, mode=_mode(draws), backend=self.config.resizing)
        return Decimate(name="downsample2", size=25, width=draws.uniform(0.1, 0.6 * scale), step=scale, backend=self.config.backend)


def shuffled_operations(draws: Draws) -> list[int]:
    """Draw the order of the seven operations; the second downsampling (2) and the third (3) swap places where 3 came first."""
    order = draws.shuffled(range(7))
    second, third = order.index(2), order.index(3)
    if third < second:
        order[second], order[third] = 3, 2
    return order


def _first_downsample(draws: Draws, size: Size, options: SharedOptions) -> Stage:
    if draws.chance(0.5):
        return Resize(name="downsample1", height=size[0] // 2, width=size[1] // 2, mode=_mode(draws), backend=options.resizing)
    return Halve(name="downsample1")


def _mode(draws: Draws) -> Interpolation:
    return draws.choice(INTERPOLATIONS)


def draw_blur(draws: Draws, name: str, scale: int, backend: Backend) -> Blur:
    """Draw an anisotropic or isotropic Gaussian, equally likely, of a side of 7, 9, ..., 25 pixels.

    Variances of the anisotropic one are uniform up to 4 + scale; the width of the isotropic one is uniform up to 2 + 0.2 scale.
    """
    is_oriented = draws.chance(0.5)
    size = 2 * draws.integer(2, 11) + 3
    if not is_oriented:
        return IsotropicBlur(name=name, size=size, width=draws.uniform(0, 2 + 0.2 * scale), backend=backend)
    first, second, angle = (draws.uniform(0, high) for high in (4 + scale, 4 + scale, math.pi))
    return OrientedBlur(name=name, size=size, width=math.sqrt(first), second_width=math.sqrt(second), angle=angle, backend=backend)


def draw_gaussian_noise(draws: Draws, name: str, bands: int, size: Size, levels: tuple[int, int]) -> GaussianNoise:
    """Draw noise: independent in every band (probability 0.4), equal in all (0.4), or correlated between bands (0.2)."""
    kind, sigma_8bit, field, covariance = _noise_of(draws, bands, size, levels)
    return GaussianNoise(name=name, kind=kind, sigma_8bit=sigma_8bit, field=field, covariance=covariance)


def draw_speckle(draws: Draws, name: str, bands: int, size: Size, levels: tuple[int, int]) -> Speckle:
    """Draw multiplicative noise, distributed as the additive."""
    kind, sigma_8bit, field, covariance = _noise_of(draws, bands, size, levels)
    return Speckle(name=name, kind=kind, sigma_8bit=sigma_8bit, field=field, covariance=covariance)


def _noise_of(draws: Draws, bands: int, size: Size, levels: tuple[int, int]) -> tuple[NoiseKind, float, Tensor, Tensor | None]:
    kinds: tuple[NoiseKind, ...] = ("colour", "grey", "correlated")
    kind = draws.weighted(kinds, (0.4, 0.4, 0.2))
    if kind == "correlated":
        spread = torch.tensor([draws.share() for _ in range(bands)], dtype=torch.float64)
        mixing = torch.rand(bands, bands, generator=draws.generator, dtype=torch.float64)
        covariance = correlated_covariance(spread, mixing, CORRELATED_SIGMA_8BIT / GREY_LEVELS)
        return kind, CORRELATED_SIGMA_8BIT, noise_field(draws, 0.0, (bands, *size), covariance), covariance
    level = float(draws.integer(*levels))
    return kind, level, noise_field(draws, level, (bands if kind == "colour" else 1, *size)), None


def size_after(stage: Stage, size: Size) -> Size:
    """Return the size (H, W) of an image after a resizing stage."""
    match stage:
        case Resize():
            return stage.height, stage.width
        case Decimate():
            return -(-size[0] // stage.step), -(-size[1] // stage.step)
        case _:
            return size


def check_probabilities(options: DegradationConfig, *names: str) -> None:
    """Raise ValueError unless the options of these names are probabilities."""
    for name in names:
        if not 0 <= getattr(options, name) <= 1:
            raise UserError(f"{name}={getattr(options, name)} is not a probability; give a number from 0 to 1.")
