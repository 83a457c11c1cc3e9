"""A method: an objective and what it is computed with. This one learns what the enlarged input lacks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mysr.network import ShuffleNetConfig
from rsdiff.config import config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage


@config
class MySRConfig(MethodConfig):
    """A residual, by the mean absolute error and the error of its gradients."""

    width: int = 32
    """Channels of the network."""
    gradient_weight: float = 0.1
    """Weight of the gradients' error."""

    def build(self, problem: Problem) -> MySR:
        return MySR(self, problem)


class MySR(Method):
    """The method of a `MySRConfig`."""

    def __init__(self, options: MySRConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.network = ShuffleNetConfig(width=options.width).build_network(problem)

    def enlarged(self, batch: Batch) -> Tensor:
        lr = batch.need("lr")
        return F.interpolate(lr, batch.size, mode="bicubic") + self.network(lr)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        error = self.enlarged(batch) - batch.need("hr")
        terms = {"l1": (1.0, error.abs().mean()), "gradient": (self.options.gradient_weight, error.diff(dim=-1).abs().mean())}
        return {"restorer": Losses.weighted(terms)}

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.enlarged(batch)
