"""Images of any size from a feature map: the geometry that all such networks share, and heads that need no other file.

Pixel centres lie in [-1, 1], rows first. All geometry is that of align_corners=False: an axis of n pixels spans [-1, 1] and the centre of
pixel i lies at -1 + (2 i + 1) / n. The heads are the CSUM of SADN and LDCSR, and what LDCSR's ablations put in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from rsdiff.config import UserError, config
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


GATE_WIDTH = 64


@config
class CSUMConfig:
    """Sizes of the upsampler, those of LDCSR."""

    levels: int = 4
    """Feature maps that are enlarged 1, 2, 4, .. times before they are resized."""
    fuse_width: int = 256
    """Channels of the upsampler's layers at target size."""
    interpolate: Literal["bilinear", "bicubic"] = "bilinear"
    """How the upsampler resizes."""
    normalise: bool = False
    """Weight normalisation in the upsampler (SADN)."""


class CSUM(nn.Module):
    """Continuous-scale upsampling: maps of 1, 2, 4, .. times the size, resized to the target, weighted by the scale and fused per pixel.

    forward(x, (H, W)) -> (B, out_channels, H, W), of one map (B, width, h, w) for all levels or a map for each (SADN). The weights are
    told h / H, rows only, for the whole batch.
    Source: MoooJianG/LDCSR, modules/upsampler.py, SADNUpsampler; hanlinwu/SADN, archs/upsampler.py, UPLayer_MS_V9 and UPLayer_MS_WN.
    """

    def __init__(self, options: CSUMConfig, width: int, out_channels: int) -> None:
        super().__init__()
        levels, fuse_width = options.levels, options.fuse_width
        self.interpolate: Literal["bilinear", "bicubic"] = options.interpolate
        self.doublings = nn.ModuleList(nn.Conv2d(width, 4 * width, 3, padding=1) for _ in range(levels - 1))
        self.gate = nn.Sequential(nn.Linear(1, GATE_WIDTH), nn.ReLU(), nn.Linear(GATE_WIDTH, levels))
        widths = [levels * width, *[fuse_width] * 4]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        self.fuse = nn.Sequential(*layers, nn.Conv2d(fuse_width, out_channels, 1))
        if options.normalise:
            for layer in list(self.modules()):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    weight_norm(layer)

    @property
    def last_layer(self) -> nn.Conv2d:
        """The layer that makes the image; adaptive loss weights are measured at its weights."""
        last = self.fuse[-1]
        assert isinstance(last, nn.Conv2d)
        return last

    def weights(self, h: int, H: int) -> Tensor:
        """Return the weight of each level in (0, 1), (levels,), for h rows that become H."""
        first = self.gate[0]
        assert isinstance(first, nn.Linear)
        scale = torch.full((1,), h / H, dtype=first.weight.dtype, device=first.weight.device)
        return self.gate(scale).sigmoid()

    def forward(self, x: Tensor | Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        shared = isinstance(x, Tensor)
        current = x if isinstance(x, Tensor) else x[0]
        weights = self.weights(current.shape[-2], size[0])
        maps = []
        for level in range(len(self.doublings) + 1):
            current, done = (current, level - 1) if shared else (x[level], 0)
            for doubling in self.doublings[max(done, 0) : level]:
                current = F.pixel_shuffle(doubling(current), 2)
            maps.append(F.interpolate(current, size=size, mode=self.interpolate, align_corners=False) * weights[level])
        return self.fuse(torch.cat(maps, dim=1))


class NearestMLP(nn.Module):
    """An MLP of the nearest feature and the target pixel's offset from its cell, in half cells; stands in for the CSUM in an ablation.

    forward(x (B, width, h, w), (H, W)) -> (B, out_channels, H, W). Source: MoooJianG/LDCSR, modules/upsampler.py, MLP_Interpolate.
    """

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width + 2, width), nn.ReLU(), nn.Linear(width, out_channels))

    @property
    def last_layer(self) -> nn.Linear:
        """See CSUM."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        return last

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        coordinates = pixel_centres(size, device=x.device).to(x.dtype).flatten(0, 1).expand(len(x), -1, -1)
        offsets = (coordinates - nearest(cell_centres(x), coordinates)) * steps_of(x)
        values = self.layers(torch.cat([nearest(x, coordinates), offsets], dim=-1))
        return values.mT.unflatten(2, size)


class FixedX4(nn.Module):
    """Pixel shuffling to exactly four times the size: what LDCSR's fixed-scale variant has in place of the CSUM."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.shuffle = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.PReLU(width),
            nn.Conv2d(width, out_channels, 3, padding=1),
        )

    @property
    def last_layer(self) -> nn.Conv2d:
        """See CSUM."""
        last = self.shuffle[-1]
        assert isinstance(last, nn.Conv2d)
        return last

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return (B, out_channels, 4 h, 4 w); raises UserError when `size` is another one."""
        if size != (4 * x.shape[-2], 4 * x.shape[-1]):
            raise UserError(
                f"{x.shape[-2]}x{x.shape[-1]} pixels were to become {size[0]}x{size[1]} by a network that only enlarges by 4; use scale=4."
            )
        return self.shuffle(x)
