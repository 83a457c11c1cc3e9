"""LMF: a latent MLP at the resolution of the input makes the modulations of a tiny MLP that renders the pixels.

Of the three query networks, `prepare` is the latent stage and `forward` the rendering. The modulations lead the channels of what
`prepare` returns: the scales of all layers, then their shifts.
Source: HeZongyao/LMF, models/lmlte.py, lmliif.py, lmciaosr.py, lmmlp.py (He and Jin, CVPR 2024).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.data.transfer import constant
from rsdiff.networks.continuous_upsampling import CORNERS, local_ensemble, steps_of, unfold_neighbours
from rsdiff.networks.cross_scale_attention import CrossScaleAttention
from rsdiff.networks.liif import MLP, QueryNetwork
from rsdiff.networks.lte import FourierMaps, fourier, require_even


class ModulatedMLP(nn.Module):
    """Linear layers whose outputs y become ReLU(y (1 + scale) + shift), with scales and shifts per query; the last one is plain."""

    def __init__(self, in_width: int, out_width: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [in_width, *[width] * depth, out_width]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.modulations = 2 * depth * width

    def forward(self, x: Tensor, modulations: Tensor) -> Tensor:
        """Map (..., in_width) and (..., modulations) to (..., out_width)."""
        scales, shifts = (part.chunk(len(self.layers) - 1, dim=-1) for part in modulations.chunk(2, dim=-1))
        for layer, scale, shift in zip(self.layers[:-1], scales, shifts, strict=True):
            x = F.relu(layer(x) * (1 + scale) + shift)
        return self.layers[-1](x)


def at_cells(mlp: nn.Module, maps: Tensor) -> Tensor:
    """Return the map (B, out, h, w) that an MLP on the last axis makes of every cell of (B, C, h, w)."""
    return mlp(maps.movedim(1, -1)).movedim(-1, 1)


def told_map(cell: Tensor, features: Tensor) -> Tensor:
    """Return (B, 2, h, w): height and width of the queried pixels in half cells, the same at every cell."""
    return (cell * steps_of(features))[:, :, None, None].expand(-1, -1, *features.shape[-2:])


class LMFNetwork(QueryNetwork):
    """What the three query networks have in common."""

    render: ModulatedMLP

    def difficulty(self, prepared: Tensor) -> Tensor:
        """Return the mean size of the shifts of every cell, (B, h, w): large where the texture is."""
        count = self.render.modulations
        return prepared[:, count // 2 : count].abs().mean(1)


@config
class LMFNetConfig:
    """What the three query networks have in common. The defaults are those of EDSR-baseline."""

    hidden: tuple[int, ...] = (288,)
    """Widths of the latent MLP's hidden layers."""
    render_width: int = 16
    """Width of the rendering MLP."""
    render_depth: int = 8
    """Hidden layers of the rendering MLP."""
    compress: bool = True
    """Render from codes that the latent MLP makes, instead of the features themselves."""

    def __post_init__(self) -> None:
        require_even("render_width", self.render_width)


@config
class LMFLTENetConfig(LMFNetConfig):
    """LTE's query network on LMF."""

    width: int = 128
    """Amplitudes and frequencies per cell, even."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_even("width", self.width)


class LMFLTE(LMFNetwork):
    """LTE's interface on LMF: the latent stage sees the texture at the middle of a cell, the rendering its compressed code."""

    def __init__(self, options: LMFLTENetConfig, feature_channels: int, out_channels: int) -> None:
        super().__init__()
        width, compress, render_width = options.width, options.compress, options.render_width
        self.maps = FourierMaps(feature_channels, width)
        seen = render_width if compress else width
        self.render = ModulatedMLP(seen, out_channels, render_width, options.render_depth)
        self.latent = MLP(width, self.render.modulations + (2 * seen if compress else 0), options.hidden)
        self.render_phase = nn.Linear(2, seen // 2, bias=False) if compress else None

    def prepare(self, features: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        amplitude, frequency = self.maps.amplitude(features), self.maps.frequency(features)
        phase = self.maps.phase(cell * steps_of(features))[:, None, None]
        middle = fourier(frequency.movedim(1, -1), torch.ones_like(phase[..., :2]), phase).movedim(-1, 1)
        made = at_cells(self.latent, amplitude * middle)
        return made if self.render_phase is not None else torch.cat([made, amplitude, frequency], dim=1)

    def forward(self, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        phase = (self.maps.phase if self.render_phase is None else self.render_phase)(cell * steps_of(prepared))[:, None]

        def answer(known: Tensor, offset: Tensor) -> Tensor:
            modulations, code = known.tensor_split([self.render.modulations], dim=-1)
            amplitude, frequency = code.chunk(2, dim=-1)
            return self.render(amplitude * fourier(frequency, offset, phase), modulations)

        return local_ensemble(prepared, coordinates, answer)


@config
class LMFLIIFNetConfig(LMFNetConfig):
    """LIIF's query network on LMF."""

    hidden: tuple[int, ...] = (208,)
    """Widths of the latent MLP's hidden layers."""
    render_depth: int = 6
    """Hidden layers of the rendering MLP; published with SwinIR: 8."""
    ensemble: bool = True
    """Average the answers of the four nearest cells."""
    unfold: bool = True
    """The latent MLP sees a cell's eight neighbours."""
    cell: bool = True
    """The size of the queried pixel is an input of both MLPs."""


class LMFLIIF(LMFNetwork):
    """LIIF on LMF."""

    def __init__(self, options: LMFLIIFNetConfig, feature_channels: int, out_channels: int) -> None:
        super().__init__()
        self.compress, self.ensemble, self.unfold, self.cell = options.compress, options.ensemble, options.unfold, options.cell
        told = 2 if options.cell else 0
        seen = options.render_width if options.compress else feature_channels
        self.render = ModulatedMLP(seen + 2 + told, out_channels, options.render_width, options.render_depth)
        codes = self.render.modulations + (seen if options.compress else 0)
        self.latent = MLP(feature_channels * (9 if options.unfold else 1) + told, codes, options.hidden)

    def prepare(self, features: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        seen = unfold_neighbours(features) if self.unfold else features
        made = at_cells(self.latent, torch.cat([seen, told_map(cell, features)], dim=1) if self.cell else seen)
        return made if self.compress else torch.cat([made, features], dim=1)

    def forward(self, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        told = [(cell * steps_of(prepared))[:, None].expand_as(coordinates)] if self.cell else []

        def answer(known: Tensor, offset: Tensor) -> Tensor:
            modulations, code = known.tensor_split([self.render.modulations], dim=-1)
            return self.render(torch.cat([code, offset, *told], dim=-1), modulations)

        return local_ensemble(prepared, coordinates, answer, CORNERS if self.ensemble else ((0, 0),))


@config
class LMFCiaoSRNetConfig(LMFNetConfig):
    """CiaoSR's query network on LMF."""

    query_hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the MLP that makes the attention's queries."""
    attention_hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the MLPs that weigh keys and values."""
    temperature: float = 1.0
    """Divides the attention's scores."""
    scales: tuple[Literal[2, 3, 4], ...] = (2,)
    """Scales of the non-local features; without any there are none."""
    attention_tile: int = 48
    """Non-local features are found within parts of about so many LR pixels a side; 0 means in the whole image."""


class LMFCiaoSR(LMFNetwork):
    """CiaoSR on LMF: attention at the resolution of the input only.

    Kept of the published code, whose weights depend on it: the 3x3 neighbourhood is regrouped before its corners are taken (unfolding
    puts channels first), rows and columns of the corners are exchanged, and the offset of a corner is divided by the size twice.
    """

    def __init__(self, options: LMFCiaoSRNetConfig, feature_channels: int, out_channels: int) -> None:
        super().__init__()
        self.compress, self.temperature = options.compress, options.temperature
        scales, hidden, render_width = options.scales, options.attention_hidden, options.render_width
        key = 4 * feature_channels
        value = key + len(scales) * feature_channels
        self.attention = CrossScaleAttention(feature_channels, scales, options.attention_tile) if scales else None
        self.mlp_query = MLP(9 * feature_channels, key, options.query_hidden)
        self.mlp_key = MLP(key + 4, key, hidden)
        self.mlp_value = MLP(value + 4, value, hidden)
        seen = 2 * render_width if options.compress else value
        self.render = ModulatedMLP(seen + 2, out_channels, render_width, options.render_depth)
        self.latent = MLP(value, self.render.modulations + (seen if options.compress else 0), options.hidden)

    def prepare(self, features: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        neighbours = unfold_neighbours(features).movedim(1, -1)
        regrouped = neighbours.unflatten(-1, (3, 3, -1))
        size, told = steps_of(features), told_map(cell, features).movedim(1, -1)
        query = self.mlp_query(neighbours)
        further = [] if self.attention is None else [self.attention(features).movedim(1, -1)]
        scores, values = [], []
        for row, column in CORNERS:
            first, second = max(column, 0), max(row, 0)
            key = regrouped[..., first : first + 2, second : second + 2, :].flatten(-3)
            value = torch.cat([key, *further], dim=-1)
            position = (constant((-row, -column), size.device, size.dtype) / size).expand_as(told)
            scores.append((query * key * self.mlp_key(torch.cat([key, position, told], dim=-1))).sum(-1))
            values.append(value * self.mlp_value(torch.cat([value, position, told], dim=-1)))
        weights = (torch.stack(scores) / self.temperature).softmax(dim=0)
        attended = (torch.stack(values) * weights[..., None]).sum(0)
        made = self.latent(attended)
        return (made if self.compress else torch.cat([made, attended], dim=-1)).movedim(-1, 1)

    def forward(self, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork; the rendering is not told the size of the pixels."""

        def answer(known: Tensor, offset: Tensor) -> Tensor:
            modulations, code = known.tensor_split([self.render.modulations], dim=-1)
            return self.render(torch.cat([code, offset], dim=-1), modulations)

        return local_ensemble(prepared, coordinates, answer)
