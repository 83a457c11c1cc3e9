"""SPSR's generator: RRDBNet with a branch that enlarges the map of gradients and is fused into the trunk before the image.

Source: Maclory/SPSR, architecture.py, SPSRNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.rrdb import RRDB, SLOPE, RRDBNet, RRDBNetConfig, enlarge_nearest, shrink_weights

FLAT = 1e-6
"""Added under the root: the map of a flat image is 1e-3, and its gradient finite."""


def gradient_map(images: Tensor, padding: int = 1) -> Tensor:
    """Return sqrt(v^2 + h^2 + 1e-6) of every band, v and h the differences of the two neighbours of a pixel, not halved.

    images   (B, C, H, W)
    padding  zeros around the image; 1 keeps its size, 2 gives (H + 2, W + 2). The border's values are differences to these zeros.
    """
    padded = F.pad(images, (padding,) * 4)
    vertical = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    horizontal = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    return (vertical.square() + horizontal.square() + FLAT).sqrt()


@config
class SPSRNetConfig(RRDBNetConfig):
    """RRDBNet with a gradient branch."""

    kind: ClassVar[str] = "spsr"

    taps: tuple[int, ...] = (5, 10, 15, 20)
    """Blocks of the trunk, counted from 1, whose outputs the branch is shown, one after the other."""

    def __post_init__(self) -> None:
        RRDBNetConfig.__post_init__(self)
        if not self.taps or list(self.taps) != sorted(set(self.taps)) or not 1 <= self.taps[0] <= self.taps[-1] <= self.blocks:
            raise UserError(f"taps={list(self.taps)} of a trunk of blocks={self.blocks}; choose rising numbers from 1 to that one.")

    def refuse_network(self, problem: Problem) -> str | None:
        if self.head == "always_x4" and problem.scale in (1, 2):
            return f"model spsr enlarges by stages and the scale is {problem.scale:g}; set model.network.head=stages and a scale from 2 on."
        return RRDBNetConfig.refuse_network(self, problem)

    def build_network(self, problem: Problem) -> SPSRNet:
        return SPSRNet(self, problem.lr_bands, problem.bands, self.stages(problem)[1])

    @property
    def trunk(self) -> RRDBNetConfig:
        """What a trained `rrdb` must have been built with."""
        return RRDBNetConfig(**{field.name: getattr(self, field.name) for field in fields(RRDBNetConfig)})


class BranchStep(nn.Module):
    """Joins the branch (B, width, h, w) with a feature of the trunk in an RRDB of twice the width, then halves it by a convolution."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.block = RRDB(2 * width, growth)
        self.fuse = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(self, branch: Tensor, feature: Tensor) -> Tensor:
        return self.fuse(self.block(torch.cat([branch, feature], dim=1)))


class SPSRNet(RRDBNet):
    """RRDBNet, whose image is a feature here, with a gradient branch and their fusion.

    bands         C, of images and gradient maps
    enlargements  factors of the nearest-neighbour stages
    """

    def __init__(self, options: SPSRNetConfig, in_channels: int, bands: int, enlargements: Sequence[int]) -> None:
        super().__init__(options, in_channels, options.width, 1, enlargements)
        width, growth = options.width, options.growth
        self.taps = options.taps
        self.branch_first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.branch = nn.ModuleList(BranchStep(width, growth) for _ in self.taps)
        self.branch_body = nn.Conv2d(width, width, 3, padding=1)
        self.branch_up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.enlargements)
        self.branch_hr = nn.Conv2d(width, width, 3, padding=1)
        self.branch_last = nn.Conv2d(width, width, 3, padding=1)
        self.branch_map = nn.Conv2d(width, bands, 1)
        self.fusion = nn.ModuleDict(
            {
                "join": BranchStep(width, growth),
                "conv_hr": nn.Conv2d(width, width, 3, padding=1),
                "conv_last": nn.Conv2d(width, bands, 3, padding=1),
            }
        )
        shrink_weights(self)

    @property
    def last_layer(self) -> nn.Conv2d:
        """See RRDBNet."""
        last = self.fusion["conv_last"]
        assert isinstance(last, nn.Conv2d)
        return last

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return the image (B, C, H, W) of x (B, c, h, w), not clamped. `size`: see `RRDBNet.head`."""
        return self.image_and_map(x, size)[0]

    def image_and_map(self, x: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Return the image and the estimate of its gradient map, both (B, C, H, W)."""
        *features, last = self.trunk(x)
        feature = self.head(last, size)
        first = branch = self.branch_first(gradient_map(x))
        for step, tap in zip(self.branch, self.taps, strict=True):
            branch = step(branch, features[tap - 1])
        branch = first + self.branch_body(branch)
        branch = enlarge_nearest(branch, self.enlargements, self.branch_up, size)
        branch = self.branch_last(F.leaky_relu(self.branch_hr(branch), SLOPE, inplace=True))
        joined = self.fusion["join"](branch, feature)
        made = self.last_layer(F.leaky_relu(self.fusion["conv_hr"](joined), SLOPE, inplace=True))
        return made, self.branch_map(branch)
