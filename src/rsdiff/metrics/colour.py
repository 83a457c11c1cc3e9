"""What happens to an image before it is scored: quantisation, luma, border crop.

Every function takes images (..., C, H, W) and returns float64, except where it says otherwise. Values are in [0, 1] before `quantise` and
in units of the peak (0..255 for 8 bits) after it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import UserError

Quantisation = Literal["round", "clip", "none"]
Space = Literal["bands", "y_studio", "y_studio_rounded", "y_full", "y_full_rounded", "y_dasr"]
Border = Literal["none", "scale", "ceil_scale", "scale_plus_6"] | int

STUDIO = (65.481, 128.553, 24.966)
FULL = (0.299, 0.587, 0.114)
LIIF = (65.738, 129.057, 25.064)
_OPENCV_BITS = 14
_OPENCV = (4899, 9617, 1868)


def quantise(image: Tensor, rule: Quantisation = "round", peak: float = 255.0) -> Tensor:
    """Return `image` (in [0, 1]) in units of `peak`, float64.

    round  clamped to 0..peak and rounded half to even: the saved 8-bit file of every repository but EDM's (which rounds ties up)
    clip   clamped, not rounded (LIIF)
    none   neither (DRSR)
    The product is formed in the image's own precision, as the published scripts do, because it decides which values are ties.
    """
    scaled = image * peak
    if rule == "round":
        scaled = scaled.clamp(0, peak).round()
    elif rule == "clip":
        scaled = scaled.clamp(0, peak)
    return scaled.double()


def luma(rgb: Tensor, space: Space, peak: float = 255.0) -> Tensor:
    """Return the (..., 1, H, W) luma of an image (..., 3, H, W) in units of `peak`; an image of one band is its own luma.

    y_studio          16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1] (BT.601, MATLAB rgb2ycbcr), not rounded
    y_studio_rounded  the same, rounded half to even (KAIR and DAN on 8-bit input)
    y_full            0.299 R + 0.587 G + 0.114 B
    y_full_rounded    the same as OpenCV makes it of 8 bits: 14-bit fixed point
    y_dasr            16 + (65.738, 129.057, 25.064)/255 of 0..255 values (SSIM of DASR: gain 256/255 over the studio luma)
    Raises UserError for 2 bands or more than 3: choose three bands first.
    """
    if rgb.shape[-3] == 1:
        return rgb.double()
    if rgb.shape[-3] != 3:
        raise UserError(f"luma is made of 3 bands (red, green, blue) and the image has {rgb.shape[-3]}; choose metrics.rgb_bands.")
    if space in ("y_studio", "y_studio_rounded"):
        y = 16 * peak / 255 + _weighted(rgb, STUDIO) / 255
        return y.round() if space == "y_studio_rounded" else y
    if space == "y_dasr":
        return 16 * peak / 255 + _weighted(rgb, LIIF) / 255
    if space == "y_full_rounded":
        fixed = _weighted(rgb.round(), tuple(float(weight) for weight in _OPENCV)).long()
        return ((fixed + (1 << (_OPENCV_BITS - 1))) >> _OPENCV_BITS).double()
    return _weighted(rgb, FULL)


def to_space(image: Tensor, space: Space, rgb_bands: tuple[int, int, int] = (0, 1, 2), peak: float = 255.0) -> Tensor:
    """Return the planes of `image` (..., C, H, W) that a metric compares: all bands, or the luma of `rgb_bands`."""
    if space == "bands":
        return image.double()
    return luma(rgb_planes(image, rgb_bands), space, peak)


def rgb_planes(image: Tensor, rgb_bands: tuple[int, int, int]) -> Tensor:
    """Return the planes `rgb_bands` of an image of 3 or more bands; an image of 1 or 2 bands is returned as it is."""
    return image if image.shape[-3] < 3 else image[..., list(rgb_bands), :, :]


def border_width(rule: Border, scale: float) -> int:
    """Return the pixels that `rule` takes off each side of the target: a number, 0, scale, ceil(scale) or ceil(scale) + 6.

    `scale` is the ratio of target to input height; the rule 'scale' needs a whole number, as the scripts that use it do.
    """
    if isinstance(rule, int):
        return rule
    if rule == "none":
        return 0
    if rule == "scale" and scale != round(scale):
        raise UserError(
            f"the border rule 'scale' needs a whole scale and this one is {scale:g}; choose metrics.protocol.border=ceil_scale."
        )
    # A scale of 4 from sizes such as 600/150 is exact; 1e-6 keeps 4.0000001 from becoming 5.
    return math.ceil(scale - 1e-6) + (6 if rule == "scale_plus_6" else 0)


def crop(image: Tensor, width: int) -> Tensor:
    """Return `image` (..., H, W) without `width` pixels on each side; raises UserError if nothing would be left."""
    if width == 0:
        return image
    if min(image.shape[-2:]) <= 2 * width:
        raise UserError(
            f"a border of {width} px leaves nothing of a {image.shape[-2]}x{image.shape[-1]} image; choose metrics.protocol.border=none."
        )
    return image[..., width:-width, width:-width]


def _weighted(rgb: Tensor, weights: tuple[float, ...]) -> Tensor:
    # Sum by sum in float64 rather than a matrix product, whose rounding depends on the device and the number of pixels.
    planes = rgb.double().unbind(-3)
    total = sum(
        (plane * weight for plane, weight in zip(planes, weights, strict=True)),
        start=torch.zeros((), dtype=torch.float64, device=rgb.device),
    )
    return torch.as_tensor(total).unsqueeze(-3)
