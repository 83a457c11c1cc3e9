"""LDCSR's first stage: an autoencoder whose latent holds what the LR image lacks, and whose decoder enlarges LR to any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.data.enlarging import enlarge
from rsdiff.data.problem import Problem
from rsdiff.networks.gap_autoencoder import NORM_GROUPS, Branches, GAPDecoder, GAPEncoder, Modulation, Upsampler
from rsdiff.networks.layers import zeroed


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
        return GAPEncoder(in_channels, self.width, self.multipliers, self.blocks, out_channels)


@config
class GAPDecoderConfig:
    """The super-resolving decoder; the defaults are the published ones, the last three options its ablations."""

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
    """Channels of the layers at target size that fuse the maps of the csum, most of the work; not read by the others."""
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
        decoder = GAPDecoder(
            latent_channels=latent_channels,
            in_channels=in_channels,
            out_channels=out_channels,
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            refinements=self.refinements,
            branches=self.branches,
            modulation=self.modulation,
            upsampler=self.upsampler,
            fuse_width=self.fuse_width,
        )
        if self.starts_bicubic:
            zeroed(decoder.upsampler.last_layer)
        return decoder


@config
class AutoencoderConfig:
    """Encoder, decoder and the latent between them."""

    encoder: GAPEncoderConfig = GAPEncoderConfig()
    """Not read where the decoder's branches=image, which needs no latent."""
    decoder: GAPDecoderConfig = GAPDecoderConfig()
    """Options of the decoder."""
    encoder_sees: Literal["both", "target"] = "both"
    """Input of the encoder: the enlarged LR and the target, or the target alone (ablation 3)."""
    encoder_channels: int = 4
    """Channels of mean and log-variance as the encoder gives them, and of what the decoder receives."""
    latent_channels: int = 4
    """Channels of the latent, between the two 1x1 convolutions."""

    def __post_init__(self) -> None:
        if min(self.encoder_channels, self.latent_channels) < 1:
            raise UserError(
                f"encoder_channels={self.encoder_channels} and latent_channels={self.latent_channels} were given; choose at least 1."
            )

    def refuse(self, problem: Problem) -> str | None:
        """Return a sentence where the decoder cannot treat the problem."""
        if problem.bands != problem.lr_bands:
            return (
                f"LDCSR adds to the enlarged input, which has {problem.lr_bands} bands and the target {problem.bands}; "
                "use data with as many."
            )
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
        seen = torch.cat([enlarged(lr, size), hr], dim=1) if self.options.encoder_sees == "both" else hr
        return DiagonalGaussian.of_moments(self.quantise(self.encoder(seen)))

    def decode(self, latent: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the image of `size` (H, W), unbounded, from a latent and the LR image; without a latent branch the latent is not read."""
        return self.decoder(self.unquantise(latent) if self.has_latent else latent, lr, size)

    @property
    def cell(self) -> int:
        """Side in target pixels of what one latent value stands for."""
        return int(2 ** (len(self.options.encoder.multipliers) - 1))


def enlarged(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """Return lr (B, c, h, w) at `size`: bicubic, a = -0.75, half-pixel centres, no antialiasing, not clamped."""
    return enlarge(lr, size)


LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE = -30.0, 20.0


@dataclass(frozen=True)
class DiagonalGaussian:
    """mean, log_variance: (B, C, y, x). Source: latent diffusion's DiagonalGaussianDistribution."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of_moments(cls, moments: Tensor) -> DiagonalGaussian:
        """Return the Gaussian of an encoder's output (B, 2 C, y, x): means, then log-variances, which are limited to [-30, 20]."""
        mean, log_variance = moments.chunk(2, dim=1)
        return cls(mean, log_variance.clamp(LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE))

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + deviation * noise, for standard normal noise of the mean's shape."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self, other: DiagonalGaussian | None = None) -> Tensor:
        """Return the Kullback-Leibler divergence to `other`, or to the standard normal, summed per image: (B,)."""
        if other is None:
            terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        else:
            gap = (self.mean - other.mean).square() + self.log_variance.exp()
            terms = gap / other.log_variance.exp() - 1 - self.log_variance + other.log_variance
        return 0.5 * terms.flatten(1).sum(1)

    def negative_log_likelihood(self, value: Tensor) -> Tensor:
        """Return -log density of `value` (B, C, y, x), summed per image: (B,)."""
        terms = math.log(2 * math.pi) + self.log_variance + (value - self.mean).square() / self.log_variance.exp()
        return 0.5 * terms.flatten(1).sum(1)


def inverse_deviation(latents: Tensor) -> Tensor:
    """Return 1 / standard deviation over all elements, (): the factor that brings latents to unit variance."""
    return 1 / latents.detach().flatten().std().clamp(min=torch.finfo(latents.dtype).tiny)
