"""Bicubic enlargement: the baseline without parameters that every table compares with."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.sample import Batch
from rsdiff.degradations.resizing import ResizeBackend, resize
from rsdiff.methods.base import Method, MethodConfig, Problem

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


@config
class BicubicMethodConfig(MethodConfig):
    """Bicubic enlargement."""

    samples: ClassVar[bool] = False

    resize: ResizeBackend = "matlab"
    """Back-end, see rsdiff.degradations.resizing; MATLAB's is what super-resolution tables call bicubic."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"lr"})

    @property
    def any_scale(self) -> bool:
        return True

    @property
    def is_ready(self) -> bool:
        return True

    def refuse(self, problem: Problem) -> str | None:
        if problem.bands != problem.lr_bands:
            return (
                f"model bicubic keeps the bands, and the target has {problem.bands} where the input has {problem.lr_bands}; "
                "choose a model that is trained."
            )
        if self.resize == "direct":
            return "model.resize=direct only shrinks images; choose matlab, clamped, torch, opencv or pillow."
        return None

    def build(self, problem: Problem) -> Bicubic:
        return Bicubic(self)


class Bicubic(Method):
    """See the module."""

    def __init__(self, options: BicubicMethodConfig) -> None:
        super().__init__()
        self.options = options

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return resize(batch.need("lr"), batch.size, self.options.resize)
