"""Discriminators, each an option with its own: what judges images says a number per pixel, per patch or per image.

Three published networks of some fifty lines stand in one file because a training chooses among them; two have convolutions whose largest
singular value is kept near 1 by power iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.kinds import Kinds
from rsdiff.config.tagged import Tagged
from rsdiff.networks import DISCRIMINATORS

EPSILON = 1e-12
SLOPE = 0.2


class SpectralConv2d(nn.Conv2d):
    """A convolution with its weight W, seen as (out_channels, rest), divided by an estimate of its largest singular value.

    Every forward in training mode first turns the singular vectors once: v = normalise(W^T u), u = normalise(W v); in evaluation they stay.
    Source: Miyato et al., ICLR 2018; the order and the constant are those of the hook `torch.nn.utils.spectral_norm`, which published
    discriminators were trained with (the newer `parametrizations.spectral_norm` turns u first).
    """

    couples_images: ClassVar[str] = "the spectral norm of its discriminator turns with every batch"

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0, eps=EPSILON))
        self.register_buffer("weight_v", F.normalize(torch.randn(self.weight[0].numel()), dim=0, eps=EPSILON))

    def normalised_weight(self) -> Tensor:
        """Return W / (u . W v), in training after one turn of u and v; gradients do not pass through the vectors."""
        with torch.autocast(self.weight.device.type, enabled=False):  # rounded products would turn the vectors astray
            matrix = self.weight.flatten(1)
            if self.training:
                with torch.no_grad():
                    self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0, eps=EPSILON))
                    self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=EPSILON))
            # Copies: a second forward before the backward pass of the first turns the buffers in place.
            u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight / torch.dot(u, matrix @ v)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) as nn.Conv2d does."""
        return F.conv2d(x, self.normalised_weight(), self.bias, self.stride, self.padding)


MULTIPLE = 8
"""Of the sides of images for the U-Net."""


class UNetDiscriminator(nn.Module):
    """forward maps images (B, in_channels, H, W) in [0, 1], sides multiples of 8, to logits (B, 1, H, W).

    skips  add the features of the way down to those of the way up
    With the published width there are 4 376 897 parameters.
    Source: UNetDiscriminatorSN of BasicSR, Discriminator_UNet of KAIR; all but the first and last convolution have spectral norm, no bias.
    """

    def __init__(self, options: UNetConfig, in_channels: int, skips: bool = True) -> None:
        super().__init__()
        width, self.skips = options.width, skips
        self.conv0 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv1, self.conv2, self.conv3 = (
            SpectralConv2d(width * 2**level, width * 2 ** (level + 1), 4, stride=2, padding=1, bias=False) for level in range(3)
        )
        self.conv4, self.conv5, self.conv6 = (
            SpectralConv2d(width * 2 ** (level + 1), width * 2**level, 3, padding=1, bias=False) for level in reversed(range(3))
        )
        self.conv7, self.conv8 = (SpectralConv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.conv9 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Raises UserError for sides that are no multiples of 8."""
        if images.shape[-2] % MULTIPLE or images.shape[-1] % MULTIPLE:
            raise UserError(
                f"the U-Net discriminator needs sides that are multiples of {MULTIPLE} and was given "
                f"{images.shape[-2]}x{images.shape[-1]}; choose trainer.patch (or degradation.crop times the scale) accordingly."
            )
        ways = [F.leaky_relu(self.conv0(images), SLOPE, inplace=True)]
        for down in (self.conv1, self.conv2, self.conv3):
            ways.append(F.leaky_relu(down(ways[-1]), SLOPE, inplace=True))
        feature = ways.pop()
        for up in (self.conv4, self.conv5, self.conv6):
            enlarged = F.interpolate(feature, scale_factor=2, mode="bilinear", align_corners=False)
            feature = F.leaky_relu(up(enlarged), SLOPE, inplace=True)
            feature = feature + ways.pop() if self.skips else feature
        for conv in (self.conv7, self.conv8):
            feature = F.leaky_relu(conv(feature), SLOPE, inplace=True)
        return self.conv9(feature)


PatchNorm = Literal["batch", "instance", "none"]


@dataclass(frozen=True)
class PatchStyle:
    """In what published patch discriminators differ besides their sizes.

    padding     zeros around every convolution's input: 1 (VQGAN, sides shrink by 1 without stride) or 2 (KAIR, they grow by 1)
    norm        after all convolutions but the first and the last; that of instances has no parameters
    spectral    spectral norm on all convolutions
    bias        convolutions before a norm have one, too
    is_limited  no layer has more than 512 channels (KAIR), whatever the first; otherwise none more than 8 times the first (VQGAN)
    """

    padding: int
    norm: PatchNorm
    spectral: bool = False
    bias: bool = False
    is_limited: bool = False


VQGAN_PATCHES = PatchStyle(padding=1, norm="batch")
KAIR_PATCHES = PatchStyle(padding=2, norm="none", spectral=True, is_limited=True)


class PatchDiscriminator(nn.Module):
    """forward maps images (B, in_channels, H, W) to one answer per overlapping patch, (B, 1, y, x).

    The width doubles with each strided 4x4 convolution. Weights start normal with deviation 0.02, norm scales at 1 +- 0.02.
    Source: NLayerDiscriminator of CompVis/taming-transformers, Discriminator_PatchGAN of KAIR.
    """

    def __init__(self, options: PatchSizes, in_channels: int, style: PatchStyle) -> None:
        super().__init__()
        layers, padding, norm = options.layers, style.padding, style.norm
        convolution = SpectralConv2d if style.spectral else nn.Conv2d
        widest = 512 if style.is_limited else 8 * options.width
        widths = [min(options.width * 2**level, widest) for level in range(layers + 1)]
        parts: list[nn.Module] = [convolution(in_channels, options.width, 4, stride=2, padding=padding), nn.LeakyReLU(0.2, inplace=True)]
        for level in range(1, layers + 1):
            stride, has_bias = 2 if level < layers else 1, style.bias or norm == "none"
            parts.append(convolution(widths[level - 1], widths[level], 4, stride=stride, padding=padding, bias=has_bias))
            if norm != "none":
                parts.append(nn.BatchNorm2d(widths[level]) if norm == "batch" else nn.InstanceNorm2d(widths[level]))
            parts.append(nn.LeakyReLU(0.2, inplace=True))
        self.main = nn.Sequential(*parts, convolution(widths[-1], 1, 4, padding=padding))
        for part in self.main:
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.02)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        return self.main(images)


HIDDEN = 100
"""Width of the VGG discriminator's last layer but one."""


class VGGDiscriminator(nn.Module):
    """forward maps images (B, in_channels, size, size) in [0, 1] to logits (B, 1).

    is_kair  KAIR's: nothing stands between the first two convolutions, batch norms have eps 1e-4 and momentum 0.9
    Each level is a 3x3 convolution and a 4x4 one of stride 2, until at most 5 pixels a side are left; all but the very first are followed
    by a batch norm. Channels double with each level, up to 8 times.
    Source: VGGStyleDiscriminator of BasicSR, Discriminator_VGG_96/128/192 of KAIR, VGGStyleDiscriminator160 of MASA-SR.
    """

    def __init__(self, options: VGGConfig, in_channels: int, is_kair: bool = False) -> None:
        super().__init__()
        self.size, self.has_biases, self.is_kair = options.size, options.biases, is_kair
        sides = [options.size]
        while sides[-1] > 5:
            sides.append(sides[-1] // 2)
        widths = [options.width * min(2**level, 8) for level in range(len(sides) - 1)]
        has_bias = options.biases
        convs: list[nn.Conv2d] = []
        for level, own in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            convs += [nn.Conv2d(before, own, 3, padding=1, bias=has_bias or level == 0)]
            convs += [nn.Conv2d(own, own, 4, stride=2, padding=1, bias=has_bias)]
        self.convs = nn.ModuleList(convs)
        eps, momentum = (1e-4, 0.9) if is_kair else (1e-5, 0.1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels, eps, momentum) for conv in convs[1:])
        self.hidden = nn.Linear(widths[-1] * sides[-1] ** 2, HIDDEN)
        self.answer = nn.Linear(HIDDEN, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Raises UserError for images of another size."""
        if tuple(images.shape[-2:]) != (self.size, self.size):
            raise UserError(
                f"the VGG discriminator was built for {self.size}x{self.size} pixels and was given {images.shape[-2]}x{images.shape[-1]}; "
                "set the size of the discriminator to that of the training targets."
            )
        x = self.convs[0](images)
        if not self.is_kair:
            x = F.leaky_relu(x, SLOPE, inplace=True)
        for conv, norm in zip(list(self.convs)[1:], self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), SLOPE, inplace=True)
        return self.answer(F.leaky_relu(self.hidden(x.flatten(1)), SLOPE, inplace=True))


Discriminator = UNetDiscriminator | PatchDiscriminator | VGGDiscriminator


class DiscriminatorConfig(Tagged):
    """The family of discriminators."""

    family: ClassVar[str] = "discriminator"
    kinds: ClassVar[Kinds] = DISCRIMINATORS

    @property
    def target_side(self) -> int | None:
        """Side in pixels of the targets that it is built for; None where they may have any."""
        return None

    def build(self, bands: int, larger: int = 0) -> Discriminator:
        """Return the discriminator of images of so many bands, with fresh weights.

        larger  pixels by which what it judges is larger than the targets
        """
        raise NotImplementedError


@config
class VGGConfig(DiscriminatorConfig):
    """One answer per image (ESRGAN)."""

    kind: ClassVar[str] = "vgg"

    width: int = 64
    """Channels of its first convolution."""
    biases: bool = False
    """Convolutions have a bias where a norm follows, too (ESRGAN's first code, SPSR)."""
    size: int = 128
    """Side of the targets that it is built for: trainer.patch, or degradation.crop times the scale."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.size < 8:
            raise UserError(f"width={self.width} must be at least 1 and size={self.size} at least 8; change them.")

    @property
    def target_side(self) -> int:
        return self.size

    def build(self, bands: int, larger: int = 0) -> Discriminator:
        return VGGDiscriminator(replace(self, size=self.size + larger), bands)


@config
class UNetConfig(DiscriminatorConfig):
    """One answer per pixel (Real-ESRGAN, BSRGAN's released code)."""

    kind: ClassVar[str] = "unet"

    width: int = 64
    """Channels of its first convolution."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UserError(f"width={self.width} was given; choose at least 1.")

    def build(self, bands: int, larger: int = 0) -> Discriminator:
        if larger:
            raise UserError(
                f"discriminator=unet needs sides that are multiples of 8, and what it is to judge is {larger} pixels larger than targets; "
                "choose vgg or patch."
            )
        return UNetDiscriminator(self, bands)


@config
class PatchSizes:
    """Sizes of a patch discriminator."""

    width: int = 64
    """Channels of its first convolution."""
    layers: int = 3
    """Strided convolutions."""

    def __post_init__(self) -> None:
        if min(self.width, self.layers) < 1:
            raise UserError(f"width={self.width} and layers={self.layers} must be at least 1; change them.")


@config
class PatchConfig(PatchSizes, DiscriminatorConfig):
    """One answer per patch (BSRGAN's paper)."""

    kind: ClassVar[str] = "patch"

    def build(self, bands: int, larger: int = 0) -> Discriminator:
        return PatchDiscriminator(self, bands, KAIR_PATCHES)
