"""How images of any band count and range are shown: three bands, stretched alike for all images that stand side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Display:
    """Which bands are red, green and blue, and the values shown as black and white of each.

    Make it once per scene (`display_of`) and apply it to LR, restored image and reference, so that they are comparable by eye.
    """

    bands: tuple[int, int, int]
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def picture(self, image: Tensor) -> Picture:
        """Return `image` (C, H, W) as (H, W, 3) uint8; NaN (nodata) is shown as mid-grey."""
        planes = image.detach().double().cpu()[list(self.bands)]
        low = torch.tensor(self.low, dtype=torch.float64)[:, None, None]
        high = torch.tensor(self.high, dtype=torch.float64)[:, None, None]
        shown = ((planes - low) / (high - low)).nan_to_num(nan=0.5, posinf=1, neginf=0).clamp(0, 1)
        picture: Picture = (shown * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return picture


def display_of(image: Tensor, rgb_bands: tuple[int, int, int] = (0, 1, 2)) -> Display:
    """Return how to show `image` (C, H, W) in [0, 1] and its relatives.

    1 or 2 bands: the first as grey. 3 bands: as they are, black 0 and white 1, since they are photographs. More: `rgb_bands`, each
    stretched between its 1 % and 99 % quantile, since reflectance and radiance fill a small part of [0, 1].
    """
    count = image.shape[0]
    if count < 3:
        return Display((0, 0, 0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    bands = rgb_bands if max(rgb_bands) < count else (0, 1, 2)
    if count == 3:
        return Display(bands, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    low, high = [], []
    for band in bands:
        values = image[band].detach().double().cpu().numpy()
        values = values[np.isfinite(values)]
        first, last = (float(q) for q in np.quantile(values, (0.01, 0.99))) if values.size else (0.0, 1.0)
        low.append(first)
        high.append(last if last > first else first + 1.0)
    return Display(bands, (low[0], low[1], low[2]), (high[0], high[1], high[2]))


def enlarged(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return `picture` (h, w, 3) enlarged to (H, W) by repeating its pixels, so that every input pixel can be seen."""
    height, width = size
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    grown: Picture = picture[rows[:, None], columns[None, :]]
    return grown


def busiest_window(image: Tensor, share: float = 0.25) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the square with the most detail: the largest mean gradient of the band mean.

    share  side of the square as a share of the image's shorter side
    """
    gray = image.detach().double().cpu().mean(0).nan_to_num(0.0)
    side = max(8, round(min(gray.shape) * share))
    side = min(side, *gray.shape)
    detail = torch.zeros_like(gray)
    detail[1:, 1:] = (gray[1:, 1:] - gray[:-1, 1:]).abs() + (gray[1:, 1:] - gray[1:, :-1]).abs()
    # Cumulative sums: the mean over every window in one pass, whatever its size.
    total = torch.nn.functional.pad(detail.cumsum(0).cumsum(1), (1, 0, 1, 0))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    best = int(sums.argmax())
    return best // sums.shape[1], best % sums.shape[1], side, side
