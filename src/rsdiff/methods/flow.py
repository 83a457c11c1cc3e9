"""Rectified flow on the conditional U-Net: a straight path from the image to noise, whose velocity the network predicts.

x_t = (1 - t) x0 + t n, velocity n - x0. Sources: Liu et al., ICLR 2023; Lipman et al., ICLR 2023; for times from a logistic-normal
distribution, Esser et al., ICML 2024. The condition, the enlarged LR image beside the noisy one, is SR3's.

Solvers see y = x_t / (1 - t) and sigma = t / (1 - t): in these terms the flow is one more preconditioning and one more law of levels, and
any solver runs it; Euler's step along the path is DDIM's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.enlarging import enlarge_signed
from rsdiff.data.sample import Batch
from rsdiff.diffusion.edm import Coefficients, EdmDenoiser, denoising_error
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.losses.images import masked_mean
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_multiple
from rsdiff.networks.ddpm_unet import DDPMUNetConfig
from rsdiff.networks.layers import reflect_to_multiple

TIMES = 1000
"""The network receives a time from 0 to this; samplers pick from as many levels."""


@config
class FlowLevels:
    """Times of training, and the weight with which the error of D is that of the velocity."""

    read_with: ClassVar[ReadWith] = {"deviation": ("times", ("logit_normal",))}

    times: Literal["uniform", "logit_normal"] = "uniform"
    """Uniform in t, as rectified flow is published, or more often near the middle (Stable Diffusion 3)."""
    deviation: float = 1.0
    """Standard deviation of the logit of t for times=logit_normal."""

    def __post_init__(self) -> None:
        if self.deviation <= 0:
            raise UserError(f"deviation={self.deviation} was given; choose a number above 0.")

    def draw(self, noise: NoiseSource, count: int, device: torch.device | str) -> Tensor:
        """Return `count` levels, one draw per image."""
        if self.times == "logit_normal":
            return (self.deviation * noise.normal((count,), device)).exp()  # t / (1 - t) is the exponential of the logit
        t = noise.uniform((count,), device).clamp(1 / TIMES, 1 - 1 / TIMES)
        return t / (1 - t)

    def weight(self, sigma: Tensor) -> Tensor:
        """Return 1 / t^2: the velocity is (x_t - D) / t."""
        return ((1 + sigma) / sigma).square()


@dataclass(frozen=True)
class FlowPreconditioning:
    """D = x_t - t F with t = sigma / (1 + sigma), F the velocity."""

    @property
    def table(self) -> Tensor:
        """Levels of times equally far apart, ascending, float64 on the CPU."""
        t = torch.arange(1, TIMES, dtype=torch.float64, device="cpu") / TIMES
        return t / (1 - t)

    @property
    def sigma_min(self) -> float:
        return float(self.table[0])

    @property
    def sigma_max(self) -> float:
        return float(self.table[-1])

    def coefficients(self, sigma: Tensor) -> Coefficients:
        rest = 1 / (1 + sigma)
        return Coefficients(skip=rest, out=-sigma * rest, into=rest, noise=TIMES * sigma * rest)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma.clamp(self.sigma_min, self.sigma_max)


@config
class FlowConfig(MethodConfig):
    """Rectified flow, conditioned on the LR image."""

    has_own_step: ClassVar[bool | None] = False

    network: DDPMUNetConfig = DDPMUNetConfig(multipliers=(1, 2, 4, 8, 8))
    """The U-Net."""
    levels: FlowLevels = FlowLevels()
    """Times of training."""

    @property
    def sampled_levels(self) -> int:
        return TIMES - 1

    def starts_at_image(self, problem: Problem) -> bool:
        return problem.bands == problem.lr_bands

    def refuse(self, problem: Problem) -> str | None:
        return None if problem.scale >= 1 else f"model flow enlarges images and the scale is {problem.scale:g}; set scale=1 or more."

    def build(self, problem: Problem) -> Flow:
        return Flow(self, problem)


class Flow(Method):
    """See the module."""

    def __init__(self, options: FlowConfig, problem: Problem) -> None:
        super().__init__()
        self.options, self.bands = options, problem.bands
        self.network = options.network.build(problem.bands + problem.lr_bands, problem.bands)

    def denoiser(self, image: Tensor) -> EdmDenoiser:
        """Return D of images in [-1, 1] for the enlarged LR (B, c, H, W)."""
        return EdmDenoiser(lambda x, time: self.network(torch.cat([image.to(x.dtype), x], dim=1), time), FlowPreconditioning())

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_multiple(batch, self.options.network.size_multiple)
        image = enlarge_signed(batch.need("lr"), batch.size)
        error = denoising_error(self.denoiser(image), self.options.levels, 2 * batch.need("hr") - 1, noise).error
        return {"restorer": Losses.weighted({"velocity": (1.0, masked_mean(error, batch.valid))})}

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        image = reflect_to_multiple(enlarge_signed(batch.need("lr"), batch.size), self.options.network.size_multiple)
        start = image if image.shape[1] == self.bands else None
        made = sample(sampler, self.denoiser(image), (len(batch), self.bands, *image.shape[-2:]), noise, device=image.device, image=start)
        return (made[..., : batch.size[0], : batch.size[1]].float() + 1) / 2
