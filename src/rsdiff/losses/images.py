"""Losses on images: means over the pixels that count, and the weighted terms of an objective.

`valid` is that of a batch: (B, C or 1, H, W) of 0 and 1, or None where every pixel counts. Each image's mean is taken first, then that of
the images, so that a batch may be shared out among micro-batches and processes; an image of which nothing counts adds 0. Missing pixels
carry neither value nor gradient, whatever stands there; terms that look beyond a pixel see the target's values there. Estimates
(B, C, H, W) of the terms are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.data.precision import in_float32


def image_means(value: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean of each image (B,) of value (B, C, H, W) over what counts, 0 where nothing does."""
    if valid is None:
        return value.flatten(1).mean(1)
    counts = (valid > 0.5).expand_as(value)
    return torch.where(counts, value, 0.0).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)


def masked_mean(value: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean () of value (B, C, H, W) over what counts. A value must be finite wherever its gradient is: see `difference`."""
    return value.mean() if valid is None else image_means(value, valid).mean()


def difference(estimate: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return estimate - target (B, C, H, W), in float32 or better, and 0 without gradient where nothing counts."""
    precise = torch.promote_types(torch.promote_types(estimate.dtype, target.dtype), torch.float32)
    gap = estimate.to(precise) - target.to(precise)
    return gap if valid is None else torch.where((valid > 0.5).expand_as(gap), gap, 0.0)


def masked_l1(estimate: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean absolute error () over what counts."""
    return F.l1_loss(estimate, target) if valid is None else masked_mean(difference(estimate, target, valid).abs(), valid)


def masked_mse(estimate: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean squared error () over what counts."""
    return F.mse_loss(estimate, target) if valid is None else masked_mean(difference(estimate, target, valid).square(), valid)


def spectral_angle_loss(estimate: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return 1 - the mean cosine between the spectra of two images, over images and pixels: 0 where all angles are.

    valid  (B, C, H, W); pixels count of which every band does
    Norms below 1e-8 count as 1e-8, so that empty pixels have cosine 0. Source: SCDM, GaussianDiffusion.get_losses.
    """
    if valid is None:
        return 1 - F.cosine_similarity(estimate, target, dim=1, eps=1e-8).mean()
    counts = valid.amin(1, keepdim=True) > 0.5
    cosine = F.cosine_similarity(torch.where(counts, estimate, 1.0), torch.where(counts, target, 1.0), dim=1, eps=1e-8)
    return masked_mean(1 - cosine[:, None], counts)


def with_missing_of(estimate: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return the estimate (B, C, H, W) with the target's values where nothing counts: for losses that compare features of whole images.

    Both images then agree on what is missing (the target's missing pixels are filled from its known ones), so that a feature or a
    discriminator's answer differs by known pixels alone and no gradient reaches the others.
    """
    return estimate if valid is None else torch.where((valid > 0.5).expand_as(estimate), estimate, target.to(estimate.dtype))


Ramp = tuple[int, int]
"""First and last step between which a weight rises linearly from 0 to its value; (0, 0) has it from the first step on."""


def ramped(weight: float, ramp: Ramp, step: int) -> float:
    """Return `weight` as it counts at `step`, which is 0 for the first."""
    first, last = ramp
    if step >= last:
        return weight
    return weight * max(step - first, 0) / (last - first)


def require_ramp(name: str, ramp: Ramp) -> None:
    """Raise UserError unless the ramp rises."""
    if not 0 <= ramp[0] <= ramp[1] or (ramp[0] == ramp[1] and ramp[0] > 0):
        raise UserError(f"{name}={list(ramp)} was given; give the step where the weight leaves 0 and a later one where it is whole.")


def relative_error(estimate: Tensor, target: Tensor, floor: float = 0.0, valid: Tensor | None = None) -> Tensor:
    """Return the mean of |estimate - target| / max(target, floor) over all values (MRAE).

    floor  lowest divisor; at 0 a target of 0 makes the mean infinite or NaN. 1e-8 is the published remedy, which gives a single zero the
           weight of 1e8 ordinary values.
    valid  (B, C, H, W), values that count
    Source: caiyuanhao1998/MST-plus-plus, utils.py, Loss_MRAE and Loss_MRAE_custom.
    """
    divisor = target.clamp(min=floor)
    if valid is None:
        return ((estimate - target).abs() / divisor).mean()
    return masked_mean(difference(estimate, target, valid).abs() / torch.where(valid > 0.5, divisor, 1.0), valid)


WINDOW, DEVIATION = 11, 1.5
"""Gaussian window of SSIM: side and standard deviation in pixels (Wang et al., 2004)."""
CONSTANTS = (0.01**2, 0.03**2)


@config
class RampsConfig:
    """First and last step between which the weight of a term rises from 0; [0, 0] has it from the beginning."""

    l1: Ramp = (0, 0)
    """Of the mean absolute error."""
    mse: Ramp = (0, 0)
    """Of the mean squared error."""
    charbonnier: Ramp = (0, 0)
    """Of Charbonnier's loss."""
    relative: Ramp = (0, 0)
    """Of the relative error."""
    ssim: Ramp = (0, 0)
    """Of 1 - SSIM."""
    sam: Ramp = (0, 0)
    """Of the spectral angle."""
    tv: Ramp = (0, 0)
    """Of the total variation."""
    gradient: Ramp = (0, 0)
    """Of the difference of gradients."""
    fft: Ramp = (0, 0)
    """Of the difference of spectra of frequencies."""

    def __post_init__(self) -> None:
        for field in fields(self):
            require_ramp(f"ramp.{field.name}", getattr(self, field.name))


@config
class ImageLossConfig:
    """Weights of the terms that compare an image with its target; terms of weight 0 are not computed."""

    read_with: ClassVar[ReadWith] = {f"{name}_floor": (name, (ABOVE_0,)) for name in ("charbonnier", "relative")}

    l1: float = 1.0
    """Mean absolute error."""
    mse: float = 0.0
    """Mean squared error."""
    charbonnier: float = 0.0
    """Mean of sqrt(error^2 + charbonnier_floor^2): absolute error, rounded at 0."""
    relative: float = 0.0
    """Mean of |error| / target (MRAE)."""
    ssim: float = 0.0
    """1 - SSIM, of windows of 11 x 11 pixels."""
    sam: float = 0.0
    """1 - the mean cosine between spectra."""
    tv: float = 0.0
    """Mean absolute difference of neighbouring pixels of the estimate: smoothness, without a target."""
    gradient: float = 0.0
    """Mean absolute difference of the differences of neighbouring pixels."""
    fft: float = 0.0
    """Mean absolute difference of Fourier coefficients, real and imaginary (orthonormal)."""
    charbonnier_floor: float = 1e-3
    """Where Charbonnier's loss becomes quadratic, in units of [0, 1]."""
    relative_floor: Annotated[float, Ours("training")] = 0.0
    """Lowest divisor of the relative error; above 0 for data with dark pixels or zeros."""
    ramp: RampsConfig = RampsConfig()
    """Terms whose weight rises in the course of training."""

    def __post_init__(self) -> None:
        for name in TERMS:
            if getattr(self, name) < 0:
                raise UserError(f"the weight {name}={getattr(self, name)} was given; choose 0 or more.")
            if getattr(self, name) == 0 and getattr(self.ramp, name) != (0, 0):
                raise UserError(f"ramp.{name} has no effect with {name}=0; leave it out, or give the term a weight.")
        if self.charbonnier_floor <= 0 or self.relative_floor < 0:
            raise UserError(
                f"charbonnier_floor={self.charbonnier_floor} and relative_floor={self.relative_floor} were given; choose a number above 0, "
                "and 0 or more."
            )

    def terms(self, estimate: Tensor, target: Tensor, valid: Tensor | None, step: int = 0) -> dict[str, tuple[float, Tensor]]:
        """Return (weight at `step`, unweighted loss ()) of every term whose weight is not 0."""
        weights = {name: ramped(weight, getattr(self.ramp, name), step) for name in TERMS if (weight := getattr(self, name))}
        return {name: (weight, TERMS[name](self, estimate, target, valid)) for name, weight in weights.items() if weight}


def charbonnier(options: ImageLossConfig, estimate: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return Charbonnier's loss."""
    error = difference(estimate, target, valid)
    return masked_mean((error.square() + options.charbonnier_floor**2).sqrt(), valid)


@in_float32
def ssim_loss(estimate: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return 1 - the mean SSIM over windows (of reflected borders) of each band whose centre counts; images of at least 6 pixels."""
    estimate, target = with_missing_of(estimate, target, valid).float(), target.float()
    window = _window(estimate)

    def blurred(image: Tensor) -> Tensor:
        padded = F.pad(image, (WINDOW // 2,) * 4, mode="reflect")
        return F.conv2d(F.conv2d(padded, window.mT, groups=image.shape[1]), window, groups=image.shape[1])

    mean_a, mean_b = blurred(estimate), blurred(target)
    variance_a = blurred(estimate.square()) - mean_a.square()
    variance_b = blurred(target.square()) - mean_b.square()
    covariance = blurred(estimate * target) - mean_a * mean_b
    brightness = (2 * mean_a * mean_b + CONSTANTS[0]) / (mean_a.square() + mean_b.square() + CONSTANTS[0])
    return 1 - masked_mean(brightness * (2 * covariance + CONSTANTS[1]) / (variance_a + variance_b + CONSTANTS[1]), valid)


def _window(image: Tensor) -> Tensor:
    """Return the window of a row, (C, 1, 1, WINDOW)."""
    offsets = torch.arange(WINDOW, device=image.device, dtype=image.dtype) - WINDOW // 2
    row = torch.exp(-offsets.square() / (2 * DEVIATION**2))
    return (row / row.sum()).expand(image.shape[1], 1, 1, WINDOW)


def total_variation(estimate: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean absolute difference of neighbours below and beside, over pairs that both count."""
    return torch.stack([masked_mean(_steps(estimate, axis).abs(), _pairs(valid, axis)) for axis in (-2, -1)]).sum()


def gradient_difference(estimate: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean absolute difference of the two images' differences of neighbours, over pairs that both count."""
    error = difference(estimate, target, valid)
    return torch.stack([masked_mean(_steps(error, axis).abs(), _pairs(valid, axis)) for axis in (-2, -1)]).sum()


def _steps(image: Tensor, axis: int) -> Tensor:
    return image.diff(dim=axis)


def _pairs(valid: Tensor | None, axis: int) -> Tensor | None:
    length = valid.shape[axis] if valid is not None else 0
    return None if valid is None else valid.narrow(axis, 1, length - 1) * valid.narrow(axis, 0, length - 1)


def fourier_difference(estimate: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean absolute difference of Fourier coefficients; missing pixels count as equal."""
    error = torch.fft.rfft2(difference(estimate, target, valid), norm="ortho")
    return torch.view_as_real(error).abs().mean()


Term = Callable[[ImageLossConfig, Tensor, Tensor, Tensor | None], Tensor]
TERMS: Mapping[str, Term] = {
    "l1": lambda options, estimate, target, valid: masked_l1(estimate, target, valid),
    "mse": lambda options, estimate, target, valid: masked_mse(estimate, target, valid),
    "charbonnier": charbonnier,
    "relative": lambda options, estimate, target, valid: relative_error(estimate, target, options.relative_floor, valid),
    "ssim": lambda options, estimate, target, valid: ssim_loss(estimate, target, valid),
    "sam": lambda options, estimate, target, valid: spectral_angle_loss(estimate, target, valid),
    "tv": lambda options, estimate, target, valid: total_variation(estimate, valid),
    "gradient": lambda options, estimate, target, valid: gradient_difference(estimate, target, valid),
    "fft": lambda options, estimate, target, valid: fourier_difference(estimate, target, valid),
}
"""The terms by the name of their weight."""
