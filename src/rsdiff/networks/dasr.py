"""DASR's restoration network: depthwise kernels and channel gates predicted from a degradation code (Wang et al., CVPR 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.data.problem import Problem
from rsdiff.networks.layers import filter_each
from rsdiff.networks.modulated import SLOPE, ModulatedConfig, ModulatedLayer, ModulatedNetwork

MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, of 1; images of other than three bands are shifted by its average."""


class PredictedFilter(ModulatedLayer):
    """Features filtered by predicted 3x3 depthwise kernels and mixed by a 1x1 convolution, plus the features gated by the code.

    x (B, width, h, w), code (B, width)
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__(width, reduction)
        self.kernel = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.LeakyReLU(SLOPE, inplace=True), nn.Linear(width, 9 * width, bias=False)
        )
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        kernels = self.kernel(code).view(len(x), -1, 3, 3)
        return self.mix(F.leaky_relu(filter_each(x, kernels), SLOPE)) + self.gate(x, code)


class DASRNetwork(ModulatedNetwork):
    """See ModulatedNetwork; input and output in 0..255, shifted by the mean colour before and after.

    The shifts are frozen 1x1 convolutions, as in the released files, which hold their weights.
    """

    layer = PredictedFilter

    def __init__(self, options: ModulatedConfig, problem: Problem, code_channels: int) -> None:
        super().__init__(options, problem, code_channels)
        self.subtract_mean = _shift(problem.lr_bands, -255.0)
        self.add_mean = _shift(problem.bands, 255.0)

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        shifted: Tensor = self.add_mean(super().forward(self.subtract_mean(lr), code))
        return shifted


def _shift(bands: int, factor: float) -> nn.Conv2d:
    """Return a frozen convolution that adds `factor` times the mean colour."""
    conv = nn.Conv2d(bands, bands, 1)
    mean = MEAN if bands == len(MEAN) else (sum(MEAN) / len(MEAN),) * bands
    with torch.no_grad():
        conv.weight.copy_(torch.eye(bands)[:, :, None, None])
        assert conv.bias is not None
        conv.bias.copy_(factor * torch.tensor(mean))
    return conv.requires_grad_(False)
