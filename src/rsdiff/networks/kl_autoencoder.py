"""LDCSR's first stage: an autoencoder whose latent holds what the LR image lacks, and whose decoder enlarges LR to any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.enlarging import enlarge
from rsdiff.data.problem import Problem
from rsdiff.networks.gap_autoencoder import (
    GAPDecoderConfig,
    GAPEncoderConfig,
)


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
