"""SR3: super-resolution by denoising diffusion conditioned by concatenation, as its widespread implementations compute it.

The enlarged LR is concatenated with the noisy HR and a U-Net predicts the noise; images live in [-1, 1] inside.
Sources: Janspiry/Image-Super-Resolution-via-Iterative-Refinement (ORIG below), hanlinwu/BlindSRSNF's sr3_vanilla (VANILLA, the
defaults), and ORIG's DDPM twin (`time="discrete"`), which DiffBSR uses as an ablation.

Unlike the paper, as in these implementations: DDPM's residual blocks without FiLM, the posterior variance in ancestral sampling, no EMA,
one integer step per batch (`steps_drawn`).
Unlike these implementations:
- Ancestral sampling returns the whole batch; ORIG returns its last image only.
- The strided sampler does without VANILLA's last evaluation, which has no effect; the result keeps noise of level sqrt(1 - alpha_bar_0)
  = 1e-3 of the range [-1, 1], as published.
- Targets whose size is no multiple of 2^(levels - 1) are restored on a condition extended by reflection, then cropped; ORIG and VANILLA
  fail there.
- The state of a sampling run is float64 (`sampler.dtype`): differences below 1e-5 to their float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from rsdiff.config import config
from rsdiff.data.enlarging import enlarge as enlarge_bicubically
from rsdiff.data.sample import Batch
from rsdiff.degradations.resizing import resize
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteDenoiser
from rsdiff.diffusion.solvers import per_image
from rsdiff.losses.images import masked_l1, masked_mse
from rsdiff.methods.base import Losses, Method, Problem, Stage, require_multiple
from rsdiff.methods.noise_prediction import Noised, NoisePredictorConfig, draw_steps, noised_continuously
from rsdiff.networks.ddpm_unet import DDPMUNet
from rsdiff.networks.layers import reflect_to
from rsdiff.networks.sr3_unet import SR3UNet


@config
class SR3Config(NoisePredictorConfig):
    """SR3 and its DDPM twin. The defaults are VANILLA's: x4 remote sensing."""

    time: Literal["continuous", "discrete"] = "continuous"
    """The network's time input: the continuous level sqrt(alpha_bar) (SR3), or the integer step (DDPM twin)."""
    condition: Literal["bicubic", "pillow_8bit", "none"] = "bicubic"
    """How the LR is enlarged: float bicubic, unclamped (VANILLA); Pillow's, rounded to 8 bits (ORIG); `none` generates unconditionally."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr"}) if self.condition == "none" else frozenset({"hr", "lr"})

    def starts_at_image(self, problem: Problem) -> bool:
        return self.condition != "none" and problem.bands == problem.lr_bands

    def refuse(self, problem: Problem) -> str | None:
        if problem.scale < 1:
            return f"model sr3 enlarges images and the scale is {problem.scale}; choose scale=1 or more."
        return None

    def build(self, problem: Problem) -> SR3:
        return SR3(self, problem)

    def build_network(self, in_channels: int, out_channels: int) -> SR3UNet:
        """Return the U-Net with fresh weights for these channel counts (input: condition and noisy image)."""
        return (SR3UNet if self.time == "continuous" else DDPMUNet)(self, in_channels, out_channels)


def enlarge(lr: Tensor, size: tuple[int, int], how: Literal["bicubic", "pillow_8bit"]) -> Tensor:
    """Return the LR (B, c, h, w) in [0, 1] enlarged to `size` in [-1, 1]; float bicubic may exceed that range.

    The float variant has cubic coefficient -0.75, half-pixel centres and no antialiasing: what torchvision did when VANILLA was made.
    """
    if how == "pillow_8bit":
        return 2 * resize(lr, size, "pillow") - 1
    return enlarge_bicubically(2 * lr - 1, size)


class SR3(Method):
    """See the module and `SR3Config`."""

    def __init__(self, options: SR3Config, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.bands = problem.bands
        self.schedule = options.schedule.build()
        conditions = 0 if options.condition == "none" else problem.lr_bands
        self.network = options.build_network(conditions + problem.bands, problem.bands)

    def noised(self, hr: Tensor, noise: NoiseSource) -> Noised:
        """Draw a level per image, then noise, and add it to hr (B, C, H, W) in [-1, 1].

        Continuous time: see `noised_continuously`.
        """
        if self.options.time == "continuous":
            return noised_continuously(hr, self.options, self.schedule, noise)
        steps = draw_steps(hr, 0, self.options, self.schedule, noise)
        signal = self.schedule.on(hr.device, "signal_levels")[steps + 1]
        level, complement = signal.float(), (1 - signal.square()).sqrt().float()
        drawn = noise.normal(hr.shape, hr.device)
        return Noised(per_image(level, hr) * hr + per_image(complement, hr) * drawn, steps, drawn)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        hr = 2 * batch.need("hr") - 1
        require_multiple(batch, self.options.size_multiple)
        noised = self.noised(hr, noise)
        x = noised.x
        if self.options.condition != "none":
            x = torch.cat([enlarge(batch.need("lr"), batch.size, self.options.condition), x], dim=1)
        predicted = self.network(x, noised.time)
        error = masked_l1 if self.options.loss == "l1" else masked_mse
        total = error(predicted, noised.noise, batch.valid)
        return {"restorer": Losses(total, {"noise": total.detach()})}

    def denoiser(self, condition: Tensor | None) -> DiscreteDenoiser:
        """Return the network as a denoiser of images in [-1, 1], with `condition` (B, c, H, W) bound."""

        def predict(x: Tensor, time: Tensor) -> Tensor:
            return self.network(x if condition is None else torch.cat([condition.to(x.dtype), x], dim=1), time)

        return DiscreteDenoiser(predict, self.schedule, time="level" if self.options.time == "continuous" else "index")

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        multiple = self.options.size_multiple
        height, width = (-(-length // multiple) * multiple for length in batch.size)
        condition = None
        device = next(self.parameters()).device
        if self.options.condition != "none":
            condition = reflect_to(enlarge(batch.need("lr"), batch.size, self.options.condition), height, width)
        shape = (len(batch), self.bands, height, width)
        image = condition if condition is not None and condition.shape[1] == self.bands else None
        sampled = sample(sampler, self.denoiser(condition), shape, noise, device=device, image=image)
        return (sampled[..., : batch.size[0], : batch.size[1]].float() + 1) / 2
