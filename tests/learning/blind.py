"""A world whose blur is unknown: the LR tells of it what it tells, and the best answer weighs all blurs by that."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from rsdiff.degradations.gaussian import GaussianDegradationConfig
from rsdiff.degradations.kernels import isotropic_kernels
from tests.learning.mixture import MixturePosterior, evidence_of
from tests.learning.world import GaussianWorld

WIDTHS, COUNT = (0.4, 2.0), 17
"""Range of the blur's width in target pixels, drawn evenly, and the widths that stand for it in the posterior."""


def _blurred(width: float | tuple[float, float], taps: int, noise: float) -> GaussianDegradationConfig:
    return GaussianDegradationConfig(kernel_size=taps, width=width, noise=255 * noise, rounding=False, clamp="never")


class BlindWorld(GaussianWorld):
    """Textures under an isotropic Gaussian blur of unknown width; see GaussianWorld.

    taps  side of the kernel
    """

    def __init__(self, side: int = 12, taps: int = 7, noise: float = 0.01) -> None:
        super().__init__(side, degradation=_blurred(WIDTHS, taps, noise), noise=noise)
        self.widths = torch.linspace(*WIDTHS, COUNT, dtype=torch.float64)
        self.parts = tuple(GaussianWorld(side, degradation=_blurred(float(width), taps, noise), noise=noise) for width in self.widths)
        self.kernels = isotropic_kernels(self.widths.float(), taps).double()

    @cached_property
    def _seen(self) -> list[tuple[Tensor, Tensor]]:
        noise = self.noise**2 * torch.eye(self.lr_side**2, dtype=torch.float64)
        return [(part.operator.sum(1), part.operator @ part.covariance @ part.operator.T + noise) for part in self.parts]

    def posterior(self, lr: Tensor) -> MixturePosterior:  # type: ignore[override]
        """Return the posteriors of the targets given lr (B, c, h, w), one for each width."""
        evidence = [evidence_of(lr.double().flatten(1) - 0.5 * gain, seen) for gain, seen in self._seen]
        return MixturePosterior(tuple(part.posterior(lr) for part in self.parts), torch.stack(evidence, dim=1).softmax(1))

    def best_kernels(self, lr: Tensor) -> Tensor:
        """Return the best estimates (B, k, k) of the kernels."""
        return torch.einsum("bk,kij->bij", self.posterior(lr).chances, self.kernels)
