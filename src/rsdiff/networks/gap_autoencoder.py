"""The two halves of LDCSR's autoencoder.

GAPEncoder: what HR has and enlarged LR lacks, at an eighth of the size; alone, the condition encoder of the second stage.
GAPDecoder: a super-resolution network on LR, modulated by the latent and by the scale, with an output of any size.

Source: MoooJianG/LDCSR, modules/e2sr/s1_v6.py and its ablations (s1_v6_ablation1, 3, 4, _wo_csum, _wo_fru, _fixed_scale), which are
options here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.enlarging import enlarge
from rsdiff.networks.continuous_upsampling import CSUM, CSUMConfig, FixedX4, NearestMLP
from rsdiff.networks.layers import zeroed


class GAPEncoder(nn.Module):
    """Convolutional encoder without attention.

    Its input is enlarged LR and HR, concatenated in this order, or one of them; its result mean and log-variance of a latent, or it.
    forward maps (B, in_channels, H, W) to (B, out_channels, floor(H / 2^(levels - 1)), ...), halving level by level.
    """

    def __init__(self, options: GAPEncoderConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width, multipliers = options.width, options.multipliers
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        channels, last = width, len(multipliers) - 1
        for level, multiplier in enumerate(multipliers):
            made: list[nn.Module] = []
            for _ in range(options.blocks):
                made.append(GAPBlock(channels, width * multiplier))
                channels = width * multiplier
            self.down.append(nn.ModuleDict({"blocks": nn.Sequential(*made), **({"halve": Halve(channels)} if level < last else {})}))
        self.middle = nn.Sequential(GAPBlock(channels, channels), GAPBlock(channels, channels))
        self.norm_out = gap_norm(channels)
        self.conv_out = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            for part in level.children():
                x = part(x)
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))


class Halve(nn.Module):
    """3x3 convolution of stride 2 on an image extended by zeros at the right and bottom only: the result has floor(side / 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


NORM_GROUPS, NORM_EPSILON = 32, 1e-6


class GAPBlock(nn.Module):
    """Residual block of latent diffusion's autoencoders: twice GroupNorm, Swish, 3x3 convolution; no time, no attention.

    Maps (B, in_channels, H, W) to (B, out_channels, H, W), both multiples of 32; the shortcut is a 1x1 convolution where they differ.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = gap_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = gap_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(h))) + self.shortcut(x)


def gap_norm(channels: int) -> nn.GroupNorm:
    """Return the normalisation of these networks; raises UserError for widths that do not split into its groups."""
    if channels % NORM_GROUPS:
        raise UserError(f"{channels} channels do not split into {NORM_GROUPS} groups; choose widths that are multiples of {NORM_GROUPS}.")
    return nn.GroupNorm(NORM_GROUPS, channels, NORM_EPSILON)


Branches = Literal["both", "image", "latent"]
Modulation = Literal["scale", "sum"]
Upsampler = Literal["csum", "nearest_mlp", "fixed_x4"]
SLOPE = 0.05  # of every LeakyReLU in the refinement units


class ContrastAttention(nn.Module):
    """Multiply each channel by a weight in (0, 1) made from the sum of its mean and standard deviation over the image."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Conv2d(channels, channels // reduction, 1), nn.ReLU(), nn.Conv2d(channels // reduction, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        contrast = x.std(dim=(-2, -1), correction=0, keepdim=True) + x.mean(dim=(-2, -1), keepdim=True)
        return x * self.weigh(contrast).sigmoid()


class Distillation(nn.Module):
    """Information multi-distillation (IMD): each of three convolutions sets a quarter of the channels aside; all meet at the end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kept = width // 4
        rest = width - self.kept
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(rest, width, 3, padding=1)
        self.conv3 = nn.Conv2d(rest, width, 3, padding=1)
        self.conv4 = nn.Conv2d(rest, self.kept, 3, padding=1)
        self.attention = ContrastAttention(4 * self.kept)
        self.fuse = nn.Conv2d(4 * self.kept, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        kept, rest = [], x
        for conv in (self.conv1, self.conv2, self.conv3):
            part = F.leaky_relu(conv(rest), SLOPE, inplace=True)
            kept.append(part[:, : self.kept])
            rest = part[:, self.kept :]
        kept.append(self.conv4(rest))
        return x + self.fuse(self.attention(torch.cat(kept, dim=1)))


class RefinementUnit(nn.Module):
    """FRU: distillation modules in a row, whose results are joined, fused and added to the input."""

    def __init__(self, width: int, modules: int) -> None:
        super().__init__()
        self.distillations = nn.ModuleList(Distillation(width) for _ in range(modules))
        self.join = nn.Conv2d(width * modules, width, 1)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        results, last = [], x
        for distillation in self.distillations:
            last = distillation(last)
            results.append(last)
        return x + self.conv(F.leaky_relu(self.join(torch.cat(results, dim=1)), SLOPE, inplace=True))


def modulate(image: Tensor, latent: Tensor, image_weight: Tensor, latent_weight: Tensor) -> Tensor:
    """Return LeakyReLU(image * a + latent * b), (B, C, h, w), with the weights a, b (C,) first brought to a^2 + b^2 = 1 per channel."""
    norm = (image_weight.square() + latent_weight.square() + 1e-8).rsqrt()
    a, b = ((weight * norm)[:, None, None] for weight in (image_weight, latent_weight))
    return F.leaky_relu(image * a + latent * b, 0.01, inplace=True)


class LatentLevel(nn.Module):
    """One level of the latent branch: residual blocks, a 1x1 convolution to `width`, and the two weights as functions of the scale."""

    def __init__(self, in_channels: int, channels: int, width: int, blocks: int, is_modulated: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(GAPBlock(in_channels if i == 0 else channels, channels) for i in range(blocks)))
        self.transfer = nn.Conv2d(channels, width, 1)
        if is_modulated:
            self.image_weight = nn.Linear(1, width)
            self.latent_weight = nn.Linear(1, width)


class GAPDecoder(nn.Module):
    """forward(z (B, latent_channels, y, x), lr (B, c, h, w), (H, W)) -> (B, out_channels, H, W), unbounded; images in [-1, 1].

    All latent features are resized (nearest) to LR size; the last level is the first processed, and none enlarges. Modulation by the scale
    is told H / h, rows only, for the whole batch, see `modulate`.
    """

    def __init__(self, options: GAPDecoderConfig, latent_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width, multipliers = options.width, options.multipliers
        self.branches: Branches = options.branches
        self.modulation: Modulation = options.modulation
        self.has_image, self.has_latent = options.branches != "latent", options.branches != "image"
        if self.has_image:
            self.head = nn.Conv2d(in_channels, width, 3, padding=1)
            self.refine = nn.ModuleList(RefinementUnit(width, modules) for modules in options.refinements)
        if self.has_latent:
            channels = width * multipliers[-1]
            self.conv_in = nn.Conv2d(latent_channels, channels, 3, padding=1)
            self.middle = nn.Sequential(GAPBlock(channels, channels), GAPBlock(channels, channels))
            is_scaled = self.has_image and options.modulation == "scale"
            levels: list[LatentLevel] = []
            for multiplier in reversed(multipliers):
                levels.append(LatentLevel(channels, width * multiplier, width, options.blocks, is_scaled))
                channels = width * multiplier
            self.levels = nn.ModuleList(levels)  # in order of processing
        self.upsampler: CSUM | NearestMLP | FixedX4
        if options.upsampler == "csum":
            self.upsampler = CSUM(CSUMConfig(fuse_width=options.fuse_width), width, out_channels)
        else:
            self.upsampler = (NearestMLP if options.upsampler == "nearest_mlp" else FixedX4)(width, out_channels)

    def latent_features(self, z: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Return the feature of every level at LR size (h, w), each (B, width, h, w)."""
        x = self.middle(self.conv_in(z))
        features = []
        for level in self.levels:
            assert isinstance(level, LatentLevel)
            x = level.blocks(x)
            features.append(F.interpolate(level.transfer(x), size=size, mode="nearest"))
        return features

    def image_features(self, lr: Tensor, latents: Sequence[Tensor], scale: float) -> Tensor:
        """Return the image branch's last feature, (B, width, h, w), each latent feature having joined it before a refinement unit."""
        x = self.head(lr)
        told = torch.full((1,), scale, dtype=lr.dtype, device=lr.device)
        count = len(self.levels) if self.has_latent else len(self.refine)
        for k in range(count):
            if self.has_latent and self.modulation == "scale":
                level = self.levels[k]
                assert isinstance(level, LatentLevel)
                x = modulate(x, latents[k], level.image_weight(told), level.latent_weight(told))
            elif self.has_latent:
                x = x + latents[k]
            x = self.refine[k](x) if len(self.refine) else x
        return x

    def forward(self, z: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
        h, w = lr.shape[-2:]
        latents = self.latent_features(z, (h, w)) if self.has_latent else []
        x = self.image_features(lr, latents, size[0] / h) if self.has_image else latents[-1]
        return self.upsampler(x, size) + enlarge(lr, size)


def check_width(width: int, multipliers: tuple[int, ...], blocks: int) -> None:
    """Raise ValueError for sizes that make no network of these blocks."""
    if not multipliers or min(multipliers) < 1 or blocks < 1 or width < NORM_GROUPS or width % NORM_GROUPS:
        raise UserError(
            f"width={width}, multipliers={list(multipliers)}, blocks={blocks} make no network; choose a width that is a multiple of "
            f"{NORM_GROUPS} and numbers of at least 1."
        )


@config
class GAPEncoderConfig:
    """The convolutional encoder."""

    width: int = 64
    """Channels of the first level; a multiple of 32."""
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    """Channels of each level in units of `width`; the image is halved between levels."""
    blocks: int = 2
    """Residual blocks per level."""

    def __post_init__(self) -> None:
        check_width(self.width, self.multipliers, self.blocks)

    def build(self, in_channels: int, out_channels: int) -> GAPEncoder:
        """Return the encoder with fresh weights."""
        return GAPEncoder(self, in_channels, out_channels)


@config
class GAPDecoderConfig:
    """The super-resolving decoder; the defaults are the published ones, the last three options its ablations."""

    read_with: ClassVar[ReadWith] = {"fuse_width": ("upsampler", ("csum",))}

    width: int = 64
    """Channels of the image branch; a multiple of 32."""
    multipliers: tuple[int, ...] = (1, 1, 1, 1)
    """Channels of each latent level in units of `width`; the last is processed first."""
    blocks: int = 2
    """Residual blocks per latent level."""
    refinements: tuple[int, ...] = (12, 12, 12, 12)
    """Distillation modules of the refinement unit behind each level; empty leaves the units out (ablation wo_fru)."""
    branches: Branches = "both"
    """both; image: ignores the latent (ablation 1, plain super-resolution); latent: no image branch (ablation 3)."""
    modulation: Modulation = "scale"
    """How the latent joins the image: weighed by functions of the scale, or added (ablation 4)."""
    fuse_width: int = 256
    """Channels of the layers at target size that fuse the maps of the csum, most of the work."""
    upsampler: Upsampler = "csum"
    """csum; nearest_mlp (ablation wo_csum); fixed_x4 (the fixed-scale variant)."""
    starts_bicubic: Annotated[bool, Ours("weights")] = False
    """Begin training with the last layer at zero, so that a fresh decoder gives the enlarged LR (ours, for short trainings)."""

    def __post_init__(self) -> None:
        check_width(self.width, self.multipliers, self.blocks)
        if self.refinements and len(self.refinements) != len(self.multipliers):
            raise UserError(
                f"refinements has {len(self.refinements)} numbers for {len(self.multipliers)} levels; give one per level, or none."
            )
        if self.fuse_width < 1:
            raise UserError(f"fuse_width={self.fuse_width} was given; choose at least 1.")
        if self.branches == "image" and not self.refinements:
            raise UserError("branches=image without refinements is no network; give one number per level.")

    def build(self, latent_channels: int, in_channels: int, out_channels: int) -> GAPDecoder:
        """Return the decoder with fresh weights."""
        decoder = GAPDecoder(self, latent_channels, in_channels, out_channels)
        if self.starts_bicubic:
            zeroed(decoder.upsampler.last_layer)
        return decoder
