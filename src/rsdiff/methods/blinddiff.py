"""BlindDiff: a diffusion that estimates the blur kernel along the way and is guided by the LR image re-blurred with it.

Source: lifengcs/BlindDiff, "BlindDiff: Empowering Degradation Modelling in Diffusion Models for Blind Image Super-Resolution"
(arXiv 2403.10211). Each step of sampling is followed by a gradient step on
    || lr - shrink(blur(x0, kernel)) || + prior || x0 ||,
differentiated through the whole network with respect to the noisy image.

Decisions where the published code leaves no choice or contradicts the paper:
- Its training cannot run, because the loss does not expect the kernel that the network returns beside the noise; here it is unpacked. The
  kernel loss of the paper is commented out: `kernel_weight=1` is that line, `kernel_weight=0` the code without it.
- Images are in [0, 1] inside, under a likelihood made for [-1, 1] (`data_range=unit`, which released weights need).
- Training knows `kept_steps` of the 1000 levels only. Samplers with fewer steps choose among those, where the published code would choose
  from all 1000 and show the network time steps it has never seen.
Unlike the published code:
- The norms are taken per image, so a batch gives what its images give alone; the published sampler treats one image at a time.
- The graph ends at each step; the published one grows over all steps, for the same result.
- The unused noise of the last step is not drawn.
- A training step with an exploding loss is not skipped (published: 100 times the last one); see `trainer.clip_norm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.data.ranges import to_signed_range, to_unit_range
from rsdiff.data.sample import Batch
from rsdiff.degradations.blur import blur
from rsdiff.degradations.resizing import resize
from rsdiff.diffusion.guidance import GuidedSteps
from rsdiff.diffusion.learned_variance import LearnedVarianceDenoiser, ReverseSteps, variational_bound
from rsdiff.diffusion.noise import NoiseSource, SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import ScheduleConfig, respaced
from rsdiff.diffusion.solvers import SILENT, Observers, per_image
from rsdiff.losses.images import image_means
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_scale
from rsdiff.networks.layers import reflect_to
from rsdiff.networks.mcformer import MCFormerConfig

ESTIMATION = SamplerConfig(solver="native", steps=10, spacing="linspace")
"""How kernels are estimated for result rows: the kernel of the last of a few unguided steps."""


@config
class GuidanceConfig:
    """The gradient step that follows each step of sampling, whatever the solver."""

    read_with: ClassVar[ReadWith] = dict.fromkeys(("prior", "through"), ("weight", (ABOVE_0,)))

    weight: float = 1.0
    """Length of the step along the negative gradient; 0 samples without guidance, at about a third of the time."""
    prior: float = 0.1
    """Factor of the norm of the clean estimate."""
    through: Annotated[Literal["network_and_kernel", "network", "estimate"], Ours("sampling")] = "network_and_kernel"
    """What is differentiated: everything (published); the image but not the kernel; or neither, with the predicted noise held fixed."""

    def __post_init__(self) -> None:
        if self.weight < 0 or self.prior < 0:
            raise UserError(f"weight={self.weight}, prior={self.prior}: choose 0 or more.")


@config
class BlindDiffConfig(MethodConfig):
    """BlindDiff. The defaults are those of all published configurations, with the paper's kernel loss."""

    has_own_step: ClassVar[bool | None] = True

    network: MCFormerConfig = MCFormerConfig()
    """The network."""
    schedule: ScheduleConfig = ScheduleConfig(name="linear", steps=1000, start=1e-4, end=2e-2)
    """Noise levels from which those of training are taken."""
    kept_steps: int = 500
    """Levels of training, evenly spaced in the schedule; the network's time input is their index there."""
    data_range: Annotated[Literal["unit", "signed"], Ours("weights")] = "unit"
    """Range of images inside the diffusion: [0, 1] (published) or [-1, 1], which the variational bound is made for."""
    bound_weight: float = 1.0
    """Factor of the variational bound, which trains the variances."""
    kernel_weight: float = 1.0
    """Factor of the mean squared error of the kernel: above 0 as in the paper, 0 as in the released code (needs no true kernels)."""
    guidance: GuidanceConfig = GuidanceConfig()
    """Guidance by the LR image."""

    def __post_init__(self) -> None:
        respaced(self.schedule.steps, self.kept_steps)
        if self.bound_weight < 0 or self.kernel_weight < 0:
            raise UserError(f"bound_weight={self.bound_weight}, kernel_weight={self.kernel_weight}: choose 0 or more.")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr", "kernel"} if self.kernel_weight > 0 else {"hr", "lr"})

    @property
    def target_kernel_size(self) -> int | None:
        return self.network.kernel_size if self.kernel_weight > 0 else None

    @property
    def sampled_levels(self) -> int:
        return self.kept_steps

    def refuse(self, problem: Problem) -> str | None:
        if problem.lr_bands != problem.bands:
            return (
                f"model blinddiff compares its re-blurred image with the LR and they have {problem.bands} and {problem.lr_bands} bands; "
                "choose a degradation that keeps the bands."
            )
        return problem.refuse_fraction("blinddiff")

    def build(self, problem: Problem) -> BlindDiff:
        return BlindDiff(self, problem)


class BlindDiff(Method):
    """See the module and `BlindDiffConfig`."""

    def __init__(self, options: BlindDiffConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.bands = problem.bands
        self.scale = int(problem.scale)
        self.network = options.network.build(problem)
        whole = options.schedule.build()
        self.schedule = whole.kept(respaced(len(whole), options.kept_steps))
        self.reverse_steps = ReverseSteps.of_schedule(self.schedule)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_scale(batch, self.scale)
        hr, lr = self.inside(batch.need("hr")), self.inside(batch.need("lr"))
        index = noise.integers(0, len(self.schedule), (len(hr),), hr.device)
        terms, kernel = self.terms(hr, lr, index, noise.normal(hr.shape, hr.device), batch.valid)
        weighted = {"noise": terms["noise"].mean(), "bound": self.options.bound_weight * terms["bound"].mean()}
        if self.options.kernel_weight > 0:
            weighted["kernel"] = self.options.kernel_weight * self.kernel_error(kernel, batch.need("kernel")).mean()
        return {"restorer": Losses(torch.stack(list(weighted.values())).sum(), {name: value.detach() for name, value in weighted.items()})}

    def terms(self, hr: Tensor, lr: Tensor, index: Tensor, noise: Tensor, valid: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Return the noise error and the variational bound of each image, (B,), and the kernels (B, k, k).

        hr, lr in the range of the diffusion; index (B,) of the kept steps; noise (B, C, H, W).
        """
        state = self.noised(hr, index, noise)
        output, kernel = self.network(state, self.schedule.on(index.device, "indices")[index], lr)
        predicted, channels = output.chunk(2, dim=1)
        error = image_means((noise - predicted).square(), valid)
        clean = self.clean(state, predicted.detach(), index)
        bound = image_means(variational_bound(hr, state, self.reverse_steps.at(index), clean, channels, index == 0), valid)
        return {"noise": error, "bound": bound}, kernel

    def noised(self, hr: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        """Return sqrt(alpha_bar) hr + sqrt(1 - alpha_bar) noise at the kept steps `index` (B,)."""
        alpha_bar = self.schedule.on(index.device, "alphas_bar")[index]
        return per_image(alpha_bar.sqrt(), hr) * hr + per_image((1 - alpha_bar).sqrt(), hr) * noise

    def clean(self, state: Tensor, predicted: Tensor, index: Tensor) -> Tensor:
        """Return the clean estimate, not limited, from the predicted noise at the kept steps `index` (B,)."""
        alpha_bar = self.schedule.on(index.device, "alphas_bar")[index]
        return per_image((1 / alpha_bar).sqrt(), state) * state - per_image((1 / alpha_bar - 1).sqrt(), state) * predicted

    def kernel_error(self, kernel: Tensor, true: Tensor) -> Tensor:
        """Return the mean squared error (B,) of kernels (B, k, k)."""
        if true.shape[-1] != kernel.shape[-1]:
            raise UserError(
                f"the degradation's kernels have {true.shape[-1]} x {true.shape[-1]} taps and the model estimates "
                f"{kernel.shape[-1]} x {kernel.shape[-1]}; set degradation.kernel_size or model.network.kernel_size to the other."
            )
        return (true - kernel).square().mean((1, 2))

    def inside(self, images: Tensor) -> Tensor:
        """Return images of [0, 1] in the range of the diffusion."""
        return to_signed_range(images) if self.options.data_range == "signed" else images

    def outside(self, images: Tensor) -> Tensor:
        """Inverse of `inside`."""
        return to_unit_range(images) if self.options.data_range == "signed" else images

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        reverse = GuidedReverse(self, batch.need("lr"))
        observers = Observers(around_step=reverse.guidance()) if self.options.guidance.weight > 0 else SILENT
        return self.outside(reverse.sample(sampler, noise, observers)).to(batch.need("lr").dtype)

    @torch.no_grad()
    def estimates(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the kernels of a short run without guidance, whose noise depends on the image's name alone."""
        multiple = self.pixel_multiple()
        height, width = (-(-length // multiple) * multiple for length in batch.lr_size)
        reverse = GuidedReverse(self, reflect_to(batch.need("lr"), height, width))
        steps = min(ESTIMATION.steps, len(self.schedule))
        sampler = SamplerConfig(solver=ESTIMATION.solver, steps=steps, spacing=ESTIMATION.spacing)
        reverse.sample(sampler, SeededNoise([("blinddiff", "estimates", meta.name) for meta in batch.metas]), SILENT)
        found = {"kernel": reverse.kernel}
        return found if batch.kernel is None else {**found, "true_kernel": batch.kernel}

    def pixel_multiple(self) -> int:
        return self.network.size_multiple // gcd(self.network.size_multiple, self.scale)


class GuidedReverse:
    """One batch on its way from noise to images: the denoiser with its LR bound, the kernel it estimated last, and the energy.

    lr  (B, C, h, w) in [0, 1]
    """

    def __init__(self, method: BlindDiff, lr: Tensor) -> None:
        self.method = method
        self.lr = lr
        self.kernel = torch.empty(0)  # of the latest evaluation, (B, k, k)
        data_range = (-1.0, 1.0) if method.options.data_range == "signed" else (0.0, 1.0)
        self.denoiser = LearnedVarianceDenoiser(self.predict, method.schedule, time="index", data_range=data_range)

    def predict(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the network's noise and variance channels, and keep its kernel."""
        through = self.method.options.guidance.through
        with torch.set_grad_enabled(torch.is_grad_enabled() and through != "estimate"):
            output, kernel = self.method.network(x, time, self.method.inside(self.lr))
        self.kernel = kernel if through == "network_and_kernel" else kernel.detach()
        return output

    def energy(self, clean: Tensor) -> Tensor:
        """Return (B,) || lr - shrink(blur(image, kernel)) || + prior || image || of clean estimates, with norms over an image's values."""
        image = self.method.outside(clean).to(self.lr.dtype)
        return energy(image, self.kernel, self.lr, self.method.options.guidance.prior)

    def guidance(self) -> GuidedSteps:
        """Return the guidance of a sampling run; parameters get no gradient."""
        return GuidedSteps(self.energy, self.method.options.guidance.weight)

    def sample(self, sampler: SamplerConfig, noise: NoiseSource, observers: Observers) -> Tensor:
        """Return (B, C, H, W) in the range of the diffusion, in the sampler's precision."""
        scale = self.method.scale
        shape = (len(self.lr), self.method.bands, self.lr.shape[-2] * scale, self.lr.shape[-1] * scale)
        image = self.method.network.enlarge(self.method.inside(self.lr))
        return sample(sampler, self.denoiser, shape, noise, device=self.lr.device, image=image, observers=observers)


def reblurred(images: Tensor, kernels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (B, C, H, W) blurred by kernels (B, k, k) and shrunk to `size`, as BlindDiff's degradation does without rounding."""
    return resize(blur(images, kernels), size, "matlab")


def energy(images: Tensor, kernels: Tensor, lr: Tensor, prior: float) -> Tensor:
    """Return (B,) || lr - reblurred(images) || + prior || images ||; norms are over all values of an image, not squared."""
    difference = lr - reblurred(images, kernels, (lr.shape[-2], lr.shape[-1]))
    return torch.linalg.vector_norm(difference.flatten(1), dim=1) + prior * torch.linalg.vector_norm(images.flatten(1), dim=1)
