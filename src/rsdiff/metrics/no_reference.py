"""Measures that need no reference: average gradient and entropy of the gray image. Images (C, H, W) in 0..255, float64."""

from __future__ import annotations

import torch
from torch import Tensor


def average_gradient(gray: Tensor, valid: Tensor | None = None) -> float:
    """Return the mean over (H-1)(W-1) pixels of sqrt((dx^2 + dy^2) / 2), forward differences, in grey levels per pixel.

    gray   (1, H, W), 0.299/0.587/0.114 luma of the 8-bit image, not rounded; several bands give the mean of their values
    valid  (1, H, W) bool; a pixel counts if it and both its neighbours are valid
    Noise raises it, so higher is not better by itself: read it beside the value of the reference.
    Source: PLoS ONE 9(1) e86528, table 1; scripts that add border rows or central differences give 16.13 or 14.55 for 15.81.
    """
    f = gray.double()
    down, right = f[:, 1:, :-1] - f[:, :-1, :-1], f[:, :-1, 1:] - f[:, :-1, :-1]
    magnitude = ((down.square() + right.square()) / 2).sqrt()
    if valid is None:
        return float(magnitude.mean())
    inside = valid[:, 1:, :-1] & valid[:, :-1, 1:] & valid[:, :-1, :-1]
    return float(magnitude[inside.expand_as(magnitude)].mean())


def entropy(gray: Tensor, valid: Tensor | None = None) -> float:
    """Return -sum p log2 p in bits over the 256 bins of the rounded gray image (1, H, W): 0 for a flat image, 8 at most."""
    values = gray.double() if valid is None else gray.double()[valid.expand_as(gray)]
    counts = torch.bincount(values.round().clamp(0, 255).long().flatten(), minlength=256).double()
    share = counts[counts > 0] / counts.sum()
    return float(-(share * share.log2()).sum()) if share.numel() else float("nan")
