"""The stages that practical degradations are made of, each with all that was drawn for it, and their execution on many images.

A stage is a record: the same stages on the same image give the same result. `run_stages` works in rounds: in every round, images that
have the same size and go through the same kind of stage are processed together, whatever order each image's stages have.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from rsdiff.data.transfer import like, to_device
from rsdiff.degradations.base import RecordValue
from rsdiff.degradations.blur import blur_mirrored, blur_opencv, trimmed
from rsdiff.degradations.camera_kernels import gaussian_row, padded_kernel, shaped_kernel, shifted_row, sinc_kernel
from rsdiff.degradations.camera_noise import (
    NoiseKind,
    add_clipped,
    add_speckle,
    correlated_field,
    counted,
    distinct_photons,
    photon_rate,
    poisson_bsrgan,
    poisson_real_esrgan,
)
from rsdiff.degradations.draws import Draws
from rsdiff.degradations.interpolation import Interpolation, InterpolationBackend, interpolate
from rsdiff.degradations.jpeg import JPEG_REACH, JpegBackend, jpeg_differentiable, jpeg_libjpeg
from rsdiff.degradations.resizing import resize_cubic, subsample
from rsdiff.degradations.rounding import GREY_LEVELS, round_to_grey_levels
from rsdiff.degradations.sharpening import SharpeningBackend, sharpen

Backend = Literal["opencv", "torch"]
"""opencv: image by image on the CPU, as the published codes work; torch: batched on the images' device. They agree to about 1e-6."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One step of a degradation with what was drawn for it. `name` distinguishes stages of one kind ("blur0", "jpeg")."""

    name: str
    mixes_bands: ClassVar[bool] = False
    """Whether a band of the result depends on other bands of the image."""

    @property
    def radius(self) -> int:
        """Pixels of the image, along rows and columns, that a pixel of the result depends on besides the one it lies on."""
        return 0

    @property
    def shrinks(self) -> float:
        """Pixels of the image per pixel of the result and side, where the ratio is fixed."""
        return 1.0

    def group(self) -> Hashable:
        """Return what images must share, besides their size, to be processed together."""
        return ()

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        """Apply `stages`, one per image, of one kind and group, to images (N, C, H, W); self is their first."""
        raise NotImplementedError

    def renewed(self, draws: Draws) -> Self:
        """Return the stage with its noise drawn anew, all else the same."""
        return self

    def record(self) -> dict[str, RecordValue]:
        """Return the drawn numbers and words, without arrays, back-ends and seeds."""
        hidden = {"name", "backend", "seed"}
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in hidden}
        return {name: value for name, value in values.items() if isinstance(value, float | int | str)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Blur(Stage):
    """Convolution with one kernel, mirrored at the border without repeating the edge pixel; not limited to [0, 1]."""

    backend: Backend = "opencv"

    def kernel(self) -> Tensor:
        """Return the kernel as it is cross-correlated: (k, k) float64, or (k,) for a separable one."""
        raise NotImplementedError

    @property
    def radius(self) -> int:
        return len(trimmed(self.kernel().numpy())) // 2

    def group(self) -> Hashable:
        return self.backend

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        kernels = [stage.kernel() for stage in stages]
        if self.backend == "opencv":
            return blur_opencv(images, kernels)
        squares = [torch.outer(kernel, kernel) if kernel.ndim == 1 else kernel for kernel in kernels]
        largest = max(len(kernel) for kernel in squares)
        return blur_mirrored(images, like(torch.stack([padded_kernel(kernel, largest) for kernel in squares]), images))


@dataclass(frozen=True, kw_only=True, eq=False)
class IsotropicBlur(Blur):
    """Gaussian of standard deviation `width` in pixels."""

    size: int
    width: float

    def kernel(self) -> Tensor:
        return gaussian_row(self.size, self.width)


@dataclass(frozen=True, kw_only=True, eq=False)
class OrientedBlur(Blur):
    """Gaussian of standard deviations `width` along `angle` (radians, from the x axis downwards) and `second_width` across."""

    size: int
    width: float
    second_width: float
    angle: float

    def kernel(self) -> Tensor:
        return shaped_kernel(self.size, self.width, self.second_width, self.angle)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShapedBlur(Blur):
    """A kernel of Real-ESRGAN: (generalised) Gaussian or plateau, see `camera_kernels.shaped_kernel`."""

    size: int
    width: float
    second_width: float
    angle: float
    shape: Literal["gaussian", "generalised", "plateau"] = "gaussian"
    exponent: float = 1.0

    def kernel(self) -> Tensor:
        if self.shape == "gaussian" and self.width == self.second_width:
            return gaussian_row(self.size, self.width)
        return shaped_kernel(self.size, self.width, self.second_width, self.angle, self.shape, self.exponent)

    def record(self) -> dict[str, RecordValue]:
        values: dict[str, RecordValue] = {"size": self.size, "shape": self.shape, "width": self.width}
        if self.second_width != self.width:
            values |= {"second_width": self.second_width, "angle": self.angle}
        return values if self.shape == "gaussian" else {**values, "exponent": self.exponent}


@dataclass(frozen=True, kw_only=True, eq=False)
class SincBlur(Blur):
    """A circular low-pass filter; cutoff in radians per pixel."""

    size: int
    cutoff: float

    def kernel(self) -> Tensor:
        return sinc_kernel(self.size, self.cutoff)


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenBlur(Blur):
    """A kernel that is given: weights (k, k), cross-correlated."""

    weights: Tensor

    def kernel(self) -> Tensor:
        return self.weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Decimate(Blur):
    """Every `step`-th pixel after a Gaussian shifted by (step - 1) / 2, which centres the kept pixels; limited to [0, 1]."""

    size: int
    width: float
    step: int

    def kernel(self) -> Tensor:
        return shifted_row(self.size, self.width, (self.step - 1) / 2).flip(0)

    @property
    def shrinks(self) -> float:
        return float(self.step)

    def group(self) -> Hashable:
        return self.backend, self.step

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        return subsample(Blur.run(self, images, stages), self.step).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resize(Stage):
    """Interpolation to a height and width; see rsdiff.degradations.interpolation.

    limited  limit the result to [0, 1]
    ratio    see `interpolate`; back-end "torch" only
    """

    height: int
    width: int
    mode: Interpolation
    backend: InterpolationBackend = "opencv"
    limited: bool = True
    ratio: float | None = None

    @property
    def radius(self) -> int:
        return 2  # of bicubic interpolation without antialiasing; areas stay within their pixel

    def group(self) -> Hashable:
        return self.height, self.width, self.mode, self.backend, self.limited, self.ratio

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        made = interpolate(images, (self.height, self.width), self.mode, self.backend, self.ratio)
        return made.clamp_(0, 1) if self.limited and not made.requires_grad else made.clamp(0, 1) if self.limited else made

    def record(self) -> dict[str, RecordValue]:
        return {"to_height": self.height, "to_width": self.width, "mode": self.mode}


@dataclass(frozen=True, kw_only=True, eq=False)
class Halve(Stage):
    """MATLAB's antialiased bicubic to half the size (odd sizes are rounded up), limited to [0, 1]."""

    @property
    def radius(self) -> int:
        return 4

    @property
    def shrinks(self) -> float:
        return 2.0

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        height, width = images.shape[-2:]
        return resize_cubic(images, (-(-height // 2), -(-width // 2)), "symmetric", ratio=0.5).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianNoise(Stage):
    """A drawn field is added; limited to [0, 1].

    sigma_8bit  standard deviation in grey levels
    field       (C, H, W), or (1, H, W) for one value in all bands; already scaled
    covariance  (C, C) between bands, where they are correlated
    """

    kind: NoiseKind
    sigma_8bit: float
    field: Tensor
    covariance: Tensor | None = None

    def renewed(self, draws: Draws) -> Self:
        return dataclasses.replace(self, field=noise_field(draws, self.sigma_8bit, self.field.shape, self.covariance))

    def group(self) -> Hashable:
        return self.field.shape[0]

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        return add_clipped(images, _stacked([stage.field for stage in stages], images))


@dataclass(frozen=True, kw_only=True, eq=False)
class Speckle(GaussianNoise):
    """The image times a drawn field is added; limited to [0, 1]."""

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        return add_speckle(images, _stacked([stage.field for stage in stages], images))


@dataclass(frozen=True, kw_only=True, eq=False)
class PoissonNoise(Stage):
    """BSRGAN's photon noise.

    photons  expected count of a pixel of value 1
    seed     of the counts, which depend on the image and so cannot be drawn before it is known
    counts   (C or 1, H, W), to replay given counts; else None
    """

    photons: float
    is_grey: bool
    seed: int = 0
    counts: Tensor | None = None

    def renewed(self, draws: Draws) -> Self:
        return dataclasses.replace(self, seed=draws.seed())

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        made = []
        for image, stage in zip(images[:, None], stages, strict=True):
            rate = photon_rate(round_to_grey_levels(image).clamp(0, 1), stage.is_grey, "bsrgan")
            counts = counted(rate * stage.photons, stage.seed) if stage.counts is None else to_device(stage.counts[None], image.device)
            made.append(poisson_bsrgan(image, stage.photons, stage.is_grey, counts))
        return torch.cat(made)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaledPoissonNoise(Stage):
    """Real-ESRGAN's photon noise: as much as the number of distinct values suggests, times `scale`; seed and counts as above."""

    scale: float
    is_grey: bool
    seed: int = 0
    counts: Tensor | None = None

    def renewed(self, draws: Draws) -> Self:
        return dataclasses.replace(self, seed=draws.seed())

    def group(self) -> Hashable:
        return self.is_grey

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        rates = photon_rate(images, self.is_grey, "real_esrgan")
        expected = rates * distinct_photons(rates)[:, None, None, None]
        counts = [
            counted(mean, stage.seed) if stage.counts is None else like(stage.counts, images)
            for mean, stage in zip(expected, stages, strict=True)
        ]
        return poisson_real_esrgan(images, images.new_tensor([stage.scale for stage in stages]), rates, torch.stack(counts))


@dataclass(frozen=True, kw_only=True, eq=False)
class Jpeg(Stage):
    """JPEG after limiting to [0, 1]; quality 1..100, a whole number for libjpeg."""

    mixes_bands: ClassVar[bool] = True
    quality: float
    backend: JpegBackend = "libjpeg"

    @property
    def radius(self) -> int:
        return JPEG_REACH

    def group(self) -> Hashable:
        return self.backend

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        qualities = torch.tensor([stage.quality for stage in stages], dtype=torch.float32)
        if self.backend == "libjpeg":
            return jpeg_libjpeg(images, qualities)
        return jpeg_differentiable(images.clamp(0, 1), to_device(qualities, images.device))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sharpen(Stage):
    """Unsharp masking with its published defaults, see rsdiff.degradations.sharpening."""

    backend: SharpeningBackend = "separable"

    @property
    def radius(self) -> int:
        return 50  # two windows of 51 pixels, of the image and of the mask of its edges

    def group(self) -> Hashable:
        return self.backend

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        return sharpen(images, backend=self.backend)


@dataclass(frozen=True, kw_only=True, eq=False)
class Round(Stage):
    """Limit to [0, 1] and round to 8-bit grey levels, half to even."""

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        return round_to_grey_levels(images.clamp(0, 1))


def noise_field(draws: Draws, sigma_8bit: float, shape: Sequence[int], covariance: Tensor | None = None) -> Tensor:
    """Return a field of Gaussian noise of this shape (C, H, W) in units of [0, 1]; its covariance between bands replaces sigma_8bit."""
    normals = draws.normal(*shape)
    return normals.mul_(sigma_8bit / GREY_LEVELS) if covariance is None else correlated_field(covariance, normals)


def run_stages(images: Sequence[Tensor], plans: Sequence[Sequence[Stage]]) -> list[Tensor]:
    """Return images (C, H, W) after all stages of their plans; sizes and numbers of stages may differ."""
    return deque(rounds(images, plans), maxlen=1).pop()


def rounds(images: Sequence[Tensor], plans: Sequence[Sequence[Stage]]) -> Iterator[list[Tensor]]:
    """Yield the images (C, H, W) as they are, after the first stage of every plan, after the second, ...; finished ones stay."""
    current = list(images)
    yield list(current)
    for number in range(max((len(plan) for plan in plans), default=0)):
        groups: dict[Hashable, list[int]] = {}
        for index, plan in enumerate(plans):
            if number < len(plan):
                stage = plan[number]
                groups.setdefault((type(stage), stage.group(), current[index].shape), []).append(index)
        for members in groups.values():
            stages: list[Any] = [plans[index][number] for index in members]
            stacked = torch.stack([current[index] for index in members]) if len(members) > 1 else current[members[0]][None]
            for index, image in zip(members, stages[0].run(stacked, stages), strict=True):
                current[index] = image
        yield list(current)


def reach_of(stages: Sequence[Stage], height: int) -> float:
    """Return how many pixels of an image of `height` rows a pixel of the result depends on, along rows and columns.

    Counted from any pixel under the result's pixel to the farthest one: every stage adds its radius in pixels of its own size.
    """
    total, unit = 0.0, 1.0
    for stage in stages:
        made = height / stage.height if isinstance(stage, Resize) else unit * stage.shrinks
        total += (stage.radius + 1) * unit - 1 if stage.radius else 0.0
        total += max(made - 1, 0.0) if made != unit else 0.0
        unit = made
    return total


def _stacked(fields: Sequence[Tensor], images: Tensor) -> Tensor:
    return like(torch.stack(list(fields)), images)
