"""A change mask from the LR image and the reference of another date, for scenes that come without one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def estimate_change(lr: Tensor, ref: Tensor, threshold: float) -> Tensor:
    """Return (B, 1, H, W) of 0 (unchanged) and 1 (changed), constant within every LR pixel.

    lr         (B, C, h, w) in [0, 1]
    ref        (B, C, H, W) in [0, 1]
    threshold  difference beyond which a pixel counts as changed, in units of [0, 1]

    The reference is averaged over LR pixels and brought to the LR image's mean and deviation per band, because light and season differ
    between dates; the differences, averaged over bands and 3 x 3 LR pixels, are compared with the threshold. Source: ours.
    """
    small = F.interpolate(ref, size=lr.shape[-2:], mode="area")
    axes = (-2, -1)
    contrast = lr.std(axes, keepdim=True) / small.std(axes, keepdim=True).clamp(min=1e-4)
    matched = (small - small.mean(axes, keepdim=True)) * contrast + lr.mean(axes, keepdim=True)
    difference = (lr - matched).abs().mean(1, keepdim=True)
    smooth = F.avg_pool2d(F.pad(difference, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return F.interpolate((smooth > threshold).to(lr.dtype), size=ref.shape[-2:], mode="nearest")
