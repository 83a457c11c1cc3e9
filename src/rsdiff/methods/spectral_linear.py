"""Per-pixel linear regression of the spectrum: the baseline that spectral super-resolution has to beat.

The solution of the normal equations of all training crops seen so far restores; a few dozen steps that cover the training images suffice.
The loss and its gradient are those of `weights`, which are set to it after every step, so that the optimiser has no say; they are not what
restores, because averages of weights (`trainer.ema`) would lag behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.sample import Batch
from rsdiff.losses.images import masked_mse
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage
from rsdiff.networks.running_regression import RunningRegression

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


@config
class SpectralLinearConfig(MethodConfig):
    """Affine regression of every target band on the input bands of the same pixel."""

    samples: ClassVar[bool] = False
    usual_scale: ClassVar[int] = 1

    degree: int = 1
    """Powers of the input bands that are regressed on, from 1 to this one."""
    ridge: float = 1e-8
    """Penalty on the weights, as a share of the mean energy of the inputs; keeps the equations solvable where bands are alike."""

    def __post_init__(self) -> None:
        if self.degree < 1 or self.ridge < 0:
            raise UserError(f"degree={self.degree} must be at least 1 and ridge={self.ridge} 0 or more.")

    def refuse(self, problem: Problem) -> str | None:
        return problem.refuse_other_scales("spectral_linear")

    def build(self, problem: Problem) -> SpectralLinear:
        return SpectralLinear(self, problem)


class SpectralLinear(Method):
    """See the module and `SpectralLinearConfig`."""

    def __init__(self, options: SpectralLinearConfig, problem: Problem) -> None:
        super().__init__()
        self.regression = RunningRegression(problem.lr_bands, problem.bands, options.ridge, options.degree)
        self.weights = nn.Parameter(torch.zeros_like(self.regression.solution))

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        lr, hr = batch.need("lr"), batch.need("hr")
        if self.training:
            self.regression.accumulate(lr, hr, batch.whole_pixels)
        total = masked_mse((self.regression.features(lr) @ self.weights).movedim(-1, 1), hr, batch.valid)
        return {"restorer": Losses(total, {"error": total.detach()})}

    @torch.no_grad()
    def after_step(self, stage: Stage, step: int) -> None:
        self.regression.solve()
        self.weights.copy_(self.regression.solution)

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.regression(batch.need("lr"))
