"""DCLS's supervision of kernels: the blur as it acts on the LR grid, found by dividing spectra of two LR images of one HR patch."""

from __future__ import annotations

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.degradations.transfer import kernel_of

EPSILON = 1e-20
KEPT = 40
"""Taps that the threshold is set by (n of the published function)."""


def spectral_kernels(blurred: Tensor, sharp: Tensor, taps: int) -> Tensor:
    """Return, per band, the kernel (B, C, taps, taps) that turns `sharp` into `blurred` (B, C, h, w), both taken to be periodic.

    Ill-conditioned where the spectrum of `sharp` is small; float32 agrees with float64 to about 2e-5 after `lr_kernel`'s clean-up.
    Raises UserError when the images are smaller than the kernel.
    """
    size = (int(sharp.shape[-2]), int(sharp.shape[-1]))
    if min(size) < taps:
        raise UserError(
            f"a kernel of {taps} x {taps} pixels cannot be found in LR patches of {size[0]}x{size[1]}; "
            f"enlarge trainer.patch to {taps} LR pixels or more, or set a smaller model.kernel_size."
        )
    of_sharp = torch.fft.rfft2(sharp)
    quotient = torch.fft.rfft2(blurred) * of_sharp.conj() / (of_sharp.abs().square() + EPSILON)
    return kernel_of(quotient, size, taps)


def drop_small_taps(kernels: Tensor, kept: int = KEPT) -> Tensor:
    """Return kernels (B, 1, k, k) less 3/4 of their (kept + 1)-th largest value, limited to [0, 1] and normalised to sum 1."""
    flat = kernels.flatten(1)
    threshold = 0.75 * flat.sort(dim=1, descending=True).values[:, kept]
    limited = (kernels - threshold[:, None, None, None]).clamp(0, 1)
    # One tap off the centre, as published; it only keeps the sum of an empty kernel from being 0.
    guard = kernels.shape[-1] // 2 + 1
    guarded = limited.clone()
    guarded[..., guard, guard] += EPSILON
    return guarded / guarded.sum(dim=(1, 2, 3), keepdim=True)


def lr_kernel(blurred: Tensor, sharp: Tensor, taps: int) -> Tensor:
    """Return the target kernels (B, taps, taps), >= 0 and sum 1.

    blurred, sharp  (B, C, h, w), the noise-free LR of the blurred and of the sharp HR image, before rounding
    Taps on which the bands' signs multiply to a negative number are dropped, small ones too. Source: DCLS, CorrectionLoss.
    """
    raw = spectral_kernels(blurred, sharp, taps)
    agreed = raw.mean(1, keepdim=True) * (raw.prod(1, keepdim=True) > 0)
    return drop_small_taps(agreed)[:, 0]
