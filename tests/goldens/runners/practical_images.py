"""Inputs that the cases of bsrgan and real_esrgan describe in words, and their decision lists as our stages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.degradations.interpolation import INTERPOLATIONS, Interpolation

from .. import fill


def described_image(recipe: dict[str, Any], shape: tuple[int, ...] | None = None) -> Tensor:
    """Return the image (C, H, W) or (N, C, H, W) float32 of a recipe: a fill, mixed with ramps, stretched or rounded as 'post' says."""
    assert recipe["fill"] == "image", recipe
    words = recipe.get("post", "")
    values = fill.image(recipe["name"], tuple(shape or recipe["shape"]), recipe.get("salt", 0)).astype(np.float64)
    height, width = values.shape[-2:]
    if mix := re.search(r"x = ([\d.]+)\*image \+ ([\d.]+)\*ramp", words):
        column, row = np.broadcast_to(np.arange(width) / (width - 1), (height, width)), np.arange(height)[:, None] / (height - 1)
        ramp = np.stack([column, np.broadcast_to(row, (height, width)), 1 - column])
        values = float(mix.group(1)) * values + float(mix.group(2)) * ramp
    if stretch := re.search(r"([\d.]+)\*x([-+][\d.]+)", words):
        values = (float(stretch.group(1)) * values.astype(np.float32) + float(stretch.group(2))).astype(np.float32)
    if "round(255x)" in words or "8-bit" in words:
        values = (np.round(255 * values).astype(np.uint8) / 255.0).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.float32)))


def bands_last(image: Tensor) -> Tensor:
    """Return (C, H, W) as (H, W, C)."""
    return image.movedim(-3, -1)


def bands_first(array: np.ndarray) -> Tensor:
    """Return (H, W) or (H, W, C) as (C, H, W)."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor[None] if tensor.ndim == 2 else tensor.movedim(-1, 0)


def opencv_mode(code: int) -> Interpolation:
    """Return the interpolation of OpenCV's code 1, 2 or 3."""
    return INTERPOLATIONS[code - 1]
