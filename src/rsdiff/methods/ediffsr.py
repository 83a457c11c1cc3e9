"""EDiffSR: a diffusion that drifts from the HR image to the enlarged LR image plus weak noise, and back.

Source: XY-boy/EDiffSR (IEEE TGRS 2024), on IR-SDE and NAFNet. The network predicts the noise from the noisy image, the enlarged LR image
and the step. Sampling runs in units of the residual (rsdiff.diffusion.mean_reverting), where the process is an ordinary diffusion that any
sampler runs; `sampler.solver=native` is the published Euler step on every level.

Unlike the published code:
- A batch of one image can be trained on; the published loop fails there.
- Levels and coefficients are float64; theirs are float32, which cancels five digits at the first level. The state of a sampling run is
  float64 too (`sampler.dtype`): differences below 2e-5 over a whole run.
- Any scale and any number of bands.
`prediction=clean` (ours, off as published) serves short trainings, see rsdiff.methods.idm: its loss is the error of the addition itself.
As there, the enlarged image is not clamped, and the loss, an error of x_{t-1}, is one of the noise weighted by 0.004 (t = 1) to 0.041.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import Ours, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.enlarging import enlarge
from rsdiff.data.sample import Batch
from rsdiff.diffusion.mean_reverting import EulerDenoiser, MeanRevertingConfig, ReverseMeans, Rule
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.solvers import per_image
from rsdiff.losses.images import masked_mean
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage
from rsdiff.networks.ediffsr_nafnet import ConditionalNAFNet, NAFNetConfig
from rsdiff.networks.layers import zeroed


@config
class EDiffSRConfig(NAFNetConfig, MethodConfig):
    """EDiffSR. The defaults are the published network of 20.4 million parameters."""

    has_own_step: ClassVar[bool | None] = True
    read_with: ClassVar[ReadWith] = {
        "native_rule": ("sampler.solver", ("native",)),
        "native_last_noise": (("sampler.solver", ("native",)), ("native_rule", ("sde",))),
    }

    schedule: MeanRevertingConfig = MeanRevertingConfig()
    """Levels of training."""
    prediction: Annotated[Literal["noise", "clean"], Ours("weights")] = "noise"
    """What the network predicts: the noise, as published, or what the target adds to the enlarged LR, for short trainings (ours)."""
    loss: Literal["l1", "l2"] = "l1"
    """Mean absolute or mean squared error of the step back, of a predicted addition itself."""
    decayed_loss: bool = False
    """Weigh the errors of level t by what is left there of the image, a_t."""
    native_rule: Rule = "sde"
    """What sampler.solver=native steps along: the reverse SDE (published) or the probability-flow ODE."""
    native_last_noise: Annotated[bool, Ours("sampling")] = True
    """The native SDE adds noise (0.94 of 255 grey levels) in its last step too, as published."""

    @property
    def sampled_levels(self) -> int:
        return self.schedule.steps

    def refuse(self, problem: Problem) -> str | None:
        if problem.scale < 1:
            return f"model ediffsr enlarges images and the scale is {problem.scale:g}; choose scale=1 or more."
        if problem.bands != problem.lr_bands:
            return (
                f"model ediffsr drifts from the target to the enlarged input, and these have {problem.bands} and {problem.lr_bands} bands; "
                "choose a degradation that keeps the bands."
            )
        return None

    def build(self, problem: Problem) -> EDiffSR:
        return EDiffSR(self, problem)


@dataclass
class Step:
    """A training step, in units of the residual: the noisy state, what the network predicts, and what is made of it beside what is right.

    state, predicted  (B, C, H, W)
    made, right       two means of the state before: that of the published step, and that of the posterior; of a predicted addition itself
                      and the true one
    """

    state: Tensor
    predicted: Tensor
    made: Tensor
    right: Tensor


class EDiffSR(Method):
    """See the module and `EDiffSRConfig`."""

    def __init__(self, options: EDiffSRConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.schedule = options.schedule.build()
        self.network = ConditionalNAFNet(options, problem.bands)
        if options.prediction == "clean":
            zeroed(self.network.leave)

    def mean(self, batch: Batch) -> Tensor:
        """Return the LR at the target's size: bicubic with a = -0.75, half-pixel centres, neither antialiased nor clamped."""
        return enlarge(batch.need("lr"), batch.size)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        hr = batch.need("hr")
        t = noise.integers(1, len(self.schedule) + 1, (len(hr),), hr.device)
        total = self.error(self.step(hr, self.mean(batch), t, noise.normal(hr.shape, hr.device)), t, batch.valid)
        return {"restorer": Losses(total, {"step": total.detach()})}

    def step(self, hr: Tensor, mean: Tensor, t: Tensor, drawn: Tensor) -> Step:
        """Return the step back from levels t (B,) in 1..T, for images (B, C, H, W) in [0, 1] and noise `drawn` of their shape."""
        levels = F.pad(self.schedule.on(hr.device, "sigmas"), (1, 0))
        sigma, sigma_next = levels[t], levels[t - 1]
        signal = (1 + sigma.square()).rsqrt()
        clean = (hr - mean) / self.options.schedule.strength
        state = per_image(signal, hr) * clean + per_image(signal * sigma, hr) * drawn
        predicted = self.predict(state, mean, t)
        if self.options.prediction == "clean":
            return Step(state=state, predicted=predicted, made=predicted, right=clean)
        means = ReverseMeans.between(sigma, sigma_next, "sde")
        return Step(
            state=state,
            predicted=predicted,
            made=per_image(means.euler_state, hr) * state - per_image(means.euler_noise, hr) * predicted,
            right=per_image(means.posterior_state, hr) * state + per_image(means.posterior_clean, hr) * clean,
        )

    def error(self, step: Step, t: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the error of what was made in units of the image."""
        difference = self.options.schedule.strength * (step.made - step.right)
        error = difference.abs() if self.options.loss == "l1" else difference.square()
        if self.options.decayed_loss:
            error = error * per_image(self.schedule.on(t.device, "alphas_bar").sqrt()[t - 1], error)
        return masked_mean(error, valid)

    def predict(self, state: Tensor, mean: Tensor, time: Tensor) -> Tensor:
        """Return the network's prediction for a state in units of the residual."""
        return self.network(mean + self.options.schedule.strength * state, mean, time)

    def denoiser(self, mean: Tensor) -> EulerDenoiser:
        """Return the network as a denoiser of residuals, in their units, under `mean` (B, C, H, W) in [0, 1]."""
        options, strength = self.options, self.options.schedule.strength
        return EulerDenoiser(
            lambda state, time: self.predict(state, mean, time),
            self.schedule,
            options.prediction,
            rule=options.native_rule,
            last_noise=options.native_last_noise,
            data_range=((0 - mean) / strength, (1 - mean) / strength),
        )

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        mean = self.mean(batch)
        # The enlarged input, where a sampler starts from it, is no residual at all.
        residual = sample(sampler, self.denoiser(mean), mean.shape, noise, device=mean.device, image=torch.zeros_like(mean))
        return mean + self.options.schedule.strength * residual.float()
