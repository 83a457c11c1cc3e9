"""CMSR: parts of an image that are easy are rendered at a smaller scale and enlarged bilinearly; for the methods of LMF.

What is easy is seen from the modulations of a cell: `LMFNetwork.difficulty`. A table says, for a target scale, up to which difficulty each
smaller scale will do. Coordinates of queries are those of `rsdiff.networks.continuous_upsampling`.
Source: HeZongyao/LMF, models/lmlte.py and init_cmsr.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ReadWith, Such
from rsdiff.methods.continuous import ContinuousRegression, cell_of, enlarged_at
from rsdiff.networks.continuous_upsampling import cell_centres, nearest, pixel_centres
from rsdiff.networks.lmf import LMFNetwork

LEAST_QUERIES = 16  # per LR pixel: smaller enlargements are rendered as a whole
TOLD_UP_TO = 4
CANDIDATES = 101  # difficulties 0, 0.005, .. 0.5
CANDIDATE_STEP, CANDIDATE_RADIUS = 0.005, 0.001

Row = Mapping[float, float]
"""decode scale -> highest difficulty that it will do for, ascending"""


@config
class CMSRConfig:
    """When to render at a smaller scale."""

    read_with: ClassVar[ReadWith] = {"clamp": ("table", (Such("[[SCALE,SCALE,THRESHOLD]]", bool),))}

    table: tuple[tuple[float, ...], ...] = ()
    """Rows (target scale, decode scale, threshold, decode scale, threshold, ..), both ascending; without rows everything is rendered."""
    clamp: Annotated[bool, Ours("sampling", published=(True,))] = False
    """Query the coarse levels no further out than the outermost LR pixel centres, as published; the weights there are rounding noise."""

    def __post_init__(self) -> None:
        uneven = next((row for row in self.table if len(row) < 3 or len(row) % 2 == 0), None)
        if uneven is not None:
            raise UserError(f"cmsr.table has the row {list(uneven)}; give a target scale, then pairs of a decode scale and a threshold.")

    def row(self, scale: float) -> Row | None:
        """Return the row for an enlargement: the first that reaches it, else the last."""
        if not self.table:
            return None
        chosen = next((row for row in self.table if row[0] >= scale), self.table[-1])
        return dict(zip(chosen[1::2], chosen[2::2], strict=True))


@dataclass(frozen=True)
class ByDifficulty:
    """Restores images as `ContinuousRegression` does, their easy parts from smaller scales."""

    options: CMSRConfig

    def __call__(self, method: ContinuousRegression, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the image (B, C, H, W) of `size`, unbounded and normalised as lr (B, C, h, w) is."""
        h, w = lr.shape[-2:]
        row = self.options.row(math.sqrt(size[0] * size[1] / (h * w)))
        if row is None or size[0] * size[1] <= LEAST_QUERIES * h * w:
            return method.predict(lr, size)
        return torch.cat([self.by_levels(method, image[None], size, row) for image in lr])

    def by_levels(self, method: ContinuousRegression, lr: Tensor, size: tuple[int, int], row: Row) -> Tensor:
        """Return the same of one image (1, C, h, w); SwinIR's border is not mirrored here."""
        h, w = lr.shape[-2:]
        scale = math.sqrt(size[0] * size[1] / (h * w))
        told = (cell_of(size) * max(scale / TOLD_UP_TO, 1)).to(lr)[None]
        prepared = method.network.prepare(method.encoder(lr), told)
        difficulty = network_of(method).difficulty(prepared)[:, None]
        image, reached = lr, (h, w)
        for decode, low, high in levels_of(row, scale):
            reached = size if decode == scale else (int(h * decode), int(w * decode))
            asked = self.coordinates(lr, reached)
            here = nearest(difficulty, asked[None])[0, :, 0]
            chosen = (here >= low) & (here <= high)
            if not bool(chosen.any()):
                continue
            cell = (cell_of(reached) * max(decode / TOLD_UP_TO, 1)).to(lr)[None]
            canvas = enlarged_at(image, asked[None])[0]
            canvas[chosen] = method.render(lr, prepared, asked[chosen], cell)[0].mT
            image = canvas.mT.unflatten(1, reached)[None]
        if image.shape[-2:] != size:
            asked = pixel_centres(size, device=lr.device).to(lr.dtype).flatten(0, 1)
            image = enlarged_at(image, asked[None]).mT.unflatten(2, size)
        return image

    def coordinates(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return where a level of `size` is queried, (H W, 2)."""
        if not self.options.clamp:
            return pixel_centres(size, device=lr.device).to(lr.dtype).flatten(0, 1)
        centres = F.interpolate(cell_centres(lr), size, mode="bilinear", align_corners=False)
        return centres[0].flatten(1).mT


def network_of(method: ContinuousRegression) -> LMFNetwork:
    """Return the query network of a method of LMF."""
    assert isinstance(method.network, LMFNetwork), f"{type(method.network).__name__} does not tell difficulties"
    return method.network


def levels_of(row: Row, scale: float) -> list[tuple[float, float, float]]:
    """Return (decode scale, lowest, highest difficulty) of the levels to render for an enlargement by `scale`, coarse to fine.

    The first level takes everything that is easier too, the last everything that is harder.
    """
    decode = [d for d in row if d < scale]
    thresholds = [0.0, *(row[d] for d in decode)]
    if thresholds[-1] < 1:
        decode.append(scale)
        thresholds.append(1.0)
    levels = [(d, low, high) for d, low, high in zip(decode, thresholds, thresholds[1:], strict=False) if d >= 1]
    last = len(levels) - 1
    return [(d, -math.inf if i == 0 and i != last else low, math.inf if i == last else high) for i, (d, low, high) in enumerate(levels)]


@torch.no_grad()
def build_row(
    method: ContinuousRegression, images: Sequence[Tensor], scale: int, tolerance: float, decode_scales: Sequence[float]
) -> dict[float, float]:
    """Return the row for an enlargement by `scale`: up to which difficulty each decode scale stays near the full rendering.

    images         normalised LR images (1, C, h, w), worked through one after the other
    tolerance      mean squared difference between the full rendering and an enlarged coarse one, in normalised units
    decode_scales  ascending, the last one `scale`
    """
    row = {float(d): 1.0 for d in decode_scales}
    for lr in images:
        _tighten(method, lr, scale, tolerance, row)
    return row


def _tighten(method: ContinuousRegression, lr: Tensor, scale: int, tolerance: float, row: dict[float, float]) -> None:
    """Lower the thresholds of a row to what one image allows."""
    h, w = lr.shape[-2:]
    size = (h * scale, w * scale)
    told = (cell_of(size) * max(scale / TOLD_UP_TO, 1)).to(lr)[None]
    features = method.encoder(lr)
    prepared = method.network.prepare(features, told)
    asked = pixel_centres(size, device=lr.device).to(lr.dtype).flatten(0, 1)
    full = method.render(lr, prepared, asked, told)[0].mT
    difficulty = nearest(network_of(method).difficulty(prepared)[:, None], asked[None])[0, :, 0]
    candidates = [CANDIDATE_STEP * k for k in range(CANDIDATES)]
    threshold = 0.0
    for decode in [d for d in row if d < scale]:
        tested = False
        coarse_size = (int(h * decode), int(w * decode))
        cell = cell_of(coarse_size).to(lr)[None]
        coordinates = pixel_centres(coarse_size, device=lr.device).to(lr.dtype).flatten(0, 1)
        coarse = method.render(lr, prepared, coordinates, cell).unflatten(2, coarse_size)
        squared = (enlarged_at(coarse, asked[None])[0] - full).square().mean(-1)
        for candidate in list(candidates):
            near = (difficulty - candidate).abs() <= CANDIDATE_RADIUS
            if not bool(near.any()):
                continue
            tested = True
            if float(squared[near].mean()) > tolerance:
                break
            threshold = candidate
            candidates.remove(candidate)
        if tested:  # else all that the image has is easy for smaller scales already
            _lower(row, decode, threshold)
    if candidates:
        _lower(row, float(scale), candidates[-1])


def _lower(row: dict[float, float], decode: float, threshold: float) -> None:
    """Lower the threshold of a decode scale, and those of smaller ones to no more than it."""
    row[decode] = min(row[decode], threshold)
    for smaller in [d for d in row if d < decode]:
        row[smaller] = min(row[smaller], row[decode])
