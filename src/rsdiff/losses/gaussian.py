"""The posterior of a variational autoencoder: one Gaussian per latent value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

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
