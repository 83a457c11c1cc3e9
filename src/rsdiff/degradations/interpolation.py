"""Bilinear, bicubic (a = -0.75) and area interpolation without antialiasing, as the practical degradations draw them.

"opencv"          cv2.resize; CPU, without gradient
"opencv_matrix"   the same formulas as two matrix products per image, on any device, differentiable; agrees to 1.2e-6
"torch"           torch's interpolate; its "area" is adaptive average pooling, up to 0.16 off OpenCV's unless the ratio is whole
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.precision import in_float32
from rsdiff.data.transfer import like

Interpolation = Literal["bilinear", "bicubic", "area"]
InterpolationBackend = Literal["opencv", "opencv_matrix", "torch"]

INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic", "area")
_OPENCV = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}


@in_float32
def interpolate(
    images: Tensor, size: tuple[int, int], mode: Interpolation, backend: InterpolationBackend, ratio: float | None = None
) -> Tensor:
    """Return images (N, C, H, W) resized to `size` (h, w); not limited to [0, 1].

    ratio  "torch" only: sample bilinear and bicubic at 1 / ratio instead of H / h, as interpolate(scale_factor=ratio) does; size must be
           (floor(H ratio), floor(W ratio)). Real-ESRGAN's first resize.
    """
    if min(size) < 1:
        raise UserError(f"an image of {tuple(images.shape[-2:])} pixels cannot be resized to {size}; give larger images.")
    if ratio is not None and backend != "torch":
        raise UserError(f"a ratio was given to the back-end {backend}, which goes by the size alone; use torch or leave the ratio out.")
    match backend:
        case "opencv":
            return _opencv(images, size, mode)
        case "opencv_matrix":
            rows, columns = (
                like(resize_matrix(images.shape[axis], size[axis], mode, _enlarges(images, size)), images) for axis in (-2, -1)
            )
            return rows @ images @ columns.mT
        case "torch" if mode == "area":
            return F.interpolate(images, size=size, mode="area")
        case "torch" if ratio is None:
            return F.interpolate(images, size=size, mode=mode, align_corners=False)
        case "torch":
            assert ratio is not None
            made = F.interpolate(images, scale_factor=ratio, mode=mode, align_corners=False, recompute_scale_factor=False)
            assert made.shape[-2:] == size, f"ratio {ratio} makes {tuple(made.shape[-2:])} of {tuple(images.shape[-2:])}, not {size}"
            return made


def _opencv(images: Tensor, size: tuple[int, int], mode: Interpolation) -> Tensor:
    if images.requires_grad:
        raise UserError("OpenCV's resizing has no gradient; choose backend=torch.")
    planes = images.detach().cpu().flatten(0, 1).numpy()
    made = np.empty((len(planes), *size), np.float32)
    for plane, target in zip(planes, made, strict=True):
        cv2.resize(plane, (size[1], size[0]), dst=target, interpolation=_OPENCV[mode])
    return torch.from_numpy(made).unflatten(0, images.shape[:2]).to(images.device)


def _enlarges(images: Tensor, size: tuple[int, int]) -> bool:
    """OpenCV averages areas only if both axes shrink (or stay)."""
    return size[0] > images.shape[-2] or size[1] > images.shape[-1]


@lru_cache(maxsize=256)
def resize_matrix(length: int, out: int, mode: Interpolation, enlarges: bool) -> Tensor:
    """Return the (out, length) float64 matrix of one axis; rows sum to 1.

    enlarges  some axis of the image grows: "area" then takes OpenCV's rule for enlarging on both axes
    """
    step = length / out
    position = (torch.arange(out, dtype=torch.float64) + 0.5) * step - 0.5
    lower = position.floor()
    if mode == "area" and not enlarges:
        edges = torch.arange(out + 1, dtype=torch.float64) * step
        pixel = torch.arange(length, dtype=torch.float64)
        covered = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
        covered = covered.clamp(min=0)
        return covered / covered.sum(1, keepdim=True)
    if mode == "bicubic":
        offsets = torch.arange(-1, 3, dtype=torch.float64)
        weights = _cubic((position - lower)[:, None] - offsets)
    else:
        offsets = torch.arange(0, 2, dtype=torch.float64)
        if mode == "area":
            index = torch.arange(out, dtype=torch.float64)
            lower = (index * step).floor()
            share = (index + 1) - (lower + 1) / step
            share = torch.where(share <= 0, torch.zeros_like(share), share - share.floor())
        else:
            share = position - lower
        weights = torch.stack([1 - share, share], 1)
    taps = (lower[:, None] + offsets).clamp(0, length - 1).long()
    return torch.zeros(out, length, dtype=torch.float64).scatter_add_(1, taps, weights)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.75, OpenCV's and torch's."""
    x, a = x.abs(), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
