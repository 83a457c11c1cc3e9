"""IDM's networks: SR3's U-Net with coordinate-based enlargements, gated by features of the condition and by the scale.

Source: Ree1s/IDM, model/sr3_modules/unet.py and edsr.py (Gao et al., CVPR 2023). Its custom kernels for blur and biased leaky ReLU are
plain operations here; parameters that it never uses are left out; targets need not be square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.data.transfer import constant
from rsdiff.networks.continuous_upsampling import local_ensemble, pixel_centres
from rsdiff.networks.diffusion_unet import DiffusionUNet
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.layers import ResidualBlock, TimeEmbedding, orthogonal_
from rsdiff.networks.sr3_unet import SR3UNetConfig

HIDDEN = 256  # channels between the two linear layers of an enlargement
Gate = tuple[Tensor, Tensor, Tensor]
"""weights of the feature and of the condition's (B or 1, C), and the condition's feature (B, C, h, w)"""


class ConditionEncoder(nn.Module):
    """forward maps the LR (B, in_channels, h, w) and a size to a condition (B, out_channels, H, W), unbounded."""

    def __init__(self, options: EDSRConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.features = options.build(in_channels)
        self.out = nn.Conv2d(options.width, out_channels, 3, padding=1)

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        return self.out(F.interpolate(self.features(lr), size, mode="nearest"))


class EqualisedConv(nn.Conv2d):
    """A 3x3 convolution whose weights are divided by the square root of their number per output when it runs."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / math.sqrt(self.weight[0].numel()), self.bias, self.stride, self.padding)


class BiasedLeakyReLU(nn.Module):
    """sqrt(2) LeakyReLU_0.2(x + bias), with a bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return math.sqrt(2) * F.leaky_relu(x + self.bias[:, None, None], 0.2, inplace=True)


class Blur(nn.Module):
    """Depthwise convolution with the outer product of [1, 3, 1] / 5, zero beyond the border."""

    def forward(self, x: Tensor) -> Tensor:
        line = constant((1.0, 3.0, 1.0), x.device, x.dtype) / 5
        kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


class ImplicitUpsample(nn.Module):
    """Mixes a feature with the condition's by weights of the scale, then answers at any size by two linear layers on the nearest cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.activate = BiasedLeakyReLU(channels)
        # No activation between them, as published: affine in feature and offset.
        self.linear = nn.Sequential(nn.Linear(channels + 2, HIDDEN), nn.Linear(HIDDEN, channels))

    def mixed(self, x: Tensor, gate: Gate) -> Tensor:
        """Return x and the condition's feature, each times its weight; the weights have length 1 per channel."""
        first, second, shift = gate
        norm = (first.square() + second.square() + 1e-8).rsqrt()
        return self.activate(x * (first * norm)[:, :, None, None] + shift * (second * norm)[:, :, None, None])

    def forward(self, x: Tensor, gate: Gate, size: tuple[int, int]) -> Tensor:
        """Map (B, C, h, w) to (B, C, H, W)."""
        mixed = self.mixed(x, gate)
        coordinates = pixel_centres(size, device=x.device).to(x.dtype).flatten(0, 1).expand(len(x), -1, -1)

        def answer(known: Tensor, offset: Tensor) -> Tensor:
            return self.linear(torch.cat([known, offset], dim=-1))

        return local_ensemble(mixed, coordinates, answer, ((0, 0),)).mT.unflatten(2, size)


class StylePath(nn.Module):
    """Makes a `Gate` for every level but the first from the condition and the scale."""

    def __init__(self, in_channels: int, width: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Sequential(EqualisedConv(in_channels, width), BiasedLeakyReLU(width))
        before = [width, *widths[:-2]]
        self.down = nn.ModuleList(
            nn.Sequential(Blur(), EqualisedConv(a, b, stride=2), BiasedLeakyReLU(b)) for a, b in zip(before, widths[:-1], strict=True)
        )
        self.weigh_feature = nn.ModuleList(nn.Linear(1, out) for out in widths[1:])
        self.weigh_condition = nn.ModuleList(nn.Linear(1, out) for out in widths[1:])
        self.shift = nn.ModuleList(EqualisedConv(a, b, bias=True) for a, b in pairwise(widths))

    def forward(self, condition: Tensor, scaler: Tensor) -> list[Gate]:
        """Return the gates of levels 1, 2, ..; scaler (B, 1) or (1, 1)."""
        x, gates = self.first(condition), []
        for down, feature, of_condition, shift in zip(self.down, self.weigh_feature, self.weigh_condition, self.shift, strict=True):
            x = down(x)
            gates.append((feature(scaler), of_condition(scaler), shift(x)))
        return gates


@config
class IDMUNetConfig(SR3UNetConfig):
    """SR3's skeleton with a path that mixes in the condition."""

    init: Literal["orthogonal", "stylegan"] = "orthogonal"
    """Weights to begin with of the layers that mix in the condition: orthogonal as published, or normal, with weights of the scale at 1."""


class IDMUNet(DiffusionUNet):
    """Predicts the noise in an image of any size of at least 1 pixel, told the level, the condition and how far it is enlarged.

    forward(x (B, bands, H, W), condition (B, bands, H, W), scaler (B, 1) or (1, 1), level (B,)).
    """

    def __init__(self, options: IDMUNetConfig, bands: int) -> None:
        width = options.width
        attention_down, attention_up = options.attention_levels()
        super().__init__(
            in_channels=2 * bands,
            out_channels=bands,
            attention_down=attention_down,
            attention_up=attention_up,
            make_block=partial(
                ResidualBlock, embedding_width=width, norm_groups=options.norm_groups, dropout=options.dropout, activate_time=False
            ),
            make_upsample=ImplicitUpsample,
            crop_to_skips=True,
            **options.sizes(),
        )
        self.time = TimeEmbedding(width)
        self.style = StylePath(bands, width, [width * multiplier for multiplier in options.multipliers])
        orthogonal_(self)
        if options.init == "stylegan":
            self._init_stylegan()

    def _init_stylegan(self) -> None:
        for part in self.style.modules():
            if isinstance(part, EqualisedConv | nn.Linear):
                nn.init.normal_(part.weight)
        for layer in (*self.style.weigh_feature, *self.style.weigh_condition):
            assert isinstance(layer, nn.Linear)
            nn.init.ones_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor, scaler: Tensor, level: Tensor) -> Tensor:
        gates = self.style(condition, scaler)
        conditions = (self.time(level),)
        x, skips = self.down_pass(self.stem(torch.cat([condition, x], dim=1)), conditions)

        def enlarge(index: int, leave: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
            return leave(x, gates[index - 1], skip.shape[-2:])

        return self.up_pass(self.middle_pass(x, conditions), skips, conditions, enlarge)
