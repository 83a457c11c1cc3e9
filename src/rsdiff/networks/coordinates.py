"""Continuous coordinates of images: pixel centres in [-1, 1], rows first, and the nearest cells of a feature map.

All geometry is that of align_corners=False: an axis of n pixels spans [-1, 1] and the centre of pixel i lies at -1 + (2 i + 1) / n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.data.transfer import constant

Interval = tuple[float, float]
EPSILON = 1e-6  # moves a query off the line between two cells
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def pixel_centres(size: Sequence[int], ranges: Sequence[Interval] | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Return the centres of all pixels of an image of `size` (H, W): (H, W, 2), last axis (row, column), float32.

    ranges  interval that each axis spans; None means [-1, 1]
    Source: yinboc/liif utils.py, make_coord. float32 as published: without the shift of a local ensemble, coordinates exactly between two
    cells are decided by its rounding.
    """
    axes = []
    for axis, length in enumerate(size):
        low, high = (-1.0, 1.0) if ranges is None else ranges[axis]
        radius = (high - low) / (2 * length)
        axes.append(low + radius + 2 * radius * torch.arange(length, dtype=torch.float32, device=device))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def nearest(features: Tensor, coordinates: Tensor) -> Tensor:
    """Return the features (B, Q, C) of the cells of (B, C, h, w) that hold the coordinates (B, Q, 2), (row, column) in [-1, 1]."""
    grid = coordinates.flip(-1)[:, None]
    return F.grid_sample(features, grid, mode="nearest", align_corners=False)[:, :, 0].mT


def cell_centres(features: Tensor) -> Tensor:
    """Return the centres of the cells of a feature map (B, C, h, w) as a map (B, 2, h, w), channels (row, column), float32 or better.

    Mixed precision must not round them: bfloat16 would place the cells of a row of 100 up to a tenth of a cell off.
    """
    precise = torch.promote_types(features.dtype, torch.float32)
    centres = pixel_centres((features.shape[-2], features.shape[-1]), device=features.device).to(precise)
    return centres.permute(2, 0, 1).expand(len(features), -1, -1, -1)


def unfold_neighbours(features: Tensor) -> Tensor:
    """Return (B, 9 C, h, w): every cell with its eight neighbours, zero beyond the border; channel = 9 c + 3 row + column."""
    return F.unfold(features, 3, padding=1).unflatten(2, (features.shape[-2], features.shape[-1]))


def steps_of(features: Tensor) -> Tensor:
    """Return (h, w) of a feature map as a tensor, float32 or better: offsets in [-1, 1] times it are measured in half cells."""
    precise = torch.promote_types(features.dtype, torch.float32)
    return constant((features.shape[-2], features.shape[-1]), features.device, precise)


def local_ensemble(
    features: Tensor, coordinates: Tensor, answer: Callable[[Tensor, Tensor], Tensor], corners: Sequence[tuple[int, int]] = CORNERS
) -> Tensor:
    """Return (B, Q, out), the answers from the cells of several corners, each weighed by the area of the opposite corner.

    features     (B, C, h, w)
    coordinates  (B, Q, 2), (row, column) in [-1, 1]
    answer       maps the features (B, Q, C) of cells and the queries' offsets from them (B, Q, 2), in half cells, to (B, Q, out)
    corners      CORNERS, or ((0, 0),) for the nearest cell alone
    Source: LIIF (Chen et al., CVPR 2021), local ensemble.
    """
    centres, size = cell_centres(features), steps_of(features)
    answers, areas = [], []
    for corner in corners:
        asked = coordinates
        if any(corner):
            asked = coordinates + (constant(corner, size.device, size.dtype) / size + EPSILON)
        asked = asked.clamp(-1 + EPSILON, 1 - EPSILON)
        offset = (coordinates - nearest(centres, asked)) * size
        answers.append(answer(nearest(features, asked), offset))
        areas.append(offset.prod(-1).abs() + 1e-9)
    weights = torch.stack(areas[::-1]) / torch.stack(areas).sum(0)
    return (torch.stack(answers) * weights[..., None]).sum(0)
