"""What an estimate of an image is added to: nothing, the enlarged LR image, or a regression per pixel that is fitted while training runs.

A method asks its base for the image to add and, in training, shows it what it may learn from; networks know nothing of it.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.config.kinds import Kinds
from rsdiff.config.tagged import Tagged
from rsdiff.data.enlarging import enlarge
from rsdiff.diffusion import BASES


class Target(Protocol):
    """What a base must know of the problem: the bands of target and input, and the ratio of their pixels."""

    @property
    def scale(self) -> float: ...
    @property
    def bands(self) -> int: ...
    @property
    def lr_bands(self) -> int: ...


class Base(nn.Module):
    """forward(lr (B, c, h, w), size (H, W)) -> (B, C, H, W), in the range of lr; this one adds nothing."""

    adds: ClassVar[bool] = False
    """Whether there is something to add: where there is not, `onto` leaves an estimate as it is."""
    learns: ClassVar[bool] = False
    """Whether `observe` shall see the training batches."""

    def observe(self, lr: Tensor, target: Tensor, valid: Tensor | None) -> None:
        """Learn from a training batch; valid (B, 1, H, W) says which pixels count, None all."""

    def settle(self) -> None:
        """Use what was learned, after an optimiser step."""

    def onto(self, estimate: Tensor, lr: Tensor) -> Tensor:
        """Return what an estimate (B, C, H, W) makes with the base."""
        return estimate + self(lr, (int(estimate.shape[-2]), int(estimate.shape[-1]))) if self.adds else estimate

    def taken_off(self, target: Tensor, lr: Tensor) -> Tensor:
        """Return what of a target (B, C, H, W) is left to estimate: the inverse of `onto`."""
        return target - self(lr, (int(target.shape[-2]), int(target.shape[-1]))) if self.adds else target


class Enlarged(Base):
    """The LR image, enlarged bicubically."""

    adds: ClassVar[bool] = True

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        return enlarge(lr, size)


class BaseConfig(Tagged):
    """The family of bases."""

    family: ClassVar[str] = "base"
    kinds: ClassVar[Kinds] = BASES

    def refuse_base(self, model: str, problem: Target) -> str | None:
        """Return None, or one sentence that says why there is no such base for `problem`."""
        return None

    def build_base(self, problem: Target) -> Base:
        """Return the base."""
        return Base()


@config
class NoBaseConfig(BaseConfig):
    """Nothing: the estimate is the image."""

    kind: ClassVar[str] = "none"


@config
class EnlargedConfig(BaseConfig):
    """The enlarged LR image: an untrained model then gives that."""

    kind: ClassVar[str] = "enlarged"

    def refuse_base(self, model: str, problem: Target) -> str | None:
        if problem.bands != problem.lr_bands:
            return f"model {model} is to begin at the enlarged LR of {problem.lr_bands} bands for {problem.bands}; set model.base=none."
        return None

    def build_base(self, problem: Target) -> Base:
        return Enlarged()
