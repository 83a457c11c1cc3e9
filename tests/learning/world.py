"""A world whose best answer is known: Gaussian textures of a known spectrum, seen through a real degradation.

Everything follows from dense linear algebra: the degradation's matrix is what it makes of unit images, borders and aliasing included, so
that the posterior of the target given its LR is Gaussian with known mean and covariance. From it follow the best estimate at every noise
level, its error, and the distribution of perfect samples. Images are (B, C, H, W) in [0, 1]; the mathematics is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rsdiff.data.sample import Batch, Sample, SampleMeta, collate
from rsdiff.degradations.base import Degradation, DegradationConfig, degrade
from rsdiff.degradations.gaussian import GaussianDegradationConfig

PROBE = 0.125  # height of the unit images that the degradation's matrix is measured with


@dataclass(frozen=True)
class Texture:
    """Spectrum of a stationary texture on a torus: variance of a frequency ~ 1 / (knee^2 + k^2)^(slope / 2), k in cycles per image.

    deviation  standard deviation of a pixel, in [0, 1]
    """

    deviation: float = 0.07
    knee: float = 2.0
    slope: float = 4.0

    def covariance(self, side: int) -> Tensor:
        """Return the covariance (side^2, side^2) of the pixels of one band."""
        frequency = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
        squared = frequency[:, None] ** 2 + frequency[None] ** 2
        power = (self.knee**2 + squared) ** (-self.slope / 2)
        row = torch.fft.ifft2(power).real
        row = row * (self.deviation**2 / row[0, 0])
        rows = torch.arange(side)
        apart = (rows[:, None] - rows[None]) % side
        return row[apart[:, None, :, None], apart[None, :, None, :]].reshape(side**2, side**2)


@dataclass(frozen=True)
class Posterior:
    """Gaussian posteriors of a batch of targets given their LR images, which share their covariance.

    mean       (B, n), flattened images in [0, 1]
    variances  (n,), descending eigenvalues of the covariance
    axes       (n, n), its eigenvectors in columns
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor

    def denoise(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Return the mean (B, n) of x given y = x + sigma n as well; sigma (B,)."""
        gain = self.variances / (self.variances + sigma[:, None] ** 2)
        return self.mean + (((y - self.mean) @ self.axes) * gain) @ self.axes.T

    def sample(self, generator: torch.Generator) -> Tensor:
        """Return one perfect sample (B, n) per LR image."""
        drawn = torch.randn(self.mean.shape, generator=generator, dtype=torch.float64)
        return self.mean + (drawn * self.variances.sqrt()) @ self.axes.T

    def pixel_variance(self, sigma: Tensor) -> Tensor:
        """Return (B, n): the variance of x given y and LR, of every pixel, at levels sigma (B,); at infinity the posterior's own."""
        left = self.variances / (1 + self.variances / sigma[:, None] ** 2)
        return left @ (self.axes**2).T


class GaussianWorld:
    """Textures of `bands` correlated bands, and what a degradation makes of them.

    side, scale   pixels per side of the target, and how much the LR is smaller
    degradation   options of a linear degradation without clamping or rounding; the noise of its LR must be declared by `noise`
    noise         standard deviation of the LR noise in [0, 1]
    correlation   between neighbouring bands; that of bands i and j is correlation^|i - j|
    """

    def __init__(
        self,
        side: int = 16,
        scale: float = 2,
        bands: int = 1,
        texture: Texture | None = None,
        degradation: DegradationConfig | None = None,
        noise: float = 0.01,
        correlation: float = 0.9,
    ) -> None:
        self.side, self.scale, self.bands, self.noise = side, scale, bands, noise
        if degradation is None:
            degradation = GaussianDegradationConfig(kernel_size=7, width=1.2, noise=255 * noise, rounding=False, clamp="never")
        self.degradation: Degradation = degradation.build()
        apart = (torch.arange(bands)[:, None] - torch.arange(bands)[None]).abs()
        between = torch.tensor(correlation, dtype=torch.float64) ** apart
        self.covariance = torch.kron(between, (texture or Texture()).covariance(side))
        self.root = torch.linalg.cholesky(self.covariance + 1e-12 * torch.eye(len(self.covariance), dtype=torch.float64))

    @property
    def lr_side(self) -> int:
        """Pixels per side of the LR."""
        return round(self.side / self.scale)

    @property
    def lr_bands(self) -> int:
        """Bands of the LR."""
        return len(self.operator) // self.lr_side**2

    @property
    def values(self) -> int:
        """n, values of a target."""
        return self.bands * self.side**2

    def draw(self, count: int, seed: int) -> Tensor:
        """Return `count` targets (B, C, H, W)."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn((count, self.values), generator=generator, dtype=torch.float64)
        return (0.5 + drawn @ self.root.T).float().reshape(count, self.bands, self.side, self.side)

    def batch(self, count: int, seed: int, views: int = 1, hr: Tensor | None = None) -> Batch:
        """Return `count` targets with their LR, made by the real degradation as the trainer makes it."""
        return degrade(self.undegraded(count, seed, views, hr), self.degradation)

    def undegraded(self, count: int, seed: int, views: int = 1, hr: Tensor | None = None) -> Batch:
        """Return `count` targets with the decisions of their degradation; `views` crops each under one degradation."""
        images = self.draw(count * views, seed).reshape(count, views, self.bands, self.side, self.side)
        if hr is not None:
            images[:, 0] = hr
        samples = []
        for index in range(count):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            shape, size = (self.bands, self.side, self.side), (self.lr_side, self.lr_side)
            decisions = self.degradation.draw(generator, shape, size, views)
            others = images[index, 1:] if views > 1 else None
            meta = SampleMeta(name=f"texture{index}", index=index, epoch=seed)
            samples.append(Sample(meta=meta, hr=images[index, 0], hr_views=others, lr_size=size, decisions=decisions))
        return collate(samples)

    def apply(self, images: Tensor) -> Tensor:
        """Return the LR (B, c, h, w) of images (B, C, H, W), without noise."""
        decisions = self.degradation.draw(torch.Generator(), (self.bands, self.side, self.side), (self.lr_side, self.lr_side))
        quiet = [replace(decisions[0], noise_field=None) if hasattr(decisions[0], "noise_field") else decisions[0]] * len(images)
        return self.degradation.apply(images, quiet).lr

    @cached_property
    def operator(self) -> Tensor:
        """The degradation's matrix (m, n), measured: what it makes of unit images."""
        grey = torch.full((1, self.bands, self.side, self.side), 0.5)
        units = PROBE * torch.eye(self.values).reshape(self.values, self.bands, self.side, self.side)
        made = self.apply(grey + units) - self.apply(grey)
        return (made / PROBE).double().flatten(1).T

    @cached_property
    def _given_lr(self) -> tuple[Tensor, Tensor, Tensor]:
        """(gain (n, m), eigenvalues, eigenvectors) of the posterior."""
        a = self.operator
        seen = a @ self.covariance @ a.T + self.noise**2 * torch.eye(len(a), dtype=torch.float64)
        gain = torch.linalg.solve(seen, a @ self.covariance).T
        left = self.covariance - gain @ a @ self.covariance
        variances, axes = torch.linalg.eigh((left + left.T) / 2)
        return gain, variances.clamp(min=1e-12).flip(0), axes.flip(1)

    def posterior(self, lr: Tensor) -> Posterior:
        """Return the posteriors of the targets given lr (B, c, h, w)."""
        gain, variances, axes = self._given_lr
        centred = lr.double().flatten(1) - 0.5 * self.operator.sum(1)
        return Posterior(0.5 + centred @ gain.T, variances, axes)

    def best_error(self, sigma: float = math.inf) -> float:
        """Return the mean squared error per value of the best estimate from LR and y = x + sigma n; at infinity of that from LR alone."""
        variances = self._given_lr[1]
        return float((variances / (1 + variances / sigma**2)).mean())

    def shaped(self, flat: Tensor) -> Tensor:
        """Return flattened images (B, n) as (B, C, H, W) float32."""
        return flat.float().reshape(-1, self.bands, self.side, self.side)
