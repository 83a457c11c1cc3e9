"""Means over the pixels that count: the last step of every loss on images.

`valid` is that of a batch: (B, C or 1, H, W) of 0 and 1, or None where every pixel counts. Each image's mean is taken first, then that of
the images, so that a batch may be shared out among micro-batches and processes; an image of which nothing counts adds 0. Missing pixels
carry neither value nor gradient, whatever stands there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError


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
