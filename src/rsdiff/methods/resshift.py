"""ResShift: a diffusion between the target and the enlarged LR image, in 15 steps or 4.

Source: Yue et al., NeurIPS 2023: x_t = x0 + eta_t (y0 - x0) + kappa sqrt(eta_t) n, from the target x0 to the enlarged LR image y0; the
network predicts x0. Solvers see y = (x_t - eta y0) / (1 - eta) = x0 + sigma n, where sigma is kappa sqrt(eta) / (1 - eta).

Read beside zsyOAOA/ResShift at 3ce1d81, models/gaussian_diffusion.py: schedule lines 35-60, process 216-220, posterior 150-161, start
517-529, loss 565-582 (weight 1, as in every published config), input 598-609 (its branch for pixels), clipping sampler.py 156. Settings:
configs/realsr_swinunet_realesrgan256.yaml (15 steps) and realsr_swinunet_realesrgan256_journal.yaml (4 steps).

Unlike the published code: no autoencoder, so the diffusion is of pixels, where the clean estimate is clipped in every step; a U-Net without
Swin layers, which is shown the enlarged LR image instead of the LR image. The perceptual term of the 4-step configs is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.config.reading import require_above, require_at_least, require_below
from rsdiff.data.enlarging import enlarge_signed
from rsdiff.data.sample import Batch
from rsdiff.data.transfer import to_device
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.solvers import DataRange, Network, evaluate, nearest_index, per_image, residual_shift_rule
from rsdiff.losses.images import masked_mse
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_multiple
from rsdiff.networks.ddpm_unet import DDPMUNetConfig
from rsdiff.networks.layers import reflect_to_multiple


@config
class ShiftConfig:
    """How the shift eta grows: sqrt(eta) geometrically from `lowest_noise` / kappa to `end`, in times raised to `power`."""

    steps: int = 15
    """T; the later release has 4, with lowest_noise=0.2."""
    kappa: float = 2.0
    """Standard deviation of the noise at eta = 1, in [-1, 1]."""
    lowest_noise: float = 0.04
    """Standard deviation of the noise of the first step, in [-1, 1], where kappa is 1 or more."""
    end: float = 0.99
    """sqrt(eta) of the last step."""
    power: float = 0.3
    """Below 1, the shift rises early."""

    def __post_init__(self) -> None:
        require_at_least(self, steps=2)
        require_above(self, kappa=0, lowest_noise=0, power=0, end=0)
        require_below(self, end=1)
        if self.first >= self.end:
            raise UserError(
                f"lowest_noise={self.lowest_noise} begins the shift at {self.first:g}, not below its end={self.end}; "
                "choose a smaller lowest_noise."
            )

    @property
    def first(self) -> float:
        """sqrt(eta) of the first step."""
        return min(self.lowest_noise / self.kappa, self.lowest_noise)

    def etas(self) -> Tensor:
        """Return eta (T,), ascending, float64 on the CPU. Source: get_named_eta_schedule, 'exponential'."""
        times = torch.linspace(0, 1, self.steps, dtype=torch.float64, device="cpu") ** self.power
        return (self.first * (self.end / self.first) ** times).square()


@config
class ResShiftConfig(MethodConfig):
    """ResShift in pixels. The shift is the published one, the network's size that of SR3."""

    has_own_step: ClassVar[bool | None] = True

    network: DDPMUNetConfig = DDPMUNetConfig(multipliers=(1, 2, 4, 8, 8))
    """The U-Net; its inputs are the noisy image, the enlarged LR image and the step."""
    shift: ShiftConfig = ShiftConfig()
    """How the noise process moves from the HR image to the enlarged LR image: its levels and strength."""

    @property
    def sampled_levels(self) -> int:
        return self.shift.steps

    def refuse(self, problem: Problem) -> str | None:
        if problem.bands != problem.lr_bands or problem.scale < 1:
            return (
                f"model resshift shifts the target to the enlarged input, and {problem.lr_bands} bands are to become {problem.bands} at "
                f"scale {problem.scale:g}; choose a degradation that keeps the bands, and scale=1 or more."
            )
        return None

    def build(self, problem: Problem) -> ResShift:
        return ResShift(self, problem)


class ShiftDenoiser:
    """A network of a shift towards `image` (B, C, H, W), seen as a denoiser; its own step is that of the published sampler."""

    data_range: DataRange | None = (-1.0, 1.0)

    def __init__(self, network: Network, shift: ShiftConfig, image: Tensor) -> None:
        self.network, self.image, self.kappa = network, image, shift.kappa
        self.etas = shift.etas()
        self.sigmas = self.kappa * self.etas.sqrt() / (1 - self.etas)
        self.table: Tensor | None = self.sigmas
        self.sigma_min, self.sigma_max = float(self.sigmas[0]), float(self.sigmas[-1])

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        index = nearest_index(to_device(self.sigmas, sigma.device), sigma.to(torch.float64).expand(len(y)))
        eta = per_image(to_device(self.etas, index.device)[index], y)
        x = (1 - eta) * y + eta * self.image.to(y)
        shown = (x / (3 * self.kappa * eta.sqrt() + 1)).to(self.image.dtype)  # within about [-1, 1], as published for pixels
        return self.network(torch.cat([shown, self.image], dim=1), to_device(index, y.device)).to(y.dtype)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """See Denoiser."""
        sigmas = to_device(self.sigmas, sigma.device)
        return sigmas[nearest_index(sigmas, sigma)].to(sigma.dtype)

    def step(self, y: Tensor, sigma: float, sigma_next: float, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """See SteppingDenoiser; the clean estimate is clipped, and nothing is drawn in a step to 0."""
        clean = evaluate(self, y, sigma).clamp(-1, 1)
        down, up = residual_shift_rule(self.kappa)(sigma, sigma_next)
        following = clean + (down / sigma) * (y - clean)
        return (following + up * noise.normal(y.shape, y.device, y.dtype) if up > 0 else following), clean


class ResShift(Method):
    """See the module."""

    def __init__(self, options: ResShiftConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.network = options.network.build(problem.bands + problem.lr_bands, problem.bands)

    def denoiser(self, image: Tensor) -> ShiftDenoiser:
        """Return D for the enlarged LR (B, C, H, W)."""
        return ShiftDenoiser(self.network, self.options.shift, image)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_multiple(batch, self.options.network.size_multiple)
        hr, image = 2 * batch.need("hr") - 1, enlarge_signed(batch.need("lr"), batch.size)
        denoiser = self.denoiser(image)
        index = noise.integers(0, len(denoiser.etas), (len(hr),), hr.device)
        sigma = to_device(denoiser.sigmas, hr.device)[index]
        y = hr + per_image(sigma, hr) * noise.normal(hr.shape, hr.device)
        return {"restorer": Losses.weighted({"clean": (1.0, masked_mse(denoiser(y, sigma), hr, batch.valid))})}

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        image = reflect_to_multiple(enlarge_signed(batch.need("lr"), batch.size), self.options.network.size_multiple)
        made = sample(sampler, self.denoiser(image), image.shape, noise, device=image.device, image=image)
        return (made[..., : batch.size[0], : batch.size[1]].float() + 1) / 2
