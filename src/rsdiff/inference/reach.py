"""How far a restoration looks.

A tile is wrong within this distance of its border, where it lacks what lies beyond. Of tiles that share twice as many pixels, one is right
everywhere and weighs more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

REACH_SIDE = 96
"""Input pixels of the image that is restored to measure: reaches of almost half of it are found."""
VISIBLE = 0.5 / 255
"""Change of the result that counts: half a grey level of 8 bits."""


def measured_reach(restore: Callable[[Tensor], Tensor], shape: tuple[int, int, int], scale: Fraction, device: torch.device) -> int:
    """Return the distance in input pixels at which changing one pixel from black to white still changes the result visibly.

    restore  makes (1, C, H, W) of an image (1, bands, side, side), the same way every time
    shape    (bands, side, side) of the input. Global estimates (attention over all of the image) may reach everywhere: half a side then.
    """
    side = shape[-1]
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).mul_(0.2).add_(0.4)
    centre = side // 2
    black, white = image.clone(), image.clone()
    black[..., centre, centre], white[..., centre, centre] = 0.0, 1.0
    with torch.no_grad():
        changed = (restore(white.to(device)) - restore(black.to(device))).abs().amax((0, 1)) > VISIBLE
    places = changed.nonzero()
    if not len(places):
        return 0
    middle = (centre + 0.5) * float(scale) - 0.5
    farthest = float((places - middle).abs().max()) / float(scale)
    return min(side // 2, math.ceil(farthest - 0.5))  # half an input pixel lies within the changed one itself
