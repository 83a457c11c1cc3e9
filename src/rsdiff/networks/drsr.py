"""DRSR's restoration network: a degradation code enters every layer as constant maps and as a channel gate (Xiao et al., 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.networks.modulated import SLOPE, ModulatedLayer, ModulatedNetwork

MAPS = 10
"""Constant maps that the code becomes in every layer."""


class DualModulation(ModulatedLayer):
    """Convolutions of the features beside maps made from the code, plus the features gated by the code.

    x (B, width, h, w), code (B, width). The paper's figure gates once per block; the released code gates in every modulated layer.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__(width, reduction)
        self.maps = nn.Sequential(nn.Linear(width, MAPS, bias=False), nn.LeakyReLU(SLOPE, inplace=True), nn.Linear(MAPS, MAPS, bias=False))
        self.conv1 = nn.Conv2d(width + MAPS, width // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width, 3, padding=1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        maps = self.maps(code)[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        h = F.leaky_relu(self.conv1(torch.cat([x, maps], dim=1)), SLOPE, inplace=True)
        return self.conv2(h) + self.gate(x, code)


class DRSRNetwork(ModulatedNetwork):
    """See ModulatedNetwork; input and output in 0..255."""

    layer = DualModulation
