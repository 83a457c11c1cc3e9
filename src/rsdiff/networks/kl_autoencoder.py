"""LDCSR's first stage: an autoencoder whose latent holds what the LR image lacks, and whose decoder enlarges LR to any size.

GAPEncoder: what HR has and enlarged LR lacks, at an eighth of the size; alone, the condition encoder of the second stage.
GAPDecoder: a super-resolution network on LR, modulated by the latent and by the scale, with an output of any size.
Source: MoooJianG/LDCSR, modules/e2sr/s1_v6.py and its ablations (s1_v6_ablation1, 3, 4, _wo_csum, _wo_fru, _fixed_scale), which are
options here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ReadWith, require_at_least
from rsdiff.data.enlarging import enlarge
from rsdiff.data.problem import Problem
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
    """Return the normalisation of these networks."""
    return nn.GroupNorm(NORM_GROUPS, channels, NORM_EPSILON)


Modulation = Literal["scale", "sum"]
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
        raise UserError(f"width={width}, multipliers={list(multipliers)}, blocks={blocks}; give multiples of {NORM_GROUPS} and 1 or more.")


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

    read_with: ClassVar[ReadWith] = {
        "fuse_width": ("upsampler", ("csum",)),
        "blocks": ("branches", ("both", "latent")),
        "refinements": ("branches", ("both", "image")),
        "modulation": ("branches", ("both",)),
    }

    width: int = 64
    """Channels of the image branch; a multiple of 32."""
    multipliers: tuple[int, ...] = (1, 1, 1, 1)
    """Channels of each latent level in units of `width`; the last is processed first."""
    blocks: int = 2
    """Residual blocks per latent level."""
    refinements: tuple[int, ...] = (12, 12, 12, 12)
    """Distillation modules of the refinement unit behind each level; empty leaves the units out (ablation wo_fru)."""
    branches: Literal["both", "image", "latent"] = "both"
    """both; image: ignores the latent (ablation 1, plain super-resolution); latent: no image branch (ablation 3)."""
    modulation: Modulation = "scale"
    """How the latent joins the image: weighed by functions of the scale, or added (ablation 4)."""
    fuse_width: int = 256
    """Channels of the layers at target size that fuse the maps of the csum, most of the work."""
    upsampler: Literal["csum", "nearest_mlp", "fixed_x4"] = "csum"
    """csum; nearest_mlp (ablation wo_csum); fixed_x4 (the fixed-scale variant)."""
    initial: Annotated[Literal["kaiming", "enlarged"], Ours("training")] = "kaiming"
    """Initial weights: those of PyTorch, as published, or the last layer at zero, so that a fresh decoder gives the enlarged LR (ours)."""

    def __post_init__(self) -> None:
        check_width(self.width, self.multipliers, self.blocks)
        if self.refinements and len(self.refinements) != len(self.multipliers):
            raise UserError(f"refinements={list(self.refinements)} for {len(self.multipliers)} levels; give one per level, or none.")
        if self.fuse_width < 1:
            raise UserError(f"fuse_width={self.fuse_width} was given; choose at least 1.")
        if self.branches == "image" and not self.refinements:
            raise UserError("branches=image without refinements is no network; give one number per level.")

    def build(self, latent_channels: int, in_channels: int, out_channels: int) -> GAPDecoder:
        """Return the decoder with fresh weights."""
        decoder = GAPDecoder(self, latent_channels, in_channels, out_channels)
        if self.initial == "enlarged":
            zeroed(decoder.upsampler.last_layer)
        return decoder


@config
class AutoencoderConfig:
    """Encoder, decoder and the latent between them."""

    read_with: ClassVar[ReadWith] = dict.fromkeys(
        ("encoder", "encoder_sees", "encoder_channels", "latent_channels"), ("decoder.branches", ("both", "latent"))
    )

    encoder: GAPEncoderConfig = GAPEncoderConfig()
    """Options of the encoder."""
    decoder: GAPDecoderConfig = GAPDecoderConfig()
    """Options of the decoder."""
    encoder_sees: Literal["both", "target"] = "both"
    """Input of the encoder: the enlarged LR and the target, or the target alone (ablation 3)."""
    encoder_channels: int = 4
    """Channels of mean and log-variance as the encoder gives them, and of what the decoder receives."""
    latent_channels: int = 4
    """Channels of the latent, between the two 1x1 convolutions."""

    def __post_init__(self) -> None:
        require_at_least(self, encoder_channels=1, latent_channels=1)

    def refuse(self, problem: Problem) -> str | None:
        """Return a sentence where the decoder cannot treat the problem."""
        if problem.bands != problem.lr_bands:
            return f"LDCSR adds to the enlarged input of {problem.lr_bands} bands, the target has {problem.bands}; use data with as many."
        if problem.scale < 1:
            return f"LDCSR enlarges images and the scale is {problem.scale:g}; choose scale=1 or more."
        if self.decoder.upsampler == "fixed_x4" and problem.scale != 4:
            return f"upsampler=fixed_x4 enlarges by 4 and the scale is {problem.scale:g}; set scale=4 or upsampler=csum."
        return None

    def build(self, bands: int, lr_bands: int) -> KLAutoencoder:
        """Return the autoencoder with fresh weights."""
        return KLAutoencoder(self, bands, lr_bands)


class KLAutoencoder(nn.Module):
    """Images are (B, C, H, W) and (B, c, h, w) in [-1, 1]; latents (B, latent_channels, floor(H / 8), floor(W / 8)) at four levels.

    Source: MoooJianG/LDCSR, models/first_stage_kl_atom.py.
    """

    def __init__(self, options: AutoencoderConfig, bands: int, lr_bands: int) -> None:
        super().__init__()
        self.options = options
        self.has_latent = options.decoder.branches != "image"
        if self.has_latent:
            seen = bands + (lr_bands if options.encoder_sees == "both" else 0)
            self.encoder = options.encoder.build(seen, 2 * options.encoder_channels)
            self.quantise = nn.Conv2d(2 * options.encoder_channels, 2 * options.latent_channels, 1)
            self.unquantise = nn.Conv2d(options.latent_channels, options.encoder_channels, 1)
        self.decoder = options.decoder.build(options.encoder_channels, lr_bands, bands)

    def encode(self, hr: Tensor, lr: Tensor) -> DiagonalGaussian:
        """Return the posterior of the latent of a target hr and its LR."""
        size = (hr.shape[-2], hr.shape[-1])
        seen = torch.cat([enlarge(lr, size), hr], dim=1) if self.options.encoder_sees == "both" else hr
        return DiagonalGaussian.of_moments(self.quantise(self.encoder(seen)))

    def decode(self, latent: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the image of `size` (H, W), unbounded, from a latent and the LR image; without a latent branch the latent is not read."""
        return self.decoder(self.unquantise(latent) if self.has_latent else latent, lr, size)

    @property
    def cell(self) -> int:
        """Side in target pixels of what one latent value stands for."""
        return int(2 ** (len(self.options.encoder.multipliers) - 1))


@dataclass(frozen=True)
class DiagonalGaussian:
    """mean, log_variance: (B, C, y, x). Source: latent diffusion's DiagonalGaussianDistribution."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of_moments(cls, moments: Tensor) -> DiagonalGaussian:
        """Return the Gaussian of an encoder's output (B, 2 C, y, x): means, then log-variances, which are limited to [-30, 20]."""
        mean, log_variance = moments.chunk(2, dim=1)
        return cls(mean, log_variance.clamp(-30.0, 20.0))

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + deviation * noise, for standard normal noise of the mean's shape."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Tensor:
        """Return the Kullback-Leibler divergence to the standard normal, summed per image: (B,)."""
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.flatten(1).sum(1)
