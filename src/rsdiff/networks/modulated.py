"""The residual network of DASR and DRSR: groups of blocks whose convolutions are modulated by a degradation code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.layers import shuffle_upscale

if TYPE_CHECKING:
    pass


SLOPE = 0.1


class CodeGate(nn.Module):
    """Multiplies every channel by a weight in (0, 1) made from the code: x (B, width, h, w), code (B, width)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(width, width // reduction, 1, bias=False),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(width // reduction, width, 1, bias=False),
            nn.Sigmoid(),
        )

    def weights(self, code: Tensor) -> Tensor:
        """Return the weights (B, width, 1, 1)."""
        weights: Tensor = self.gate(code[:, :, None, None])
        return weights

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return x * self.weights(code)


class ModulatedLayer(nn.Module):
    """Maps features (B, width, h, w) and a compressed code (B, width) to features of the same shape."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.gate = CodeGate(width, reduction)


Modulation = Callable[[], ModulatedLayer]


class ModulatedBlock(nn.Module):
    """Modulated layer, convolution, modulated layer, convolution, LReLU between them; plus the input."""

    def __init__(self, width: int, modulation: Modulation) -> None:
        super().__init__()
        self.modulation1 = modulation()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation2 = modulation()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = F.leaky_relu(self.modulation1(x, code), SLOPE, inplace=True)
        h = F.leaky_relu(self.conv1(h), SLOPE, inplace=True)
        h = F.leaky_relu(self.modulation2(h, code), SLOPE, inplace=True)
        return self.conv2(h) + x


class ModulatedGroup(nn.Module):
    """Blocks and a convolution; plus the input."""

    def __init__(self, width: int, blocks: int, modulation: Modulation) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ModulatedBlock(width, modulation) for _ in range(blocks))
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = x
        for block in self.blocks:
            h = block(h, code)
        return self.conv(h) + x


class ModulatedNetwork(nn.Module):
    """LR image (B, c, h, w) and degradation code (B, code_channels) -> image (B, C, scale h, scale w), in the range of its input.

    Subclasses name their modulated `layer`, made from (width, reduction): where DASR and DRSR differ.
    """

    layer: ClassVar[type[ModulatedLayer]]

    def __init__(self, options: ModulatedConfig, problem: Problem, code_channels: int) -> None:
        super().__init__()
        width = options.width
        modulation = partial(type(self).layer, width, options.reduction)
        self.compress = nn.Linear(code_channels, width, bias=False)
        self.head = nn.Conv2d(problem.lr_bands, width, 3, padding=1)
        self.groups = nn.ModuleList(ModulatedGroup(width, options.blocks, modulation) for _ in range(options.groups))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.upscale = shuffle_upscale(width, problem.bands, int(problem.scale))

    def compressed(self, code: Tensor) -> Tensor:
        """Return the code (B, width) as all modulated layers see it."""
        return F.leaky_relu(self.compress(code), SLOPE, inplace=True)

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        compressed, first = self.compressed(code), self.head(lr)
        feature = first
        for group in self.groups:
            feature = group(feature, compressed)
        enlarged: Tensor = self.upscale(self.conv_body(feature) + first)
        return enlarged


PEAK = 255.0
"""Images inside the networks are in 0..PEAK."""


@config
class ModulatedConfig:
    """The residual network of DASR and DRSR."""

    width: int = 64
    """Channels, and length of the compressed degradation code."""
    groups: int = 5
    """Residual groups."""
    blocks: int = 5
    """Blocks per group, each with two modulated layers."""
    reduction: int = 8
    """The gates made from the code squeeze it to width / reduction channels."""

    def __post_init__(self) -> None:
        if min(self.width, self.groups, self.blocks, self.reduction) < 1 or self.width < self.reduction:
            raise UserError(
                f"width={self.width}, groups={self.groups}, blocks={self.blocks}, reduction={self.reduction} make no network; "
                "choose numbers of at least 1 and a width of at least reduction."
            )
