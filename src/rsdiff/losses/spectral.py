"""Losses on spectra: images (B, C, H, W), a spectrum being the C values of a pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.losses.masked import difference, masked_mean


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
