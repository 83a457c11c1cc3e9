"""Discriminators, and the two sides of the game that they play with a network that restores."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.kinds import Kinds
from rsdiff.config.tagged import Tagged
from rsdiff.losses.adversarial import AdversarialLossConfig
from rsdiff.methods.base import Losses, frozen

if TYPE_CHECKING:
    from rsdiff.networks.patch_discriminator import PatchDiscriminator
    from rsdiff.networks.unet_discriminator import UNetDiscriminator
    from rsdiff.networks.vgg_discriminator import VGGDiscriminator

    Discriminator = UNetDiscriminator | PatchDiscriminator | VGGDiscriminator


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
