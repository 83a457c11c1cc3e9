"""A network for any objective on images: model.network=shuffle."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.data.problem import Problem
from rsdiff.networks.restorers import RestorerConfig


@config
class ShuffleNetConfig(RestorerConfig):
    """Two convolutions and a pixel shuffle."""

    kind: ClassVar[str] = "shuffle"

    width: int = 32
    """Channels between the convolutions."""

    def refuse_network(self, problem: Problem) -> str | None:
        return problem.refuse_fraction(self.kind)

    def build_network(self, problem: Problem) -> nn.Module:
        return ShuffleNet(self, problem)


class ShuffleNet(nn.Module):
    """(B, c, h, w) -> (B, C, h scale, w scale)."""

    def __init__(self, options: ShuffleNetConfig, problem: Problem) -> None:
        super().__init__()
        scale = int(problem.scale)
        self.first = nn.Conv2d(problem.lr_bands, options.width, 3, padding=1)
        self.last_layer = nn.Conv2d(options.width, problem.bands * scale**2, 3, padding=1)
        self.enlarge = nn.PixelShuffle(scale)

    def forward(self, lr: Tensor) -> Tensor:
        return self.enlarge(self.last_layer(self.first(lr).relu()))
