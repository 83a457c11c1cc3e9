"""A plain residual CNN from few bands to many at the same pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SpectralBlock(nn.Module):
    """x + conv(relu(conv(x))), 3x3, zero-padded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class SpectralCNN(nn.Module):
    """forward(lr (B, in_bands, H, W)) -> (B, out_bands, H, W): a linear map of every pixel's bands plus what residual blocks add to it."""

    def __init__(self, *, in_bands: int, out_bands: int, width: int, blocks: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(in_bands, out_bands, 1)
        self.head = nn.Conv2d(in_bands, width, 3, padding=1)
        self.body = nn.Sequential(*(SpectralBlock(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, out_bands, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        return self.linear(lr) + self.tail(self.body(self.head(lr)))
