"""LTE: colours from predicted amplitudes and frequencies of a local texture, at any coordinate.

Source: jaewon-lee-b/lte, models/lte.py and ltep.py (Lee and Jin, CVPR 2022).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.continuous_upsampling import local_ensemble, steps_of
from rsdiff.networks.liif import MLP, QueryNetwork

Pairing = Literal["neighbours", "halves"]


def fourier(frequencies: Tensor, offset: Tensor, phase: Tensor, pairing: Pairing = "neighbours") -> Tensor:
    """Return [cos(pi g), sin(pi g)] (..., D) of g_k = <frequency k, offset> + phase_k.

    frequencies  (..., D), D / 2 pairs (row, column)
    offset       (..., 2)
    phase        (..., D / 2)
    pairing      whether a pair is two neighbouring channels (LTE) or one channel of either half (LTE+)
    """
    pairs = frequencies.unflatten(-1, (-1, 2)) if pairing == "neighbours" else frequencies.unflatten(-1, (2, -1)).mT
    angle = math.pi * ((pairs * offset[..., None, :]).sum(-1) + phase)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def require_even(name: str, value: int) -> None:
    """Raise UserError for an option that must be even and is not: half of such channels are cosines."""
    if value < 2 or value % 2:
        raise UserError(f"{name}={value} was given; choose an even number of at least 2.")


class FourierMaps(nn.Module):
    """Amplitudes and frequencies (B, width, h, w) each of a feature map, and the phase that the size of a pixel shifts them by."""

    def __init__(self, feature_channels: int, width: int) -> None:
        super().__init__()
        self.amplitude = nn.Conv2d(feature_channels, width, 3, padding=1)
        self.frequency = nn.Conv2d(feature_channels, width, 3, padding=1)
        self.phase = nn.Linear(2, width // 2, bias=False)


@config
class LTENetConfig:
    """LTE's query network."""

    width: int = 256
    """Amplitudes and frequencies per cell, even."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the MLP's hidden layers."""
    pairing: Pairing = "neighbours"
    """Channels that make a frequency's row and column: neighbours (LTE), or one of either half (LTE+)."""

    def __post_init__(self) -> None:
        require_even("width", self.width)


class LTE(QueryNetwork):
    """The query network. Its answers are added to the bilinearly enlarged image."""

    def __init__(self, options: LTENetConfig, feature_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pairing = options.pairing
        self.maps = FourierMaps(feature_channels, options.width)
        self.mlp = MLP(options.width, out_channels, options.hidden)

    def prepare(self, features: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        return torch.cat([self.maps.amplitude(features), self.maps.frequency(features)], dim=1)

    def forward(self, prepared: Tensor, coordinates: Tensor, cell: Tensor) -> Tensor:
        """See QueryNetwork."""
        phase = self.maps.phase(cell * steps_of(prepared))[:, None]

        def answer(known: Tensor, offset: Tensor) -> Tensor:
            amplitude, frequency = known.chunk(2, dim=-1)
            return self.mlp(amplitude * fourier(frequency, offset, phase, self.pairing))

        return local_ensemble(prepared, coordinates, answer)
