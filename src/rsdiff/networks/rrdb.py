"""RRDBNet, the generator of ESRGAN: residual-in-residual dense blocks at LR resolution, then nearest-neighbour enlargement.

Used as a restorer (ESRGAN, BSRGAN, Real-ESRGAN), as BlindSRSNF's condition (its trunk feature) and as SRDiff's condition (features of
single blocks). Published copies differ in key names only: see rsdiff.weights.keymaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.restorers import RestorerConfig

RESIDUAL_SCALE = 0.2  # ESRGAN, section 3.1: residuals are shrunk so that a trunk without normalisation stays stable
SLOPE = 0.2


def shrink_weights(network: nn.Module) -> None:
    """Draw the weights of every convolution anew as ESRGAN does: Kaiming normal, times 0.1; biases 0."""
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            with torch.no_grad():
                conv.weight.mul_(0.1)


@config
class RRDBConfig:
    """RRDBNet, where the method decides how it enlarges."""

    width: int = 64
    """Channels of the trunk, and of the feature that conditions."""
    blocks: int = 23
    """Residual-in-residual dense blocks."""
    growth: int = 32
    """Channels each dense convolution adds."""

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.growth) < 1:
            raise UserError(f"width={self.width}, blocks={self.blocks}, growth={self.growth}; choose numbers of at least 1.")

    def refuse_head(self, model: str, problem: Problem) -> str | None:
        """Return a sentence where BasicSR's head cannot enlarge by the problem's scale, else None."""
        if problem.scale in (1, 2, 4):
            return None
        return f"model {model} enlarges by 1, 2 or 4 and the scale is {problem.scale:g}; set scale to one of them."

    def build(self, problem: Problem) -> RRDBNet:
        """Return BasicSR's network with fresh weights."""
        return RRDBNet(self, problem.lr_bands, problem.bands, *rrdb_stages(int(problem.scale)))


@config
class RRDBNetConfig(RRDBConfig, RestorerConfig):
    """RRDBNet as a network that restores."""

    kind: ClassVar[str] = "rrdb"

    head: Literal["always_x4", "stages"] = "always_x4"
    """How scales below 4 are reached: the input is taken apart into cells before an enlargement by 4 (BasicSR, Real-ESRGAN; scales 1, 2
    and 4), or the head has one stage per factor 2 or 3 of the scale (KAIR, BSRGAN; 2, 3, 4, 6, 8). They are the same at 4."""

    def refuse_network(self, problem: Problem) -> str | None:
        fraction = problem.refuse_fraction(self.kind)
        if fraction is not None:
            return fraction
        try:
            self.stages(problem)
        except UserError as error:
            return f"{str(error).removesuffix('.')}, or change model.network.head."
        return None

    def stages(self, problem: Problem) -> tuple[int, tuple[int, ...]]:
        """Return (unshuffle, enlargements) of the network; raises UserError for a scale that the head does not reach."""
        scale = int(problem.scale)
        return rrdb_stages(scale) if self.head == "always_x4" else (1, nearest_stages(scale))

    def size_multiple(self, problem: Problem) -> int:
        return self.stages(problem)[0]

    def build_network(self, problem: Problem) -> RRDBNet:
        return RRDBNet(self, problem.lr_bands, problem.bands, *self.stages(problem))


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each fed with everything before it; `out = x + 0.2 * conv5`."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, padding=1) for i in range(5))
        shrink_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        known = x
        for conv in self.convs[:-1]:
            known = torch.cat([known, F.leaky_relu(conv(known), SLOPE, inplace=True)], dim=1)
        return x + RESIDUAL_SCALE * self.convs[-1](known)


class RRDB(nn.Module):
    """Three dense blocks in a row; `out = x + 0.2 * result`."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        return x + RESIDUAL_SCALE * self.dense(x)


class RRDBNet(nn.Module):
    """RRDB trunk and upsampling head.

    in_channels, out_channels  bands of the input and of the result
    unshuffle     the input is first taken apart into cells of unshuffle x unshuffle pixels (BasicSR's x2: 2, x1: 4); else 1
    enlargements  factor of each nearest-neighbour stage of the head: (2, 2) is x4 before `unshuffle` is taken off
    """

    def __init__(
        self, options: RRDBConfig, in_channels: int, out_channels: int, unshuffle: int = 1, enlargements: Sequence[int] = (2, 2)
    ) -> None:
        super().__init__()
        width, growth = options.width, options.growth
        self.unshuffle = unshuffle
        self.enlargements = tuple(enlargements)
        self.conv_first = nn.Conv2d(in_channels * unshuffle**2, width, 3, padding=1)
        self.body = nn.ModuleList(RRDB(width, growth) for _ in range(options.blocks))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.enlargements)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, out_channels, 3, padding=1)

    @property
    def last_layer(self) -> nn.Conv2d:
        """The layer that makes the image."""
        return self.conv_last

    @property
    def size_multiple(self) -> int:
        """What h and w must be multiples of."""
        return self.unshuffle

    def trunk(self, x: Tensor) -> list[Tensor]:
        """Return the output of every RRDB and last the trunk's feature (first convolution + body), all (B, width, h, w)."""
        first = self.conv_first(F.pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x)
        features = []
        feature = first
        for block in self.body:
            feature = block(feature)
            features.append(feature)
        return [*features, first + self.conv_body(feature)]

    def head(self, feature: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Enlarge a trunk feature (B, width, h, w) to the image, which is not clamped; the last stage goes to `size` (H, W) if given."""
        feature = enlarge_nearest(feature, self.enlargements, self.conv_up, size)
        return self.conv_last(F.leaky_relu(self.conv_hr(feature), SLOPE, inplace=True))

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return the enlarged image (B, out_channels, H, W) of x (B, in_channels, h, w), not clamped. `size`: see `head`."""
        return self.head(self.trunk(x)[-1], size)


def enlarge_nearest(
    feature: Tensor, enlargements: Sequence[int], convs: Iterable[nn.Module], size: tuple[int, int] | None = None
) -> Tensor:
    """Enlarge a feature by stages: nearest-neighbour by each factor, convolution, activation; the last to `size` (H, W) if given."""
    for stage, (factor, conv) in enumerate(zip(enlargements, convs, strict=True), start=1):
        to = size if size is not None and stage == len(enlargements) else (feature.shape[-2] * factor, feature.shape[-1] * factor)
        feature = F.leaky_relu(conv(F.interpolate(feature, size=to, mode="nearest")), SLOPE, inplace=True)
    return feature


def nearest_stages(scale: int) -> tuple[int, ...]:
    """Return the nearest-neighbour stages of KAIR's RRDBNet, one per factor 2 or 3 of the scale; raises UserError for other factors."""
    stages: list[int] = []
    rest = scale
    for factor in (2, 3):
        while rest > 1 and rest % factor == 0:
            stages.append(factor)
            rest //= factor
    if rest != 1 or scale < 2:
        raise UserError(f"RRDBNet was asked for scale {scale}; it enlarges by factors of 2 and 3: set scale=2, 3 or 4.")
    return tuple(stages)


def rrdb_stages(scale: int) -> tuple[int, tuple[int, int]]:
    """Return (unshuffle, enlargements) of BasicSR's RRDBNet, whose head is always x4; raises UserError for scales it has not."""
    if scale not in (1, 2, 4):
        raise UserError(f"RRDBNet was asked for scale {scale}; BasicSR's network exists for 1, 2 and 4: set scale=1, 2 or 4.")
    return 4 // scale, (2, 2)
