"""A training degradation for Ref-Diff, built from the ingredients its authors name; ours, because theirs is not published.

They give the LR images of SECOND and CNAM-CD as files and say "real-world degradation model"; summaries of the paper list isotropic and
anisotropic Gaussian blur, motion blur, resizing with several interpolations, Gaussian noise and JPEG. Order and ranges here follow common
practice (blur, shrink, noise, JPEG) and were not compared with the files. Use it where those files are absent, or at other scales.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.degradations.base import DegradationConfig, Degraded, Reach, RecordValue, common_lr_size
from rsdiff.degradations.blur import blur
from rsdiff.degradations.jpeg import JPEG_REACH, through_libjpeg
from rsdiff.degradations.kernels import anisotropic_kernels
from rsdiff.degradations.noise import add_noise
from rsdiff.degradations.resizing import resize_reach
from rsdiff.degradations.rounding import GREY_LEVELS, to_uint8

Blur = Literal["isotropic", "anisotropic", "motion"]
Shrink = Literal["area", "bilinear", "bicubic"]


@config
class RefDiffTrainingConfig(DegradationConfig):
    """Blur, shrink, noise and JPEG, all drawn per sample. All ranges are ours."""

    kernel_size: int = 21
    """Side of the blur kernels in HR pixels."""
    blurs: tuple[Blur, ...] = ("isotropic", "anisotropic", "motion")
    """Kinds of blur to choose from, equally likely."""
    width: tuple[float, float] = (0.2, 4.0)
    """Lowest and highest standard deviation of the Gaussian blurs, in HR pixels."""
    motion_length: tuple[float, float] = (2.0, 12.0)
    """Shortest and longest path of the motion blur, in HR pixels."""
    shrinks: tuple[Shrink, ...] = ("area", "bilinear", "bicubic")
    """Interpolations to choose from, equally likely; all average over the HR pixels of an LR pixel."""
    noise: tuple[float, float] = (0.0, 10.0)
    """Lowest and highest standard deviation of the white noise, in 8-bit grey levels."""
    quality: tuple[int, int] = (60, 95)
    """Lowest and highest JPEG quality; 100,100 skips the compression."""

    def __post_init__(self) -> None:
        if self.kernel_size < 3 or self.kernel_size % 2 == 0:
            raise UserError(f"kernel_size={self.kernel_size} was given; choose an odd number of at least 3.")
        if not self.blurs or not self.shrinks:
            raise UserError("blurs or shrinks is empty; name at least one of each.")
        for name in ("width", "motion_length", "noise", "quality"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise UserError(f"{name}=[{low},{high}] was given; choose two rising numbers of 0 or more.")
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise UserError(f"quality={list(self.quality)} was given; JPEG qualities are 1 to 100.")

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"kernel", "noise_level", "lr_clean"})

    @property
    def in_workers(self) -> bool:
        return True  # it ends in libjpeg, image by image

    def build(self) -> RefDiffTraining:
        return RefDiffTraining(self)


@dataclass(frozen=True)
class RefDiffTrainingDecisions:
    """What happens to one image.

    widths   standard deviations along and across `angle` in HR pixels, for motion the path length and 0
    angle    of the first width, or of the motion, in radians
    noise    standard deviation in 8-bit grey levels
    field    (C, h, w), standard normal
    quality  of the JPEG compression, 100 for none
    """

    lr_size: tuple[int, int]
    blur: Blur
    widths: tuple[float, float]
    angle: float
    shrink: Shrink
    noise: float
    field: Tensor
    quality: int


@dataclass(frozen=True)
class RefDiffTraining:
    """The `Degradation` of a `RefDiffTrainingConfig`."""

    config: RefDiffTrainingConfig

    @property
    def gives(self) -> frozenset[str]:
        return self.config.gives

    def draw(
        self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1
    ) -> list[RefDiffTrainingDecisions]:
        options = self.config

        def number(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

        def whole(count: int) -> int:
            return int(torch.randint(count, (), generator=generator))

        kind = options.blurs[whole(len(options.blurs))]
        angle = number(0, math.pi)
        if kind == "motion":
            widths = (number(*options.motion_length), 0.0)
        else:
            first = number(*options.width)
            widths = (first, number(*options.width) if kind == "anisotropic" else first)
        shrink = options.shrinks[whole(len(options.shrinks))]
        noise = number(*options.noise)
        quality = options.quality[0] + whole(options.quality[1] - options.quality[0] + 1)
        fields = [torch.randn((hr_shape[0], *lr_size), generator=generator) for _ in range(views)]
        return [RefDiffTrainingDecisions(lr_size, kind, widths, angle, shrink, noise, field, quality) for field in fields]

    def apply(self, hr: Tensor, decisions: Sequence[RefDiffTrainingDecisions]) -> Degraded:
        """See Degradation; not differentiable where an image is compressed."""
        size = common_lr_size(len(hr), [decision.lr_size for decision in decisions])
        kernels = torch.stack([self.kernel(decision) for decision in decisions]).to(hr)
        blurred = blur(hr, kernels, backend="auto")
        clean = torch.empty(*hr.shape[:2], *size, dtype=hr.dtype, device=hr.device)
        for rule in get_args(Shrink):
            chosen = [index for index, decision in enumerate(decisions) if decision.shrink == rule]
            if chosen:
                clean[chosen] = shrink(blurred[chosen], size, rule)
        sigma = torch.tensor([decision.noise for decision in decisions], dtype=hr.dtype, device=hr.device)
        noisy = add_noise(clean, sigma, torch.stack([decision.field for decision in decisions]))
        lr = compress(noisy, [decision.quality for decision in decisions])
        return Degraded(lr=lr, hr=hr, kernel=kernels, noise_level=sigma / GREY_LEVELS, lr_clean=clean)

    def kernel(self, decision: RefDiffTrainingDecisions) -> Tensor:
        """Return the blur kernel (k, k) of one image, sum 1."""
        size = self.config.kernel_size
        if decision.blur == "motion":
            return motion_kernel(decision.widths[0], decision.angle, size)
        first, second, angle = (torch.tensor([value], dtype=torch.float64) for value in (*decision.widths, decision.angle))
        return anisotropic_kernels(first, second, angle, size)[0]

    def reach(self, decisions: RefDiffTrainingDecisions, scale: float) -> Reach:
        compressed = decisions.quality < 100
        coded = math.ceil((JPEG_REACH + 1) * scale) if compressed else 0
        return Reach(self.config.kernel_size // 2 + resize_reach("torch", scale) + coded, bands=compressed)

    def record(self, decisions: RefDiffTrainingDecisions) -> dict[str, RecordValue]:
        return {
            "blur": decisions.blur,
            "width": decisions.widths[0],
            "second_width": decisions.widths[1],
            "angle": decisions.angle,
            "shrink": decisions.shrink,
            "noise": decisions.noise,
            "quality": decisions.quality,
        }


def motion_kernel(length: float, angle: float, size: int) -> Tensor:
    """Return (size, size), sum 1: a straight path of `length` pixels through the centre, cut where the kernel ends.

    angle  from the x axis towards the y axis, in radians. Each of many points of the path is shared among its four nearest pixels.
    """
    half = min(length, size - 1) / 2
    along = np.linspace(-half, half, 8 * size)
    x, y = along * math.cos(angle) + size // 2, along * math.sin(angle) + size // 2
    kernel = np.zeros((size + 1, size + 1))
    columns, rows = np.floor(x).astype(int), np.floor(y).astype(int)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.abs(1 - row - (y - rows)) * np.abs(1 - column - (x - columns))
        np.add.at(kernel, (rows + row, columns + column), share)
    kernel = kernel[:size, :size]
    return torch.from_numpy(kernel / kernel.sum()).float()


def shrink(images: Tensor, size: tuple[int, int], rule: Shrink) -> Tensor:
    """Return images (N, C, H, W) at `size` (h, w), averaged over the HR pixels of each LR pixel."""
    if rule == "area":
        return F.interpolate(images, size=size, mode="area")
    return F.interpolate(images, size=size, mode=rule, align_corners=False, antialias=True)


def compress(images: Tensor, qualities: Sequence[int]) -> Tensor:
    """Return images (N, C, h, w) limited to [0, 1], rounded to 8 bits and JPEG-compressed (libjpeg, 4:2:0) by each quality below 100.

    Three bands are taken as RGB; any other number is compressed band by band.
    """
    eight_bit = to_uint8(images.detach()).cpu()
    done = [
        image if quality == 100 else torch.from_numpy(through_libjpeg(image.numpy(), quality))
        for image, quality in zip(eight_bit, qualities, strict=True)
    ]
    return torch.stack(done).to(images) / GREY_LEVELS
