"""JPEG compression by two named back-ends, which are not equivalent: about 3 grey levels apart at qualities 30 to 95.

"libjpeg"         the codec itself, through OpenCV with its defaults: baseline, 4:2:0 chroma, smooth chroma upsampling; whole qualities; CPU
"differentiable"  the formulas in torch, after DiffJPEG of BasicSR (Real-ESRGAN): any real quality per image, batched on any device, chroma
                  repeated instead of interpolated, quantisation tables neither rounded nor limited, the luminance table transposed

Three bands are coded as red, green and blue. For any other number every band is coded as a grey image of its own, because a colour
transform has no meaning there.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.transfer import like
from rsdiff.degradations.rounding import GREY_LEVELS, to_uint8

JpegBackend = Literal["libjpeg", "differentiable"]

_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))

# ISO 10918-1, tables K.1 and K.2, rows are vertical frequencies.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
_CHROMINANCE_REST = 99

JPEG_REACH = 18
"""Pixels that a coded pixel depends on, along rows and columns: a block of 16 (chroma: 8 of its own), and smooth upsampling across."""


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Return the JPEG stream that libjpeg makes of pixels (C, H, W) uint8, C = 3 (red, green, blue) or 1."""
    interleaved = np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))
    done, stream = cv2.imencode(".jpg", interleaved, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV encodes any uint8 image of one or three bands"
    return stream.tobytes()


def decode_jpeg(stream: bytes) -> NDArray[np.uint8]:
    """Return the pixels (C, H, W) uint8 of a JPEG stream, red first."""
    decoded = np.asarray(cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED), dtype=np.uint8)
    return np.ascontiguousarray(decoded.reshape(*decoded.shape[:2], -1).transpose(2, 0, 1)[::-1])


def through_libjpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return pixels (C, H, W) uint8 encoded and decoded; for C other than 3 band by band."""
    planes = [pixels] if len(pixels) == 3 else [band[None] for band in pixels]
    return np.concatenate([decode_jpeg(encode_jpeg(plane, quality)) for plane in planes])


def jpeg_libjpeg(images: Tensor, qualities: Tensor) -> Tensor:
    """Return images (N, C, H, W) after libjpeg: limited to [0, 1], rounded to 8 bits (half to even), encoded and decoded.

    qualities  (N,), 1..100, rounded to whole numbers
    """
    if images.requires_grad:
        raise UserError("jpeg=libjpeg has no gradient; choose jpeg=differentiable.")
    pixels = to_uint8(images).cpu().numpy()
    made = [through_libjpeg(image, quality) for image, quality in zip(pixels, qualities.round().int().tolist(), strict=True)]
    return (torch.from_numpy(np.stack(made)).to(images.device, torch.float32) / GREY_LEVELS).to(images.dtype)


def jpeg_differentiable(images: Tensor, qualities: Tensor, smooth_rounding: bool = False) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] after JPEG in torch; the result is limited to [0, 1] and not rounded.

    qualities        (N,), real numbers in (0, 100)
    smooth_rounding  round by r + (x - r)^3, r = round(x), whose gradient is not 0 (the values change too)
    Borders are padded with zeros to whole blocks, as published. Source: BasicSR, basicsr/utils/diffjpeg.py.
    """
    bands, height, width = images.shape[1:]
    is_colour = bands == 3
    unit = 16 if is_colour else 8
    padded = F.pad(images, (0, -width % unit, 0, -height % unit)) * GREY_LEVELS
    factors = quantisation_factors(like(qualities, images))
    if not is_colour:
        coded = _code(padded, like(_luminance_table(), images), factors, smooth_rounding)
    else:
        offset = images.new_tensor([0.0, 128.0, 128.0])[:, None, None]
        ycbcr = _mix(padded, _TO_YCBCR) + offset
        luma = _code(ycbcr[:, :1], like(_luminance_table(), images), factors, smooth_rounding)
        chroma = _code(F.avg_pool2d(ycbcr[:, 1:], 2), like(_chrominance_table(), images), factors, smooth_rounding)
        chroma = chroma.repeat_interleave(2, -1).repeat_interleave(2, -2)
        coded = _mix(torch.cat([luma, chroma], 1) - offset, _TO_RGB)
    return coded[..., :height, :width].clamp(0, GREY_LEVELS) / GREY_LEVELS


def quantisation_factors(qualities: Tensor) -> Tensor:
    """Return the multiplier of the quantisation tables for every quality: 50 / q below 50, else 2 - q / 50."""
    return torch.where(qualities < 50, 5000 / qualities, 200 - 2 * qualities) / 100


def _code(planes: Tensor, table: Tensor, factors: Tensor, smooth_rounding: bool) -> Tensor:
    """Return planes (N, C, H, W) in 0..255 after the blockwise cosine transform, quantisation and back; H, W are multiples of 8."""
    height, width = planes.shape[-2:]
    transform = like(_cosine_transform(), planes)
    steps = (table * factors[:, None, None])[:, None, None, None]
    blocks = planes.unflatten(-1, (width // 8, 8)).unflatten(-3, (height // 8, 8)).transpose(-3, -2)  # (N, C, rows, columns, 8, 8)
    scaled = transform @ (blocks - 128) @ transform.mT / steps
    rounded = torch.round(scaled)
    if smooth_rounding:
        rounded = rounded + (scaled - rounded) ** 3
    decoded = transform.mT @ (rounded * steps) @ transform + 128
    return decoded.transpose(-3, -2).flatten(-2).flatten(-3, -2)


def _mix(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Return every band of images (N, 3, H, W) as a weighted sum of the three."""
    return torch.einsum("dc,nchw->ndhw", images.new_tensor(matrix), images)


@cache
def _cosine_transform() -> Tensor:
    """Return the orthonormal DCT-II of 8 points: rows are frequencies."""
    frequency, position = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    rows = torch.cos((2 * position + 1) * frequency * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows


@cache
def _luminance_table() -> Tensor:
    """Return the luminance table, transposed as DiffJPEG has it."""
    return torch.tensor(_LUMINANCE, dtype=torch.float64).T.contiguous()


@cache
def _chrominance_table() -> Tensor:
    table = torch.full((8, 8), float(_CHROMINANCE_REST), dtype=torch.float64)
    table[:4, :4] = torch.tensor(_CHROMINANCE_CORNER, dtype=torch.float64)
    return table
