"""A regression per pixel as a base, fitted while training runs."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.diffusion.bases import Base, BaseConfig, Target
from rsdiff.networks.running_regression import RunningRegression


class Regression(Base):
    """An affine regression per pixel, of images whose pixels are those of the target."""

    adds: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    def __init__(self, lr_bands: int, bands: int, ridge: float) -> None:
        super().__init__()
        self.regression = RunningRegression(lr_bands, bands, ridge)

    def observe(self, lr: Tensor, target: Tensor, valid: Tensor | None) -> None:
        self.regression.accumulate(lr, target, valid)

    def settle(self) -> None:
        self.regression.solve()

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        image: Tensor = self.regression(lr)
        return image


@config
class RegressionConfig(BaseConfig):
    """A linear regression of the target's bands on the input's, fitted while training."""

    kind: ClassVar[str] = "regression"

    ridge: float = 1e-4
    """Penalty on its weights, as a share of the mean energy of the inputs."""

    def __post_init__(self) -> None:
        if self.ridge < 0:
            raise UserError(f"ridge={self.ridge} was given; choose 0 or more.")

    def refuse_base(self, model: str, problem: Target) -> str | None:
        if problem.scale != 1:
            return f"model.base=regression keeps the pixels and the scale is {problem.scale:g}; set model.base=enlarged or scale=1."
        return None

    def build_base(self, problem: Target) -> Base:
        return Regression(problem.lr_bands, problem.bands, self.ridge)
