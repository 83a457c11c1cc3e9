"""Degradation of one image array, as users of the published scripts are used to: array in, LR, HR and decisions out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.config import UserError, config_from_mapping
from rsdiff.data.seeding import keyed_generator
from rsdiff.data.value_range import SPARSE_TYPE
from rsdiff.degradations.base import Degradation
from rsdiff.degradations.table import DEGRADATIONS

Image = NDArray[Any]


def degrade_array(
    image: Image, kind: str, scale: int = 4, seed: int = 0, *, peak: float | None = None, **options: Any
) -> tuple[Image, Image, Any]:
    """Return (lr, hr, decisions) of one image by the degradation `kind` ('bsrgan', 'real_esrgan', 'gaussian', ...).

    image    (H, W) or (H, W, C), any number of bands: uint8, uint16, or floats from 0 to `peak`
    scale    target pixels per LR pixel and side; the image is cut at the bottom and right to a multiple of it
    seed     the same image, kind, scale, seed and options give the same result
    peak     the value that stands for 1, in which noise and JPEG are measured: 255 for uint8, 1 for floats, and 65535 for uint16 that fill
             that range; 10000 for reflectances of 16 bits
    options  of the degradation, as in its config file: degrade_array(image, 'bsrgan', crop=72)
    lr, hr   arrays of the type and layout of `image`; hr is the target that belongs to lr (cut, or sharpened, where the kind does so)
    decisions  what was drawn; `DEGRADATIONS[kind](**options).build()` applies it again, and `.record(decisions)` lists its numbers
    Raises UserError in one sentence for what cannot be degraded.
    """
    if kind not in DEGRADATIONS or kind in ("paired", "grid"):
        kinds = sorted(set(DEGRADATIONS) - {"paired", "grid"})
        raise UserError(f"kind={kind!r} is not a degradation of one image; choose among {', '.join(kinds)}.")
    return degrade_by(config_from_mapping(DEGRADATIONS[kind], options, kind).build(), image, scale, seed, peak)


def degrade_by(degradation: Degradation, image: Image, scale: float, seed: int, peak: float | None = None) -> tuple[Image, Image, Any]:
    """Return (lr, hr, decisions) of one image; see `degrade_array`."""
    peak = peak_of(image, peak)
    height, width = (int(side // scale) for side in image.shape[:2])
    if min(height, width) < 1:
        raise UserError(f"an image of {image.shape[0]}x{image.shape[1]} pixels is too small for scale={scale:g}; lower scale.")
    cut = image[: round(height * scale), : round(width * scale)]
    bands_first = cut[None] if image.ndim == 2 else cut.transpose(2, 0, 1)
    hr = torch.from_numpy(np.ascontiguousarray(bands_first, dtype=np.float32) / np.float32(peak))
    (decisions,) = degradation.draw(keyed_generator(seed, "array"), (hr.shape[0], hr.shape[1], hr.shape[2]), (height, width))
    made = degradation.apply(hr[None], [decisions])

    def restored(tensor: Tensor) -> Image:
        values = (tensor * peak).numpy() if np.issubdtype(image.dtype, np.floating) else (tensor.clamp(0, 1) * peak).round().numpy()
        return (values[0] if image.ndim == 2 else values.transpose(1, 2, 0)).astype(image.dtype)

    return restored(made.lr[0]), restored(made.hr[0]), decisions


def peak_of(image: Image, given: float | None = None) -> float:
    """Return the value that stands for 1; raises UserError for one that the values of `image` do not go with."""
    if np.ma.isMaskedArray(image):
        raise UserError("a masked array was given and masks are not followed; give its values with the missing ones filled.")
    if image.ndim == 3 and image.shape[0] <= 4 < min(image.shape[1:]):
        raise UserError(f"an array of shape {image.shape} looks channels first; give (H, W, C), for example image.transpose(1, 2, 0).")
    if image.ndim not in (2, 3):
        raise UserError(f"an array of shape {image.shape} is no image; give (H, W) or (H, W, C).")
    is_real = np.issubdtype(image.dtype, np.floating)
    if not is_real and image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"an image of {image.dtype} was given; give uint8, uint16 or floats.")
    low, high = float(image.min()), float(image.max())
    peak = given or (1.0 if is_real else float(np.iinfo(image.dtype).max))
    if not (low >= 0 and high <= peak):
        advice = (
            "subtract the lowest value"
            if low < 0
            else f"give the value that stands for 1, for example peak={10 ** math.ceil(math.log10(high)):g}"
        )
        raise UserError(f"an image of {image.dtype} has values from {low:g} to {high:g}, outside of 0 to {peak:g}; {advice}.")
    if given is None and image.dtype == np.uint16 and 0 < high < peak * SPARSE_TYPE:
        raise UserError(
            f"an image of uint16 has no value above {high:g}, and 65535 would be taken for the largest; "
            "give the value that stands for 1, for example peak=10000 for reflectances."
        )
    return peak
