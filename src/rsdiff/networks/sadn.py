"""SADN: a feedback network whose convolutions depend on the scale, and whose levels are enlarged by a CSUM.

Source: hanlinwu/SADN, archs/sadn_arch.py and dynamic_layers.py (Wu et al., arXiv 2110.15655). `scale` is LR rows / target rows throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


def normalised_conv(in_channels: int, out_channels: int, size: int) -> nn.Module:
    """Return a zero-padded convolution with weight normalisation."""
    return weight_norm(nn.Conv2d(in_channels, out_channels, size, padding=size // 2))


class ScaleAwareConv(nn.Module):
    """A 3x3 convolution whose kernel is a mean of `kernels` ones, weighed by the image and the scale.

    Every kernel is normalised, its length is learned; the biases are not, and start at 0 (in the source, uninitialised).
    """

    def __init__(self, in_channels: int, out_channels: int, kernels: int) -> None:
        super().__init__()
        hidden = int(in_channels / 4) + 1
        self.squeeze = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.choose = nn.Conv2d(hidden + 2, kernels, 1)
        self.direction = nn.Parameter(torch.empty(kernels, out_channels, in_channels, 3, 3))
        for kernel in self.direction.data:
            nn.init.kaiming_uniform_(kernel, a=5**0.5)
        self.length = nn.Parameter(self.direction.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(kernels, out_channels))

    def shares(self, x: Tensor, scale: float, temperature: float | Tensor) -> Tensor:
        """Return the share of every kernel (B, kernels); a high temperature makes them equal."""
        squeezed = F.relu(self.squeeze(x.mean((-2, -1), keepdim=True)))
        told = torch.cat([squeezed, squeezed.new_full((len(x), 2, 1, 1), scale)], dim=1)
        return (self.choose(told)[:, :, 0, 0] / temperature).softmax(dim=1)

    def forward(self, x: Tensor, scale: float, temperature: float | Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, out_channels, h, w)."""
        shares = self.shares(x, scale, temperature)
        kernels = self.direction * (self.length / self.direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1))
        mixed, bias = torch.einsum("bk,koiyx->boiyx", shares, kernels), shares @ self.bias
        made = F.conv2d(x.flatten(0, 1)[None], mixed.flatten(0, 1), padding=1, groups=len(x))
        return made.view(len(x), -1, *x.shape[-2:]) + bias[:, :, None, None]


class SADNBlock(nn.Module):
    """x + a wide convolution, a narrow one, a scale-aware one and a gate per channel.

    kernels    of the scale-aware convolution; 0 puts an ordinary one in its place
    reduction  of the gate's hidden layer
    """

    def __init__(self, width: int, multiplier: int, reduction: int, kernels: int) -> None:
        super().__init__()
        self.widen = normalised_conv(width, multiplier * width, 3)
        self.narrow = normalised_conv(multiplier * width, width, 3)
        self.aware = ScaleAwareConv(width, width, kernels) if kernels else None
        self.plain = None if kernels else normalised_conv(width, width, 3)
        self.gate = nn.Sequential(
            nn.Linear(width, width // reduction, bias=False), nn.ReLU(), nn.Linear(width // reduction, width, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor, scale: float, temperature: float | Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        made = self.narrow(F.relu(self.widen(x)))
        if self.aware is not None:
            made = self.aware(made, scale, temperature)
        elif self.plain is not None:
            made = self.plain(made)
        return x + made * self.gate(made.mean((-2, -1)))[:, :, None, None]


class DenseChain(nn.Module):
    """Units one after the other, each fed a 1x1 convolution of the chain's input and of all results before it."""

    def __init__(self, units: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.compress = nn.ModuleList(normalised_conv((i + 2) * width, width, 1) for i in range(len(units) - 1))

    def forward(self, x: Tensor, scale: float, temperature: float | Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        known, last = [x], self.units[0](x, scale, temperature)
        for compress, unit in zip(self.compress, self.units[1:], strict=True):
            known.append(last)
            last = unit(compress(torch.cat(known, dim=1)), scale, temperature)
        return last


class FeedbackBody(nn.Module):
    """forward maps images (B, bands, h, w) to `levels` feature maps (B, width, h, w), each made with the state the one before left.

    groups  dense chains in the chain that is run per level; `layers` blocks in each
    """

    def __init__(
        self, bands: int, width: int, groups: int, layers: int, levels: int, multiplier: int, reduction: int, kernels: int
    ) -> None:
        super().__init__()
        self.levels = levels
        self.head = normalised_conv(bands, width, 3)
        self.skip = normalised_conv(bands, width, 5)
        self.join = normalised_conv(2 * width, width, 3)
        self.chain = DenseChain(
            [DenseChain([SADNBlock(width, multiplier, reduction, kernels) for _ in range(layers)], width) for _ in range(groups)], width
        )
        self.tail = normalised_conv(width, width, 3)

    def forward(self, x: Tensor, scale: float, temperature: float | Tensor) -> list[Tensor]:
        first, skip = F.relu(self.head(x)), self.skip(x)
        state, maps = first, []
        for _ in range(self.levels):
            state = self.chain(F.relu(self.join(torch.cat([first, state], dim=1))), scale, temperature)
            maps.append(self.tail(state) + skip)
        return maps
