"""Degradation of one image array, as users of the published scripts are used to: array in, LR, HR and decisions out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsdiff.config import UserError, config_from_mapping
from rsdiff.data.missing import fill_missing
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.seeding import keyed_generator
from rsdiff.data.value_range import SPARSE_TYPE
from rsdiff.degradations.base import Degradation, degrade
from rsdiff.degradations.table import DEGRADATIONS

Image = NDArray[Any]
Mask = NDArray[np.bool_]


def degrade_array(
    image: Image, kind: str, scale: int = 4, seed: int = 0, *, peak: float | None = None, **options: Any
) -> tuple[Image, Image, Any]:
    """Return (lr, hr, decisions) of one image by the degradation `kind` ('bsrgan', 'real_esrgan', 'gaussian', ...).

    image    (H, W) or (H, W, C), any number of bands: uint8, uint16, or floats from 0 to `peak`, NaN where a value is missing
    scale    target pixels per LR pixel and side; the image is cut at the bottom and right to a multiple of it
    seed     the same image, kind, scale, seed and options give the same result
    peak     the value that stands for 1, in which noise and JPEG are measured: 255 for uint8, 1 for floats, and 65535 for uint16 that fill
             that range; 10000 for reflectances of 16 bits
    options  of the degradation, as in its config file: degrade_array(image, 'bsrgan', crop=72)
    lr, hr   arrays of the type and layout of `image`; hr is the target that belongs to lr (cut, or sharpened, where the kind does so)
    decisions  what was drawn; `DEGRADATIONS[kind](**options).build()` applies it again, and `.record(decisions)` lists its numbers
    Raises UserError in one sentence for what cannot be degraded.

    >>> import numpy, rsdiff
    >>> lr, hr, _ = rsdiff.degradations.degrade_array(numpy.full((33, 40), 7, numpy.uint8), "gaussian", scale=4, seed=1)
    >>> lr.shape, hr.shape, lr.dtype
    ((8, 10), (32, 40), dtype('uint8'))
    """
    if kind not in DEGRADATIONS or kind in ("paired", "grid"):
        kinds = sorted(set(DEGRADATIONS) - {"paired", "grid"})
        raise UserError(f"kind={kind!r} is not a degradation of one image; choose among {', '.join(kinds)}.")
    require_bands_last(image)
    bands_first = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    valid = np.isfinite(bands_first) if image.dtype.kind == "f" else np.ones(bands_first.shape, np.bool_)
    degradation = config_from_mapping(DEGRADATIONS[kind], options, kind).build()
    made = degraded(degradation, bands_first, valid, scale, seed, peak_of(bands_first, peak, valid))

    def as_given(values: Image, known: Mask) -> Image:
        marked = np.where(known, values, values.dtype.type(np.nan)) if image.dtype.kind == "f" else values
        return marked[0] if image.ndim == 2 else marked.transpose(1, 2, 0)

    return as_given(made.lr, made.lr_valid), as_given(made.hr, made.hr_valid), made.decisions


@dataclass(frozen=True)
class DegradedArrays:
    """LR (c, h, w) and the target (C, H, W) that belongs to it, in the type of the image, which of their pixels are known, and the draw."""

    lr: Image
    lr_valid: Mask
    hr: Image
    hr_valid: Mask
    decisions: Any


def degraded(degradation: Degradation, image: Image, valid: Mask, scale: float, seed: int, peak: float) -> DegradedArrays:
    """Return what a degradation makes of an image (C, H, W) whose known pixels are `valid`; what is missing does not matter."""
    height, width = (int(side // scale) for side in image.shape[1:])
    if min(height, width) < 1:
        raise UserError(f"an image of {image.shape[1]}x{image.shape[2]} pixels is too small for scale={scale:g}; lower scale.")
    H, W = round(height * scale), round(width * scale)
    known = torch.from_numpy(np.ascontiguousarray(valid[:, :H, :W]))
    hr = torch.from_numpy(np.ascontiguousarray(image[:, :H, :W], dtype=np.float32) / np.float32(peak))
    if is_partial := not bool(known.all()):
        hr = fill_missing(hr[None], known[None])[0]
    (decisions,) = degradation.draw(keyed_generator(seed, "array"), (hr.shape[0], H, W), (height, width))
    mask = known.float()[None] if is_partial else None
    batch = Batch([SampleMeta("array")], (H, W), (height, width), hr=hr[None], valid=mask, decisions=[[decisions]])
    made = degrade(batch, degradation)

    def stored(values: Tensor) -> Image:
        is_real = np.issubdtype(image.dtype, np.floating)
        found: Image = (values[0] * peak).numpy() if is_real else (values[0].clamp(0, 1) * peak).round().numpy()
        return found.astype(image.dtype)

    def validity(mask: Tensor | None, values: Tensor) -> Mask:
        return np.ones(values.shape[1:], np.bool_) if mask is None else np.asarray(mask[0].expand(values.shape[1:]).numpy() > 0)

    lr, target = made.need("lr"), made.need("hr")
    # A target that is the image itself keeps what was known of it, beside missing pixels, too.
    own = known[None] if target.shape == batch.need("hr").shape else made.valid
    return DegradedArrays(stored(lr), validity(made.lr_valid, lr), stored(target), validity(own, target), decisions)


def require_bands_last(image: Image) -> None:
    """Raise UserError for arrays that are no image of (H, W) or (H, W, C)."""
    if np.ma.isMaskedArray(image):
        raise UserError("a masked array was given; use rsdiff.degrade, which follows masks, or give its values with NaN where they miss.")
    if image.ndim == 3 and image.shape[0] <= 4 < min(image.shape[1:]):
        raise UserError(f"an array of shape {image.shape} looks channels first; give (H, W, C), for example image.transpose(1, 2, 0).")
    if image.ndim not in (2, 3):
        raise UserError(f"an array of shape {image.shape} is no image; give (H, W) or (H, W, C).")


def peak_of(image: Image, given: float | None, valid: Mask) -> float:
    """Return the value that stands for 1; raises UserError for one that the valid values of `image` do not go with."""
    is_real = np.issubdtype(image.dtype, np.floating)
    if not is_real and image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"an image of {image.dtype} was given; give uint8, uint16 or floats.")
    known = image[valid]
    if not known.size:
        raise UserError("every pixel of an image is missing; give one with known pixels.")
    low, high = float(known.min()), float(known.max())
    peak = given or (1.0 if is_real else float(np.iinfo(image.dtype).max))
    if not (low >= 0 and high <= peak):
        advice = (
            "subtract the lowest value"
            if low < 0
            else "give the value that stands for 1, for example peak=255 of 8-bit images"
            if high <= 255
            else f"give the value that stands for 1, for example peak={10 ** math.ceil(math.log10(high)):g}"
        )
        raise UserError(f"an image of {image.dtype} has values from {low:g} to {high:g}, outside of 0 to {peak:g}; {advice}.")
    if given is None and image.dtype == np.uint16 and 0 < high < peak * SPARSE_TYPE:
        raise UserError(
            f"an image of uint16 has no value above {high:g}, and 65535 would be taken for the largest; "
            "give the value that stands for 1, for example peak=10000 for reflectances."
        )
    return peak
