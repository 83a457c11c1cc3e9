"""The Gaussian degradation family: blur by a Gaussian kernel, resize, add noise, round.

One config expresses every published variant (BlindSRSNF, DiffBSR, DASR, DRSR; DAN, DCLS, BlindDiff): they agree on the kernel formula and
on the reflecting border of the blur, and differ in ranges, resize back-end, noise and rounding. Deviations from the published codes:
- one generator per sample instead of a stream shared by the run, so a sample's degradation does not depend on its neighbours;
- images are in [0, 1] for every variant (BlindSRSNF's code works in 0..255); results agree to float32 rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.transfer import to_device
from rsdiff.degradations.base import DegradationConfig, Degraded, Reach, RecordValue, common_lr_size
from rsdiff.degradations.blur import BlurBackend, blur
from rsdiff.degradations.kernels import anisotropic_kernels, isotropic_kernels
from rsdiff.degradations.noise import add_noise
from rsdiff.degradations.resizing import ResizeBackend, resize, resize_reach
from rsdiff.degradations.rounding import GREY_LEVELS, Clamp, round_to_grey_levels
from rsdiff.degradations.shrinking import blur_and_resize

KernelFamily = Literal["none", "isotropic", "anisotropic"]
Setting = float | tuple[float, float]
"""A fixed value, or a range [low, high] from which every sample draws uniformly."""


@config
class GaussianDegradationConfig(DegradationConfig):
    """Gaussian blur, resize, additive noise, 8-bit rounding. A number fixes a parameter, a range [low, high] draws it per sample."""

    kernel: KernelFamily = "isotropic"
    "blur kernel; none skips the blur"
    kernel_size: int = 21
    "side of the kernel in pixels"
    width: Setting = (0.2, 4.0)
    "standard deviation in HR pixels, along the first axis of anisotropic kernels; 0 is no blur"
    second_width: Setting = (0.2, 4.0)
    "anisotropic kernels: standard deviation in HR pixels along the second axis"
    angle: Setting = (0.0, math.pi)
    "anisotropic kernels: angle of the first axis from the x axis towards the y axis (down), in radians"
    disturbance: float = 0.0
    "kernel weights are multiplied by 1 + U(0, disturbance) before they are normalised; 0.25 in DAN's setting 2"
    order: Literal["blur_first", "resize_first"] = "blur_first"
    "whether the HR (all published variants) or the resized image is blurred, in which case widths count LR pixels"
    resize: ResizeBackend = "clamped"
    "resize back-end, see rsdiff.degradations.resizing"
    noise: Setting = 0.0
    "standard deviation of the noise added to the LR, in 8-bit grey levels"
    rounding: bool = True
    "round the LR to 8-bit grey levels (half to even)"
    clamp: Clamp = "always"
    "limit the LR to [0, 1]: always, with_noise (only samples that have noise), never"
    backend: BlurBackend = "auto"
    "who blurs: opencv (CPU; rows and Fourier transforms), torch (any device, differentiable), auto (on the CPU blur and shrink in one "
    "step); they differ by 2e-6 at most"

    def __post_init__(self) -> None:
        for name in ("width", "second_width", "angle", "noise"):
            low, high = limits(getattr(self, name))
            if low > high:
                raise UserError(f"{name}=[{low}, {high}] is an empty range; give [low, high] with low <= high.")
            if name != "angle" and low < 0:
                raise UserError(f"{name}={low} is negative; give 0 or more.")
        if self.kernel_size < 1:
            raise UserError(f"kernel_size={self.kernel_size} is not a size; give 1 or more (published: 11, 21, 31).")
        if self.disturbance < 0:
            raise UserError(f"disturbance={self.disturbance} is negative; give 0 or more (0.25 in DAN's setting 2).")

    def build(self) -> GaussianDegradation:
        return GaussianDegradation(self)


def limits(setting: Setting) -> tuple[float, float]:
    """Return (low, high) of a setting; equal for a fixed value."""
    return setting if isinstance(setting, tuple) else (setting, setting)


@dataclass(frozen=True, kw_only=True)
class GaussianParameters:
    """What the family needs to know of one image, as numbers.

    width, second_width  standard deviations of the kernel in pixels; equal for isotropic kernels
    angle                radians
    noise                standard deviation of the LR noise in 8-bit grey levels
    """

    width: float = 0.0
    second_width: float = 0.0
    angle: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianDecisions:
    """Everything drawn for one image.

    lr_size            (h, w)
    disturbance_field  (k, k) uniform in [0, 1), or None for an undisturbed kernel
    noise_field        (C, h, w) standard normal, or None without noise
    """

    parameters: GaussianParameters
    lr_size: tuple[int, int]
    disturbance_field: Tensor | None = None
    noise_field: Tensor | None = None


@dataclass(frozen=True)
class GaussianDegradation:
    """The `Degradation` of a `GaussianDegradationConfig`."""

    config: GaussianDegradationConfig

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"noise_level", "lr_clean"} | ({"kernel"} if self.config.kernel != "none" else set()))

    def random_names(self) -> tuple[str, ...]:
        """Names of the parameters that are ranges, in the order in which the published codes draw them."""
        kernel = {"none": (), "isotropic": ("width",), "anisotropic": ("angle", "width", "second_width")}[self.config.kernel]
        return tuple(name for name in (*kernel, "noise") if isinstance(getattr(self.config, name), tuple))

    def parameters(self, uniforms: Mapping[str, float]) -> GaussianParameters:
        """Return the parameters that uniform draws in [0, 1), one for each of `random_names`, stand for: low + (high - low) * u."""

        def value(name: str) -> float:
            low, high = limits(getattr(self.config, name))
            return low + (high - low) * uniforms[name] if name in uniforms else low

        match self.config.kernel:
            case "none":
                return GaussianParameters(noise=value("noise"))
            case "isotropic":
                return GaussianParameters(width=value("width"), second_width=value("width"), noise=value("noise"))
            case "anisotropic":
                return GaussianParameters(
                    width=value("width"), second_width=value("second_width"), angle=value("angle"), noise=value("noise")
                )

    def draw(
        self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1
    ) -> list[GaussianDecisions]:
        """Draw parameters and kernel disturbance once, and one noise field per view; nothing is drawn that is not used."""
        names = self.random_names()
        parameters = self.parameters(dict(zip(names, torch.rand(len(names), generator=generator).tolist(), strict=True)))
        disturbance_field = None
        if self.config.kernel != "none" and self.config.disturbance > 0:
            disturbance_field = torch.rand(self.config.kernel_size, self.config.kernel_size, generator=generator)
        return [
            GaussianDecisions(
                parameters=parameters,
                lr_size=lr_size,
                disturbance_field=disturbance_field,
                noise_field=torch.randn(hr_shape[0], *lr_size, generator=generator) if parameters.noise > 0 else None,
            )
            for _ in range(views)
        ]

    def apply(self, hr: Tensor, decisions: Sequence[GaussianDecisions]) -> Degraded:
        """Degrade hr (N, C, H, W) in [0, 1]. lr_clean is differentiable in hr; rounding gives lr a gradient of 0."""
        size = common_lr_size(len(hr), [d.lr_size for d in decisions])
        kernels = self.kernels(
            [d.parameters for d in decisions], _stack([d.disturbance_field for d in decisions], torch.device("cpu")), hr.device
        )
        if kernels is None or not any(d.parameters.width > 0 or d.parameters.second_width > 0 for d in decisions):
            clean = resize(hr, size, self.config.resize)
        elif self.config.order == "blur_first":
            is_separable = self.config.kernel == "isotropic" and self.config.disturbance == 0
            clean = blur_and_resize(hr, kernels, size, self.config.resize, self.config.backend, is_separable)
        else:
            clean = blur(resize(hr, size, self.config.resize), kernels, backend=self.config.backend)
        noise = torch.tensor([d.parameters.noise for d in decisions], dtype=torch.float32)
        fields = _stack([d.noise_field for d in decisions], hr.device)
        lr = clean if fields is None else add_noise(clean, to_device(noise, hr.device), fields)
        return Degraded(
            lr=self.quantise(lr, noise > 0),
            hr=hr,
            kernel=None if kernels is None else kernels.to(hr.dtype),
            noise_level=to_device(noise / GREY_LEVELS, hr.device),
            lr_clean=clean,
        )

    def kernels(
        self, parameters: Sequence[GaussianParameters], disturbance_fields: Tensor | None = None, device: torch.device | str = "cpu"
    ) -> Tensor | None:
        """Return the kernels (N, k, k) float32 of N images on `device`, or None without blur.

        disturbance_fields  (N, k, k) in [0, 1), on the CPU, where the kernels are made: they are small, and an inverse makes the host wait
        """
        if self.config.kernel == "none":
            return None
        values = torch.tensor([(p.width, p.second_width, p.angle) for p in parameters], dtype=torch.float64)
        width, second_width, angle = values.unbind(1)
        if disturbance_fields is None and self.config.kernel == "isotropic":
            return to_device(isotropic_kernels(width, self.config.kernel_size), device)
        disturbance = None if disturbance_fields is None else 1 + self.config.disturbance * disturbance_fields.to(torch.float64)
        return to_device(anisotropic_kernels(width, second_width, angle, self.config.kernel_size, disturbance=disturbance), device)

    def quantise(self, lr: Tensor, is_noisy: Tensor) -> Tensor:
        """Limit and round lr (N, C, h, w) as the config says; is_noisy (N,) tells which images have noise."""
        if self.config.clamp == "always":
            lr = lr.clamp(0, 1)
        elif self.config.clamp == "with_noise" and bool(is_noisy.any()):
            lr = torch.where(to_device(is_noisy, lr.device)[:, None, None, None], lr.clamp(0, 1), lr)
        return round_to_grey_levels(lr) if self.config.rounding else lr

    def reach(self, decisions: GaussianDecisions, scale: float) -> Reach:
        radius = 0 if self.config.kernel == "none" else self.config.kernel_size // 2
        blurred = radius if self.config.order == "blur_first" else math.ceil((radius + 1) * scale) - 1
        return Reach(blurred + resize_reach(self.config.resize, scale))

    def record(self, decisions: GaussianDecisions) -> dict[str, RecordValue]:
        """Return width, second_width and angle as far as the kernel family has them, and noise in 8-bit grey levels."""
        parameters = decisions.parameters
        noise: dict[str, RecordValue] = {"noise": parameters.noise}
        match self.config.kernel:
            case "none":
                return noise
            case "isotropic":
                return {"width": parameters.width, **noise}
            case "anisotropic":
                return {"width": parameters.width, "second_width": parameters.second_width, "angle": parameters.angle, **noise}


def _stack(fields: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    """Stack the fields that exist, zeros in place of missing ones; None if there are none."""
    present = next((field for field in fields if field is not None), None)
    if present is None:
        return None
    return to_device(torch.stack([torch.zeros_like(present) if field is None else field for field in fields]), device)
