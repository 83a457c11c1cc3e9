"""Losses on spectra: images (B, C, H, W), a spectrum being the C values of a pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def spectral_angle_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Return 1 - the mean cosine between the spectra of two images, over images and pixels: 0 where all angles are.

    Norms below 1e-8 count as 1e-8, so that empty pixels have cosine 0. Source: SCDM, GaussianDiffusion.get_losses.
    """
    return 1 - F.cosine_similarity(estimate, target, dim=1, eps=1e-8).mean()


def relative_error(estimate: Tensor, target: Tensor, floor: float = 0.0) -> Tensor:
    """Return the mean of |estimate - target| / max(target, floor) over all values (MRAE).

    floor  lowest divisor; at 0 a target of 0 makes the mean infinite or NaN. 1e-8 is the published remedy, which gives a single zero the
           weight of 1e8 ordinary values.
    Source: caiyuanhao1998/MST-plus-plus, utils.py, Loss_MRAE and Loss_MRAE_custom.
    """
    return ((estimate - target).abs() / target.clamp(min=floor)).mean()
