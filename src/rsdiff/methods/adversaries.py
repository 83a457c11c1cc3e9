"""What adversarial trainings of a network that restores have in common: the game with a discriminator, options, what is minimised.

Sources: GANLoss of BasicSR and of KAIR, and the step of their ESRGAN and GAN models; Jolicoeur-Martineau, ICLR 2019 (relativistic).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.losses.images import ImageLossConfig, Ramp, ramped, require_ramp, with_missing_of
from rsdiff.methods.base import Losses, MethodConfig, Problem, Term, frozen
from rsdiff.methods.perceptual import PerceptualLossConfig, PerceptualTerm, refuse_bands
from rsdiff.methods.restoring import HaloTilesConfig, InitialWeights
from rsdiff.networks.discriminators import DiscriminatorConfig, UNetConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.rrdb import RRDBNetConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource

AdversarialKind = Literal["vanilla", "least_squares", "wasserstein", "hinge"]
Relative = Literal["no", "to_mean", "to_batch_mean"]
Discriminate = Callable[[Tensor], Tensor]


def answer_loss(kind: AdversarialKind, answers: Tensor, is_real: bool, of_generator: bool = False) -> Tensor:
    """Return the mean loss () of answers of any shape that should say `is_real`.

    kind          vanilla: cross entropy, which is softplus of the wrong-signed logit; least_squares: squared distance to 1 or 0;
                  wasserstein: the wrong-signed logit; hinge: that plus 1, where positive
    of_generator  hinge does not saturate for the generator: there it is wasserstein
    """
    wrong = -answers if is_real else answers
    match kind:
        case "vanilla":
            return F.softplus(wrong).mean()
        case "least_squares":
            return (answers - float(is_real)).square().mean()
        case "wasserstein":
            return wrong.mean()
        case "hinge":
            return wrong.mean() if of_generator else F.relu(1 + wrong).mean()


@dataclass(frozen=True)
class Verdict:
    """What a discriminator's step minimises and sees: total (), and the mean answers to real and restored images, detached."""

    total: Tensor
    real: Tensor
    fake: Tensor


@config
class AdversarialLossConfig:
    """The game between generator and discriminator."""

    read_with: ClassVar[ReadWith] = {"ramp": ("weight", (ABOVE_0,))}

    kind: AdversarialKind = "vanilla"
    """Loss on the discriminator's output: cross entropy (vanilla), least_squares, wasserstein or hinge."""
    relative: Relative = "no"
    """Outputs count as they are, or relative to the mean output for the other kind of image, overall or per position (KAIR)."""
    joint: bool = False
    """A relative discriminator sees every image once and learns from both sides of the comparison (ESRGAN's first code, SPSR), not from one
    at a time (BasicSR)."""
    weight: float = 0.1
    """Factor of the generator's adversarial loss."""
    ramp: Ramp = (0, 0)
    """First and last step between which this factor rises from 0; [0, 0] has it from the beginning."""

    def __post_init__(self) -> None:
        if self.joint and self.relative == "no":
            raise UserError("joint has no effect where answers count by themselves; set relative=to_mean, or leave joint out.")
        require_ramp("ramp", self.ramp)
        if self.weight < 0:
            raise UserError(f"the weight of the adversarial loss is {self.weight}; choose 0 or more.")

    def generator_loss(self, discriminate: Discriminate, fake: Tensor, real: Tensor) -> Tensor:
        """Return the unweighted loss () of a generator that made `fake`; images (B, C, H, W). Gradients reach `fake` alone.

        A relativistic generator is judged by both kinds of images: restored ones shall seem more real than real ones.
        """
        if self.relative == "no":
            return answer_loss(self.kind, discriminate(fake), True, of_generator=True)
        of_real = discriminate(real).detach()
        of_fake = discriminate(fake)
        losses = answer_loss(self.kind, of_real - self._mean(of_fake), False), answer_loss(self.kind, of_fake - self._mean(of_real), True)
        return (losses[0] + losses[1]) / 2

    def discriminator_loss(self, discriminate: Discriminate, fake: Tensor, real: Tensor) -> Verdict:
        """Return the loss of the discriminator, whose gradients must not reach `fake`: it is detached here.

        Relativistic losses are halved, as published, and compare with answers that carry no gradient; restored images are judged anew for
        the second half, which counts where judging turns the vectors of a spectral norm.
        """
        fake = fake.detach()
        if self.relative == "no":
            of_real = discriminate(real)
            of_fake = discriminate(fake)
            total = answer_loss(self.kind, of_real, True) + answer_loss(self.kind, of_fake, False)
        elif self.joint:
            of_real = discriminate(real)
            of_fake = discriminate(fake)
            total = self._halves(of_real - self._mean(of_fake), of_fake - self._mean(of_real))
        else:
            before = discriminate(fake).detach()
            of_real = discriminate(real)
            of_fake = discriminate(fake)
            total = self._halves(of_real - self._mean(before), of_fake - self._mean(of_real.detach()))
        return Verdict(total, of_real.detach().mean(), of_fake.detach().mean())

    def _halves(self, of_real: Tensor, of_fake: Tensor) -> Tensor:
        return (answer_loss(self.kind, of_real, True) + answer_loss(self.kind, of_fake, False)) / 2

    def _mean(self, answers: Tensor) -> Tensor:
        return answers.mean(0, keepdim=True) if self.relative == "to_batch_mean" else answers.mean()


def deceiving(game: AdversarialLossConfig, discriminator: nn.Module, image: Tensor, real: Tensor) -> Tensor:
    """Return the loss () of a network that made `image`; the discriminator's weights get no gradient of it."""
    with frozen(discriminator):
        return game.generator_loss(discriminator, image, real)


def judging(game: AdversarialLossConfig, discriminator: nn.Module, image: Tensor, real: Tensor) -> Losses:
    """Return the objective of a discriminator; what it judges gets no gradient of it."""
    verdict = game.discriminator_loss(discriminator, image, real)
    return Losses(verdict.total, {"loss": verdict.total.detach(), "real": verdict.real, "fake": verdict.fake})


def judging_by_slopes(discriminator: nn.Module, fake: Tensor, real: Tensor, penalty: float, noise: NoiseSource) -> Losses:
    """Return the objective of a Wasserstein discriminator: the difference of its mean answers, and `penalty` where its slope is not 1.

    fake  (B, C, H, W), without gradient. The slope is taken at a random place between every pair of images (Gulrajani et al., 2017).
    """
    of_fake, of_real = discriminator(fake).mean(), discriminator(real).mean()
    share = noise.uniform((len(real), 1, 1, 1), real.device, real.dtype)
    between = (fake * (1 - share) + real * share).requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    excess = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return Losses(of_fake - of_real + penalty * excess, {"real": of_real.detach(), "fake": of_fake.detach(), "penalty": excess.detach()})


@config
class AdversarialConfig(MethodConfig):
    """What adversarial trainings of a network that restores have in common. The defaults are those of Real-ESRGAN."""

    samples: ClassVar[bool] = False

    network: RestorerConfig = RRDBNetConfig()
    """The network that restores."""
    initial: InitialWeights = "kaiming"
    """Initial weights of network (where it does not start from a trained one) and discriminator; see model=rrdb."""
    base: Annotated[BaseConfig, Ours("weights")] = NoBaseConfig()
    """What the network's answer is added to; see model=rrdb."""
    loss: ImageLossConfig = ImageLossConfig()
    """Weights of the terms that compare with the target pixel by pixel."""
    perceptual: PerceptualLossConfig = PerceptualLossConfig()
    """Distance of features."""
    adversarial: AdversarialLossConfig = AdversarialLossConfig()
    """Adversarial losses of network and discriminator."""
    discriminator: DiscriminatorConfig = UNetConfig()
    """The discriminator."""
    sharpened_target: bool = False
    """Pixel and perceptual loss compare with the sharpened target, the discriminator sees it as it is (Real-ESRGAN)."""
    tiles: HaloTilesConfig = HaloTilesConfig()
    """Whether an image is restored whole or in tiles."""

    @property
    def target_side(self) -> int | None:
        return self.discriminator.target_side

    def refuse(self, problem: Problem) -> str | None:
        refusal = refuse_bands(self.perceptual, problem) or self.network.refuse_network(problem)
        return refusal or self.base.refuse_base(self.network.kind, problem)


class GeneratorObjective:
    """What a generator minimises. Not a module: the perceptual network is no part of the weights."""

    def __init__(self, options: AdversarialConfig) -> None:
        self.options = options
        self.perceptual = PerceptualTerm(options.perceptual)

    def terms(self, image: Tensor, hr: Tensor, valid: Tensor | None, discriminator: nn.Module, step: int) -> dict[str, Term]:
        """Return what the objective says of an image (B, C, H, W) at `step`."""
        options, target = self.options, self.target(hr)
        terms: dict[str, Term] = dict(options.loss.terms(image, target, valid, step))
        if options.perceptual.weight:
            terms["perceptual"] = (options.perceptual.weight, self.perceptual(with_missing_of(image, target, valid), target))
        adversarial = deceiving(options.adversarial, discriminator, with_missing_of(image, hr, valid), hr)
        return terms | {"adversarial": (ramped(options.adversarial.weight, options.adversarial.ramp, step), adversarial)}

    def target(self, hr: Tensor) -> Tensor:
        """Return what pixel and perceptual loss compare with."""
        if not self.options.sharpened_target:
            return hr
        from rsdiff.degradations.sharpening import sharpen  # Real-ESRGAN alone sharpens

        with torch.no_grad(), torch.autocast(hr.device.type, enabled=False):
            return sharpen(hr.float())
