"""A world of two textures, which the LR tells apart only in part: its posterior has two humps, and the best denoiser is not linear."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tests.learning.world import GaussianWorld, Posterior, Texture

ROUGH, SMOOTH = Texture(deviation=0.06, knee=2.0, slope=3.0), Texture(deviation=0.06, knee=2.0, slope=6.0)


@dataclass(frozen=True)
class MixturePosterior:
    """Posteriors of a batch of targets given their LR images: one Gaussian for each texture, and its probability.

    parts   of each texture
    chances (B, K), probabilities of the textures given the LR
    """

    parts: tuple[Posterior, ...]
    chances: Tensor

    @property
    def mean(self) -> Tensor:
        """Best estimate (B, n)."""
        return sum((chance[:, None] * part.mean for chance, part in zip(self.chances.T, self.parts, strict=True)), torch.zeros(()))

    def denoise(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Return the mean (B, n) of x given y = x + sigma n as well; sigma (B,)."""
        evidence = []
        for part in self.parts:
            along = (y - part.mean) @ part.axes
            variances = part.variances + sigma[:, None] ** 2
            evidence.append(-0.5 * (along.square() / variances + variances.log()).sum(1))
        shares = (self.chances.log() + torch.stack(evidence, dim=1)).softmax(1)
        estimates = [part.denoise(y, sigma) for part in self.parts]
        return sum((share[:, None] * estimate for share, estimate in zip(shares.T, estimates, strict=True)), torch.zeros(()))


def evidence_of(centred: Tensor, covariance: Tensor) -> Tensor:
    """Return the logarithm of the density (B,) of vectors (B, m) under a centred Gaussian, up to a constant."""
    root = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(len(covariance), dtype=covariance.dtype))
    white = torch.linalg.solve_triangular(root, centred.T, upper=False)
    return -0.5 * white.square().sum(0) - root.diagonal().log().sum()


class MixtureWorld(GaussianWorld):
    """Every target is one of two textures, each as often; see GaussianWorld."""

    def __init__(self, side: int = 12, textures: tuple[Texture, ...] = (ROUGH, SMOOTH)) -> None:
        super().__init__(side)
        self.parts = tuple(GaussianWorld(side, texture=texture) for texture in textures)

    def draw(self, count: int, seed: int) -> Tensor:
        """Return `count` targets (B, C, H, W), the textures in turn."""
        drawn = [part.draw(count, seed) for part in self.parts]
        return torch.stack([drawn[index % len(drawn)][index] for index in range(count)])

    @cached_property
    def _seen(self) -> list[Tensor]:
        """Covariance of the LR, by texture."""
        noise = self.noise**2 * torch.eye(len(self.operator), dtype=torch.float64)
        return [self.operator @ part.covariance @ self.operator.T + noise for part in self.parts]

    def posterior(self, lr: Tensor) -> MixturePosterior:  # type: ignore[override]
        """Return the posteriors of the targets given lr (B, c, h, w)."""
        centred = lr.double().flatten(1) - 0.5 * self.operator.sum(1)
        evidence = [evidence_of(centred, seen) for seen in self._seen]
        return MixturePosterior(tuple(part.posterior(lr) for part in self.parts), torch.stack(evidence, dim=1).softmax(1))

    def textures_of(self, flat: Tensor) -> Tensor:
        """Return the more likely texture (B,) of flattened images (B, n)."""
        return torch.stack([evidence_of(flat - 0.5, part.covariance) for part in self.parts], dim=1).argmax(1)
