"""First stage of LDCSR: an autoencoder of what LR lacks, trained with L1, LPIPS, a KL term and, later, a patch discriminator.

Source: MoooJianG/LDCSR (E2SR), models/first_stage_kl_atom.py and losses/contperceptual.py. Images live in [-1, 1] inside. Its ablations
are options of the autoencoder; ablation 1 has no latent and restores by itself, the others are evaluated as reconstructions of the target.

Unlike the published code:
- The discriminator judges the reconstruction that the autoencoder was just trained by; the published loop encodes and decodes once more,
  with new noise and the weights after the autoencoder's step.
- The discriminator is first called when the adversarial stage begins. The published one runs from the first step, its loss times 0: only
  the running statistics of its norms differ, which no training step reads.
- Ablation 1 has no encoder; the published one owns a convolution of uniform noise whose result is ignored.
- The logarithm of the reconstruction's variance, a parameter at 0 that the published code never trains, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.losses.images import difference, masked_mean, with_missing_of
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, frozen
from rsdiff.metrics.lpips import SMALLEST_SIDE, TRUNK_FILES, Lpips, read_trunk
from rsdiff.metrics.weight_files import require_weight_file
from rsdiff.networks.discriminators import VQGAN_PATCHES, PatchDiscriminator, PatchSizes
from rsdiff.networks.kl_autoencoder import AutoencoderConfig, DiagonalGaussian


@config
class DiscriminatorConfig(PatchSizes):
    """The patch discriminator and when it joins."""

    read_with: ClassVar[ReadWith] = dict.fromkeys(("start_step", "width", "layers"), ("weight", (ABOVE_0,)))

    weight: float = 0.5
    """Factor of the adversarial loss on top of the adaptive weight; 0 trains without a discriminator."""
    start_step: int = 50_001
    """Steps trained without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight < 0 or self.start_step < 0:
            raise UserError(f"weight={self.weight} and start_step={self.start_step} were given; choose 0 or more.")


@config
class LDCSRVaeConfig(MethodConfig):
    """The first stage of LDCSR. The defaults are the published ones."""

    samples: ClassVar[bool] = False
    read_with: ClassVar[ReadWith] = {"weight_folders": ("perceptual_weight", (ABOVE_0,))}
    located: ClassVar[frozenset[str]] = frozenset({"weight_folders"})  # the file's name holds a hash of its content

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    """The networks."""
    kl_weight: float = 1e-6
    """Factor of the KL divergence to the standard normal (sum over the latent)."""
    perceptual_weight: float = 1.0
    """Factor of LPIPS (VGG16), which is added to every pixel's absolute error; 0 needs no weights file."""
    weight_folders: tuple[str, ...] = ("weights",)
    """Where vgg16-397923af.pth is looked for, besides torchvision's cache; read in training only."""
    reduction: Annotated[Literal["sum", "mean"], Ours("training")] = "sum"
    """The reconstruction error of an image: summed over its pixels, so that large targets weigh more, as published; or averaged."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The discriminator that the autoencoder is trained against."""

    def __post_init__(self) -> None:
        if self.kl_weight < 0 or self.perceptual_weight < 0:
            raise UserError(f"kl_weight={self.kl_weight} and perceptual_weight={self.perceptual_weight} were given; choose 0 or more.")

    @property
    def any_scale(self) -> bool:
        return self.autoencoder.decoder.upsampler != "fixed_x4"

    def refuse(self, problem: Problem) -> str | None:
        if self.perceptual_weight and problem.bands != 3:
            return f"LPIPS needs 3 bands and the data have {problem.bands}; set model.perceptual_weight=0."
        return self.autoencoder.refuse(problem)

    def build(self, problem: Problem) -> LDCSRVae:
        return LDCSRVae(self, problem)


@dataclass
class Reconstruction:
    """What the autoencoder makes of a target: its image and the posterior its latent was drawn from (None without a latent)."""

    image: Tensor
    posterior: DiagonalGaussian | None


@dataclass
class ReconstructionTerms:
    """total        nll + kl_weight * kl, ()
    nll          absolute error and LPIPS, summed or averaged over pixels, mean over the batch
    kl           divergence from the standard normal per image
    per_pixel    mean absolute error + LPIPS: the published validation loss
    """

    total: Tensor
    nll: Tensor
    kl: Tensor
    per_pixel: Tensor


class LDCSRVae(Method):
    """See the module and `LDCSRVaeConfig`."""

    training_only: ClassVar[tuple[str, ...]] = ("discriminator.",)

    def __init__(self, options: LDCSRVaeConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.couples_batch = options.discriminator.weight > 0
        self.autoencoder = options.autoencoder.build(problem.bands, problem.lr_bands)
        adversary = options.discriminator
        if adversary.weight:
            self.discriminator = PatchDiscriminator(adversary, problem.bands, VQGAN_PATCHES)
        self._perceptual: tuple[Lpips, ...] = ()  # in a tuple: a frozen VGG16 belongs neither to the weights nor to the checkpoints

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        groups = {"restorer": self.autoencoder.parameters()}
        return groups | ({"discriminator": self.discriminator.parameters()} if self.options.discriminator.weight else {})

    def stages(self) -> Sequence[Stage]:
        alone = Stage("reconstruction", ("restorer",))
        if self.options.discriminator.weight == 0:
            return [alone]
        adversarial = Stage("adversarial", ("restorer", "discriminator"))
        start = self.options.discriminator.start_step
        return [Stage(alone.name, alone.groups, start), adversarial] if start else [adversarial]

    def prepare_training(self) -> None:
        """Raises UserError when the perceptual loss has no weights file."""
        if self.options.perceptual_weight and not self._perceptual:
            path = require_weight_file(TRUNK_FILES["vgg"], self.options.weight_folders, "model.weight_folders", "model.perceptual_weight")
            self.use_perceptual(Lpips("vgg", read_trunk(path)))

    def use_perceptual(self, network: Lpips) -> None:
        """Measure perceptual distance by `network`."""
        self._perceptual = (network,)

    @property
    def coupling(self) -> str:
        if self.options.discriminator.weight:
            return "its adversarial loss is weighed by the gradients of a whole batch"
        return super().coupling

    def reconstruct(self, hr: Tensor, lr: Tensor, noise: NoiseSource | None) -> Reconstruction:
        """Return the reconstruction of hr (B, C, H, W) given lr, both in [-1, 1]; without noise, from the posterior's mean."""
        size = (hr.shape[-2], hr.shape[-1])
        if not self.autoencoder.has_latent:
            return Reconstruction(self.autoencoder.decode(lr, lr, size), None)
        posterior = self.autoencoder.encode(hr, lr)
        latent = posterior.mean if noise is None else posterior.sample(noise.normal(posterior.mean.shape, hr.device, hr.dtype))
        return Reconstruction(self.autoencoder.decode(latent, lr, size), posterior)

    def reconstruction_terms(self, hr: Tensor, made: Reconstruction, valid: Tensor | None = None) -> ReconstructionTerms:
        """Return the terms of the reconstruction loss; images in [-1, 1]; valid (B, C, H, W), see Batch."""
        error = difference(hr, made.image, valid).abs()
        if self.options.perceptual_weight:
            error = error + self.options.perceptual_weight * self.perceptual_distance(hr, with_missing_of(made.image, hr, valid))
        mean = masked_mean(error, valid)
        nll = mean * error[0].numel() if self.options.reduction == "sum" else mean
        kl = torch.zeros_like(nll) if made.posterior is None else made.posterior.divergence().mean()
        return ReconstructionTerms(nll + self.options.kl_weight * kl, nll, kl, mean)

    def perceptual_distance(self, hr: Tensor, image: Tensor) -> Tensor:
        """Return LPIPS of images in [-1, 1], (B, 1, 1, 1); raises UserError for images below the smallest size VGG16 can see."""
        if not self._perceptual:
            raise RuntimeError("the perceptual loss is used before prepare_training loaded its network")
        if min(hr.shape[-2:]) < SMALLEST_SIDE["vgg"]:
            raise UserError(f"LPIPS needs {SMALLEST_SIDE['vgg']} px and a training crop has {hr.shape[-2]}; raise trainer.patch.")
        network = self._perceptual[0].to(hr.device)
        return network(hr, image, scaled=False)[:, None, None, None]  # "scaled" would map [0, 1] to the range that these images are in

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        hr, lr = 2 * batch.need("hr") - 1, 2 * batch.need("lr") - 1
        made = self.reconstruct(hr, lr, noise)
        parts = self.reconstruction_terms(hr, made, batch.valid)
        terms = {"nll": parts.nll, "kl": parts.kl, "per_pixel": parts.per_pixel}
        if "discriminator" not in stage.groups:
            return {"restorer": Losses(parts.total, {name: value.detach() for name, value in terms.items()})}
        judged = with_missing_of(made.image, hr, batch.valid)
        adversarial, weight = self.adversarial_terms(parts.nll, judged)
        terms |= {"adversarial": adversarial, "adaptive_weight": weight}
        return {
            "restorer": Losses(parts.total + weight * adversarial, {name: value.detach() for name, value in terms.items()}),
            "discriminator": self.judged(hr, judged.detach()),
        }

    def judged(self, hr: Tensor, image: Tensor) -> Losses:
        """Return the discriminator's objective; images in [-1, 1] without gradient."""
        real, fake = self.discriminator(hr), self.discriminator(image)
        loss = hinge_loss(real, fake)
        return Losses(loss, {"hinge": loss.detach(), "real": real.mean().detach(), "fake": fake.mean().detach()})

    def adversarial_terms(self, nll: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (-mean D(image), its weight): the adaptive weight at the decoder's last layer times `discriminator.weight`."""
        with frozen(self.discriminator):
            adversarial = -self.discriminator(image).mean()
        last = self.autoencoder.decoder.upsampler.last_layer.weight
        return adversarial, self.options.discriminator.weight * adaptive_weight(nll, adversarial, last)

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        """Return the reconstruction of the batch's target, or, without a latent, the restoration of its LR.

        Raises UserError where a latent is needed and no target is there to encode.
        """
        lr = 2 * batch.need("lr") - 1
        if not self.autoencoder.has_latent:
            return (self.autoencoder.decode(lr, lr, batch.size) + 1) / 2
        if batch.hr is None:
            raise UserError(
                "model=ldcsr_vae encodes targets and cannot restore an image without one; train model=ldcsr on it and restore with that."
            )
        return (self.reconstruct(2 * batch.need("hr") - 1, lr, None).image + 1) / 2


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss (), 0.5 (mean relu(1 - D(real)) + mean relu(1 + D(fake))), from its answers of any shape."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, layer: Tensor) -> Tensor:
    """Return |grad reconstruction| / (|grad adversarial| + 1e-4), at most 1e4, a scalar without gradient.

    Both losses are scalars; gradients are with respect to the weights of the generator's last `layer` and their graphs are kept.
    Source: Esser et al., 2021 (VQGAN), eq. 7; CompVis/latent-diffusion, LPIPSWithDiscriminator.
    """
    norms = [torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()
