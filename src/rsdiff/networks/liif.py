"""LIIF: the colour at any coordinate as an MLP of the nearest features, the offset from their cells and the size of the pixel.

Source: yinboc/liif, models/liif.py and mlp.py (Chen et al., CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.networks.continuous_upsampling import CORNERS, EPSILON, cell_centres, local_ensemble, nearest, steps_of, unfold_neighbours


class MLP(nn.Module):
    """Linear layers with ReLU between them, on the last axis."""

    def __init__(self, in_width: int, out_width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(in_width, width), nn.ReLU()]
            in_width = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_width, out_width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_width) to (..., out_width)."""
        return self.layers(x)


class QueryNetwork(nn.Module):
    """A network that answers at any coordinate of a feature map."""

    def prepare(self, features: Tensor, cell: Tensor) -> Tensor:
        """Return the map (B, C', h, w) that `forward` is queried on, made once per image.

        features  (B, C, h, w)
        cell      (B, 2), see `forward`
        """
        raise NotImplementedError

    def forward(self, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """Return colours (B, Q, out_channels).

        prepared     what `prepare` returned
        coordinates  (B, Q, 2), (row, column) in [-1, 1]
        cell         (B, 2), height and width of an image's queried pixels in the same units: 2 / H, 2 / W
        """
        raise NotImplementedError


@config
class LIIFNetConfig:
    """LIIF's query network."""

    hidden: tuple[int, ...] = (256, 256, 256, 256)
    """Widths of the MLP's hidden layers."""
    ensemble: bool = True
    """Average the answers of the four nearest cells."""
    unfold: bool = True
    """A cell's feature includes its eight neighbours'."""
    cell: bool = True
    """The size of the queried pixel is an input of the MLP."""


class LIIF(QueryNetwork):
    """LIIF's query network on feature maps of so many channels; an ensemble is weighed by the area of the opposite corner."""

    def __init__(self, options: LIIFNetConfig, feature_channels: int, out_channels: int) -> None:
        super().__init__()
        self.ensemble, self.unfold, self.cell = options.ensemble, options.unfold, options.cell
        width = feature_channels * (9 if options.unfold else 1) + 2 + (2 if options.cell else 0)
        self.mlp = MLP(width, out_channels, options.hidden)

    def prepare(self, features: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork; with neighbours where they are used."""
        return unfold_neighbours(features) if self.unfold else features

    def forward(self, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        told = [(cell * steps_of(prepared))[:, None].expand_as(coordinates)] if self.cell else []

        def answer(known: Tensor, offset: Tensor) -> Tensor:
            return self.mlp(torch.cat([known, offset, *told], dim=-1))

        return local_ensemble(prepared, coordinates, answer, CORNERS if self.ensemble else ((0, 0),))


@config
class MetaSRNetConfig:
    """MetaSR's query network."""

    hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the network that predicts filters."""


class MetaSR(QueryNetwork):
    """Predicts, for every target pixel, the filter that turns the nearest 3x3 features into its colour.

    Source: yinboc/liif, models/misc.py (Hu et al., CVPR 2019, on LIIF's interface). The filter receives
    the pixel's height only, so anisotropic enlargement is not seen, as published.
    """

    def __init__(self, options: MetaSRNetConfig, feature_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.mlp = MLP(3, 9 * feature_channels * out_channels, options.hidden)

    def prepare(self, features: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        return unfold_neighbours(features)

    def forward(self, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        cells = cell[:, None].expand_as(coordinates)
        size = steps_of(prepared)
        corner_of_pixel = coordinates - cells / 2
        asked = (corner_of_pixel + EPSILON).clamp(-1 + EPSILON, 1 - EPSILON)
        corners = nearest(cell_centres(prepared), asked) - 1 / size
        offset = (corner_of_pixel - corners) * size / 2
        told = torch.cat([offset, cells[..., :1] * size[0] / 2], dim=-1)
        filters = self.mlp(told).unflatten(-1, (-1, self.out_channels))
        return torch.einsum("bqc,bqco->bqo", nearest(prepared, asked), filters)
