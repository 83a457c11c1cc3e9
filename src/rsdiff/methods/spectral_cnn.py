"""A plain CNN for spectral super-resolution, trained by the mean absolute error and the spectral angle: a baseline of ours."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.losses.masked import masked_l1
from rsdiff.losses.spectral import spectral_angle_loss
from rsdiff.methods.base import Losses, MethodConfig, Problem
from rsdiff.methods.spectral_linear import refuse_other_scales
from rsdiff.methods.spectral_regression import SpectralRegression
from rsdiff.networks.spectral_cnn import SpectralCNN


@config
class SpectralCNNConfig(MethodConfig):
    """The CNN; the defaults have about 1.2 million parameters for 3 -> 48 bands."""

    usual_scale: ClassVar[int] = 1

    width: int = 64
    """Channels of the features."""
    blocks: int = 16
    """Residual blocks."""
    angle_weight: float = 0.1
    """Weight of the spectral angle beside the mean absolute error."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 1:
            raise UserError(f"width={self.width}, blocks={self.blocks} make no network; choose numbers of at least 1.")

    def refuse(self, problem: Problem) -> str | None:
        return refuse_other_scales("spectral_cnn", problem)

    def build(self, problem: Problem) -> SpectralRegression:
        network = SpectralCNN(in_bands=problem.lr_bands, out_bands=problem.bands, width=self.width, blocks=self.blocks)
        return SpectralRegression(network, self.objective)

    def objective(self, estimate: Tensor, target: Tensor, valid: Tensor | None = None) -> Losses:
        """Return the mean absolute error plus the weighted spectral angle."""
        error, angle = masked_l1(estimate, target, valid), spectral_angle_loss(estimate, target, valid)
        return Losses(error + self.angle_weight * angle, {"error": error.detach(), "angle": angle.detach()})
