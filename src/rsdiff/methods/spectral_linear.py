"""Per-pixel linear regression of the spectrum: the baseline that spectral super-resolution has to beat.

The solution of the normal equations of all training crops seen so far restores; a few dozen steps that cover the training images suffice.
The loss and its gradient are those of `weights`, which are set to it after every step, so that the optimiser has no say; they are not what
restores, because averages of weights (`trainer.ema`) would lag behind. On several processes each solves for its own share of the crops and
the first one's solution is kept.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage

ROWS = 256
"""Rows of an image whose sums are made at a time: bounds the memory that float64 takes for whole scenes."""


@config
class SpectralLinearConfig(MethodConfig):
    """Affine regression of every target band on the input bands of the same pixel."""

    usual_scale: ClassVar[int] = 1

    degree: int = 1
    """Powers of the input bands that are regressed on, from 1 to this one."""
    ridge: float = 1e-8
    """Penalty on the weights, as a share of the mean energy of the inputs; keeps the equations solvable where bands are alike."""

    def __post_init__(self) -> None:
        if self.degree < 1 or self.ridge < 0:
            raise ValueError(f"degree={self.degree} must be at least 1 and ridge={self.ridge} 0 or more.")

    def refuse(self, problem: Problem) -> str | None:
        return refuse_other_scales("spectral_linear", problem)

    def build(self, problem: Problem) -> SpectralLinear:
        return SpectralLinear(self, problem)


def refuse_other_scales(name: str, problem: Problem) -> str | None:
    """Return the sentence with which a method that keeps the pixels refuses any scale but 1, or None."""
    if problem.scale == 1:
        return None
    return f"model {name} adds bands and keeps the pixels, and the scale is {problem.scale:g}; set scale=1."


class SpectralLinear(Method):
    """See the module and `SpectralLinearConfig`. The sums of the normal equations are buffers: a resumed run continues them."""

    gram: Tensor
    moments: Tensor
    solution: Tensor

    def __init__(self, options: SpectralLinearConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        features = problem.lr_bands * options.degree + 1
        self.weights = nn.Parameter(torch.zeros(features, problem.bands))
        self.register_buffer("gram", torch.zeros(features, features, dtype=torch.float64))
        self.register_buffer("solution", torch.zeros(features, problem.bands))
        self.register_buffer("moments", torch.zeros(features, problem.bands, dtype=torch.float64))

    def features(self, lr: Tensor) -> Tensor:
        """Return (B, h, w, features): powers of the input bands, and 1."""
        powers = [lr**power for power in range(1, self.options.degree + 1)]
        return torch.cat([*powers, torch.ones_like(lr[:, :1])], dim=1).movedim(1, -1)

    def losses(self, batch: Batch, group: str, noise: NoiseSource) -> Losses:
        if self.training:
            self.accumulate(batch)
        total = F.mse_loss(self.features(batch.need("lr")) @ self.weights, batch.need("hr").movedim(1, -1))
        return Losses(total, {"error": total.detach()})

    @torch.no_grad()
    def accumulate(self, batch: Batch) -> None:
        """Add the valid pixels of a batch to the sums of the normal equations."""
        lr, hr = batch.need("lr"), batch.need("hr")
        valid = torch.ones_like(hr[:, :1]) if batch.valid is None else batch.valid
        for some_lr, some_hr, counts in zip(lr.split(ROWS, -2), hr.split(ROWS, -2), valid.split(ROWS, -2), strict=True):
            rows = (self.features(some_lr) * counts.movedim(1, -1)).flatten(0, 2).double()
            self.gram += rows.T @ rows
            self.moments += rows.T @ some_hr.movedim(1, -1).flatten(0, 2).double()

    @torch.no_grad()
    def after_step(self, stage: Stage, step: int) -> None:
        self.solve()

    @torch.no_grad()
    def solve(self) -> None:
        """Set the solution, and the weights, to that of all pixels seen so far."""
        size = len(self.gram)
        penalty = self.options.ridge * self.gram.diagonal().mean() * torch.eye(size, dtype=torch.float64, device=self.gram.device)
        self.solution.copy_(torch.linalg.solve(self.gram + penalty, self.moments))
        self.weights.copy_(self.solution)

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.regressed(batch.need("lr"))

    def regressed(self, lr: Tensor) -> Tensor:
        """Return (B, C, h, w), all bands of the pixels of `lr`; may leave [0, 1]."""
        return (self.features(lr) @ self.solution).movedim(-1, 1)
