"""CiaoSR: attention over neighbouring cells, with non-local features among the values, in place of LIIF's ensemble.

Source: caojiezhang/CiaoSR, sr_backbones/ciaosr_net.py (Cao et al., CVPR 2023).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.transfer import constant
from rsdiff.networks.continuous_upsampling import EPSILON, cell_centres, nearest, steps_of, unfold_neighbours
from rsdiff.networks.cross_scale_attention import CrossScaleAttention
from rsdiff.networks.liif import MLP, QueryNetwork


@config
class CiaoSRNetConfig:
    """CiaoSR's query network."""

    hidden: tuple[int, ...] = (256, 256, 256, 256)
    """Widths of the hidden layers of the three MLPs."""
    neighbourhood: Literal[1, 2, 3] = 2
    """Cells a side that are attended to."""
    unfold: bool = True
    """A cell's feature includes its eight neighbours'."""
    temperature: float = 1.0
    """Divides the attention's scores."""
    scales: tuple[Literal[2, 3, 4], ...] = (2,)
    """Scales of the non-local features; without any there are none."""
    attention_tile: int = 0
    """Non-local features are found within parts of about so many LR pixels a side (LMF's copy: 48); 0 means in the whole image."""


class CiaoSR(QueryNetwork):
    """The query network. Its answers are added to the bilinearly enlarged image.

    The published code without `unfold` fails where there are non-local features.
    """

    def __init__(self, options: CiaoSRNetConfig, feature_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shifts = {1: (0,), 2: (-1, 1), 3: (-1, 0, 1)}[options.neighbourhood]
        self.temperature, self.unfold = options.temperature, options.unfold
        self.local = (9 if options.unfold else 1) * feature_channels
        hidden, scales = options.hidden, options.scales
        width = self.local + len(scales) * feature_channels
        self.attention = CrossScaleAttention(feature_channels, scales, options.attention_tile) if scales else None
        self.mlp_key = MLP(self.local + 4, self.local, hidden)
        self.mlp_value = MLP(width + 4, width, hidden)
        self.mlp_query = MLP(width, out_channels, hidden)

    def prepare(self, features: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        local = unfold_neighbours(features) if self.unfold else features
        return local if self.attention is None else torch.cat([local, self.attention(features)], dim=1)

    def forward(self, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        size, centres = steps_of(prepared), cell_centres(prepared)
        # As published: not half a cell but (1 - pixel) / (cells - 1), and the query itself is not moved off the line between two cells.
        step = ((1 - cell) / (size - 1).clamp_min(1))[:, None]
        told = (cell * size)[:, None].expand_as(coordinates)
        query = nearest(prepared[:, : self.local], coordinates)
        scores, values = [], []
        for row in self.shifts:
            for column in self.shifts:
                moved = constant((row, column), size.device, size.dtype)
                asked = (coordinates + moved * step + EPSILON * moved.abs()).clamp(-1 + EPSILON, 1 - EPSILON)
                offset = (coordinates - nearest(centres, asked)) * size
                value = nearest(prepared, asked)
                key = value[..., : self.local]
                scores.append((query * key * self.mlp_key(torch.cat([key, offset, told], dim=-1))).sum(-1))
                values.append(value * self.mlp_value(torch.cat([value, offset, told], dim=-1)))
        weights = (torch.stack(scores) / self.temperature).softmax(dim=0)
        return self.mlp_query((torch.stack(values) * weights[..., None]).sum(0))
