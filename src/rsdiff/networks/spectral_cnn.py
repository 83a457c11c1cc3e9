"""A plain residual CNN from few bands to many at the same pixels."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.restorers import RestorerConfig


class SpectralBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3, zero-padded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


@config
class SpectralCNNNetConfig(RestorerConfig):
    """The CNN; the defaults have about 1.2 million parameters for 3 -> 48 bands."""

    kind: ClassVar[str] = "spectral_cnn"

    width: int = 64
    """Channels of the features."""
    blocks: int = 16
    """Residual blocks."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 1:
            raise UserError(f"width={self.width}, blocks={self.blocks} make no network; choose numbers of at least 1.")

    def refuse_network(self, problem: Problem) -> str | None:
        return problem.refuse_other_scales(self.kind)

    def build_network(self, problem: Problem) -> SpectralCNN:
        return SpectralCNN(self, problem.lr_bands, problem.bands)

    def last_layer(self, network: nn.Module) -> nn.Module:
        raise UserError("network spectral_cnn begins at a linear map of its own and is added to nothing; set model.base=none.")


class SpectralCNN(nn.Module):
    """forward(lr (B, in_bands, H, W)) -> (B, out_bands, H, W): a linear map of every pixel's bands plus what residual blocks add to it."""

    def __init__(self, options: SpectralCNNNetConfig, in_bands: int, out_bands: int) -> None:
        super().__init__()
        width, blocks = options.width, options.blocks
        self.linear = nn.Conv2d(in_bands, out_bands, 1)
        self.head = nn.Conv2d(in_bands, width, 3, padding=1)
        self.body = nn.Sequential(*(SpectralBlock(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, out_bands, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        return self.linear(lr) + self.tail(self.body(self.head(lr)))
