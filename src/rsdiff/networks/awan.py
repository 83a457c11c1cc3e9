"""AWAN: the adaptive weighted attention network, for spectral super-resolution.

Source: caiyuanhao1998/MST-plus-plus, architecture/AWAN.py. Convolutions are padded by reflection and lack biases; every PReLU has one
slope. Channel weights and the second-order attention see all pixels (of a quadrant): the result of a tile differs from the whole image's.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.layers import attended
from rsdiff.networks.restorers import RestorerConfig

SECOND_ORDER_REDUCTION = 8
"""Bands per channel of the second-order attention; fewer bands than this leave it none."""
SQUEEZE = 16


def conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    """Return a convolution that keeps the size of the image, padded by reflection, without bias."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2, padding_mode="reflect", bias=False)


class ChannelWeights(nn.Module):
    """x times weights per channel, from a mean of x over pixels that is weighted by a softmax over them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pixels = nn.Conv2d(channels, 1, 1, bias=False)
        self.squeeze = nn.Linear(channels, channels // SQUEEZE, bias=False)
        self.relu = nn.PReLU()
        self.excite = nn.Linear(channels // SQUEEZE, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.pixels(x).flatten(2).softmax(-1)
        pooled = (x.flatten(2) @ weights.mT)[..., 0]
        return x * self.excite(self.relu(self.squeeze(pooled))).sigmoid()[:, :, None, None]


class DualResidualBlock(nn.Module):
    """Two streams that feed each other: `out` through 3x3 convolutions, `residue` through a 5x5 convolution and channel weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.relu1 = conv(channels, channels), nn.PReLU()
        self.conv2, self.relu2 = conv(channels, channels), nn.PReLU()
        self.up, self.up_relu = conv(channels, channels, 5), nn.PReLU()
        self.weights = ChannelWeights(channels)
        self.down, self.down_relu = conv(channels, channels), nn.PReLU()

    def forward(self, out: Tensor, residue: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.relu2(self.conv2(self.relu1(self.conv1(out))) + out)
        residue = self.up_relu(self.up(inner) + residue)
        return self.down_relu(self.down(self.weights(residue)) + out), residue


class SecondOrderAttention(nn.Module):
    """x plus attention of pixels to pixels, whose logits are their covariance over channels; cost grows with the square of the pixels.

    Only one of the covariance's two factors is centred, as published. The weights of the sum are 0 at first.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        inner = bands // SECOND_ORDER_REDUCTION
        self.value = nn.Conv2d(bands, inner, 1, bias=False)
        self.key = nn.Conv2d(bands, inner, 1, bias=False)
        self.out = nn.Conv2d(inner, bands, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        value, key = (layer(x).flatten(2).mT[:, None] for layer in (self.value, self.key))
        centred = key - key.mean(-1, keepdim=True)
        mixed = attended(centred, key, value, scale=1 / key.shape[-1])
        return x + self.out(mixed[:, 0].mT.unflatten(2, x.shape[-2:]))


@config
class AWANNetConfig(RestorerConfig):
    """AWAN. The defaults are the published network."""

    kind: ClassVar[str] = "awan"

    width: int = 96
    """Channels of the features."""
    blocks: int = 8
    """Dual residual blocks."""

    def __post_init__(self) -> None:
        if self.width < SQUEEZE:
            raise UserError(f"width={self.width} was given; the channel weights need at least {SQUEEZE} channels.")

    def refuse_network(self, problem: Problem) -> str | None:
        if problem.bands < SECOND_ORDER_REDUCTION:
            return f"model awan needs at least {SECOND_ORDER_REDUCTION} target bands and there are {problem.bands}; choose model=mstpp."
        return problem.refuse_other_scales(self.kind)

    def build_network(self, problem: Problem) -> AWAN:
        return AWAN(self, problem.lr_bands, problem.bands)


class AWAN(nn.Module):
    """forward(lr (B, in_bands, H, W)) -> (B, bands, H, W), unbounded.

    bands  at least 8: the second-order attention has bands // 8 channels
    """

    def __init__(self, options: AWANNetConfig, in_bands: int, bands: int) -> None:
        super().__init__()
        width, blocks = options.width, options.blocks
        self.enter, self.enter_relu = conv(in_bands, width), nn.PReLU()
        self.head = conv(width, width)
        self.blocks = nn.ModuleList(DualResidualBlock(width) for _ in range(blocks))
        self.tail, self.tail_relu = conv(width, width), nn.PReLU()
        self.leave = conv(width, bands)
        self.second_order = SecondOrderAttention(bands)

    @property
    def last_layer(self) -> nn.Conv2d:
        """The layer that makes the bands."""
        return self.leave

    def forward(self, lr: Tensor) -> Tensor:
        first = out = residue = self.head(self.enter_relu(self.enter(lr)))
        for block in self.blocks:
            out, residue = block(out, residue)
        image = self.leave(self.tail_relu(self.tail(out) + first))
        H, W = image.shape[-2:]
        # The four quadrants are treated alone; the lower and the right ones are larger by a pixel where the size is odd.
        rows = [torch.cat([self.second_order(q) for q in part.tensor_split([W // 2], -1)], -1) for part in image.tensor_split([H // 2], -2)]
        return torch.cat(rows, -2)
