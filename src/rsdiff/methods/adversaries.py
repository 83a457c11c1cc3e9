"""Discriminators, and what their answers (logits) about real and restored images cost them, and the network that restores.

Source: GANLoss of BasicSR and of KAIR, and the step of their ESRGAN and GAN models; Jolicoeur-Martineau, ICLR 2019 (relativistic).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.kinds import Kinds
from rsdiff.config.tagged import Tagged
from rsdiff.losses.masked import Ramp, require_ramp
from rsdiff.methods.base import Losses, frozen

if TYPE_CHECKING:
    from rsdiff.networks.patch_discriminator import PatchDiscriminator
    from rsdiff.networks.unet_discriminator import UNetDiscriminator
    from rsdiff.networks.vgg_discriminator import VGGDiscriminator

    Discriminator = UNetDiscriminator | PatchDiscriminator | VGGDiscriminator


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


HIGHEST_WEIGHT = 1e4


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss (), 0.5 (mean relu(1 - D(real)) + mean relu(1 + D(fake))), from its answers of any shape."""
    return 0.5 * (answer_loss("hinge", real, True) + answer_loss("hinge", fake, False))


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, layer: Tensor) -> Tensor:
    """Return |grad reconstruction| / (|grad adversarial| + 1e-4), at most 1e4, a scalar without gradient.

    Both losses are scalars; gradients are with respect to the weights of the generator's last `layer` and their graphs are kept.
    Source: Esser et al., 2021 (VQGAN), eq. 7; CompVis/latent-diffusion, LPIPSWithDiscriminator.
    """
    norms = [torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, HIGHEST_WEIGHT).detach()


class DiscriminatorConfig(Tagged):
    """The family of discriminators."""

    family: ClassVar[str] = "discriminator"
    kinds: ClassVar[Kinds] = Kinds(
        {
            "patch": "rsdiff.methods.adversaries:PatchConfig",
            "unet": "rsdiff.methods.adversaries:UNetConfig",
            "vgg": "rsdiff.methods.adversaries:VGGConfig",
        }
    )

    def build(self, bands: int, larger: int = 0) -> Discriminator:
        """Return the discriminator of images of so many bands, with fresh weights.

        larger  pixels by which what it judges is larger than the targets
        """
        raise NotImplementedError


@config
class VGGConfig(DiscriminatorConfig):
    """One answer per image (ESRGAN)."""

    kind: ClassVar[str] = "vgg"

    width: int = 64
    """Channels of its first convolution."""
    biases: bool = False
    """Convolutions have a bias where a norm follows, too (ESRGAN's first code, SPSR)."""
    size: int = 128
    """Side of the targets that it is built for: trainer.patch, or degradation.crop times the scale."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.size < 8:
            raise UserError(f"width={self.width} must be at least 1 and size={self.size} at least 8; change them.")

    def build(self, bands: int, larger: int = 0) -> Discriminator:
        from rsdiff.networks.vgg_discriminator import VGGDiscriminator

        return VGGDiscriminator(bands, self.width, self.size + larger, "esrgan" if self.biases else "basicsr")


@config
class UNetConfig(DiscriminatorConfig):
    """One answer per pixel (Real-ESRGAN, BSRGAN's released code)."""

    kind: ClassVar[str] = "unet"

    width: int = 64
    """Channels of its first convolution."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UserError(f"width={self.width} was given; choose at least 1.")

    def build(self, bands: int, larger: int = 0) -> Discriminator:
        if larger:
            raise UserError(
                f"discriminator=unet needs sides that are multiples of 8, and what it is to judge is {larger} pixels larger than targets; "
                "choose vgg or patch."
            )
        from rsdiff.networks.unet_discriminator import UNetDiscriminator

        return UNetDiscriminator(bands, self.width)


@config
class PatchConfig(DiscriminatorConfig):
    """One answer per patch (BSRGAN's paper)."""

    kind: ClassVar[str] = "patch"

    width: int = 64
    """Channels of its first convolution."""
    layers: int = 3
    """Strided convolutions."""

    def __post_init__(self) -> None:
        if min(self.width, self.layers) < 1:
            raise UserError(f"width={self.width} and layers={self.layers} must be at least 1; change them.")

    def build(self, bands: int, larger: int = 0) -> Discriminator:
        from rsdiff.networks.patch_discriminator import PatchDiscriminator

        return PatchDiscriminator(bands, self.width, self.layers, padding=2, norm="none", spectral=True)


def deceiving(game: AdversarialLossConfig, discriminator: nn.Module, image: Tensor, real: Tensor) -> Tensor:
    """Return the loss () of a network that made `image`; the discriminator's weights get no gradient of it."""
    with frozen(discriminator):
        return game.generator_loss(discriminator, image, real)


def judging(game: AdversarialLossConfig, discriminator: nn.Module, image: Tensor, real: Tensor) -> Losses:
    """Return the objective of a discriminator; what it judges gets no gradient of it."""
    verdict = game.discriminator_loss(discriminator, image, real)
    return Losses(verdict.total, {"loss": verdict.total.detach(), "real": verdict.real, "fake": verdict.fake})
