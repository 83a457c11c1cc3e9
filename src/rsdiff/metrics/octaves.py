"""Energy by octave of frequency: how much of the texture of each size an image has, beside its reference.

Interpolation and regression lose the octave that the LR does not show; a generative method must have it back, and not more of it.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.metrics.metric import View

OCTAVES = 3
LEAST = 16


def octave_energies(image: Tensor) -> Tensor:
    """Return the energies (OCTAVES,) of an image (C, H, W), the finest octave first, averaged over bands.

    The first octave has the frequencies from 1/4 cycles per pixel up (to the corner, 0.71), the next those from 1/8 to 1/4, and so on,
    by distance from zero frequency. The image without its mean is faded out towards its borders (Hann), whose jump from one side to the
    other would pass for texture.
    """
    H, W = image.shape[-2:]
    if min(H, W) < LEAST:
        raise UserError(f"energy by octave needs images of {LEAST}x{LEAST} pixels or more and got {H}x{W}.")
    window = torch.outer(torch.hann_window(H, dtype=torch.float64), torch.hann_window(W, dtype=torch.float64)).to(image.device)
    centred = image.double() - image.double().mean((1, 2), keepdim=True)
    power = torch.fft.rfft2(centred * window).abs().square()
    power[..., 1 : (W + 1) // 2] *= 2  # the half that a real transform leaves out
    return torch.stack([power[:, part].sum(1).mean() for part in _octaves(H, W, image)])


def octave_parts(image: Tensor) -> Tensor:
    """Return the parts (OCTAVES, C, H, W) of an image that have the frequencies of an octave each, the finest first; float64.

    The image continues beyond its borders as in a mirror, whose seams have no jump.
    """
    H, W = image.shape[-2:]
    mirrored = torch.cat([image, image.flip(-1)], -1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2).double()
    spectrum = torch.fft.rfft2(mirrored)
    return torch.stack([torch.fft.irfft2(spectrum * part, s=mirrored.shape[-2:])[..., :H, :W] for part in _octaves(2 * H, 2 * W, image)])


def _octaves(H: int, W: int, like: Tensor) -> list[Tensor]:
    """Return which frequencies (H, W // 2 + 1) of a real transform belong to every octave, on the device of `like`."""
    rows, columns = torch.fft.fftfreq(H, dtype=torch.float64), torch.fft.rfftfreq(W, dtype=torch.float64)
    frequency = torch.hypot(rows[:, None], columns[None]).to(like.device)
    edges = [math.inf, *(0.25 / 2**octave for octave in range(OCTAVES))]
    return [(frequency >= low) & (frequency < high) for high, low in pairwise(edges)]


def energy_share(view: View, octave: int) -> float:
    """Return the energy of an image in an octave (0 the finest), relative to that of its reference; NaN where that has none.

    Both are looked at as they would be delivered, over all bands and without a border crop. Raises UserError where pixels are missing.
    """
    if view.valid is not None and not bool(view.valid.all()):
        raise UserError("energy by octave is not defined for images with missing pixels.")

    def energies() -> tuple[Tensor, Tensor]:
        made, true = (octave_energies(view.quantised(image) / view.protocol.peak) for image in (view.image, view.reference()))
        return made, true

    made, true = view.once("octaves", energies)
    return float(made[octave] / true[octave]) if float(true[octave]) > 0 else math.nan
