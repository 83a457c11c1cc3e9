"""ESRGAN and what grew from it, BSRGAN and Real-ESRGAN: RRDBNet with pixel, perceptual and adversarial losses, from a trained `rrdb`.

Sources: ESRGANModel of BasicSR, ModelGAN of KAIR, RealESRGANModel. Unlike the published code:
- the two halves of the discriminator's loss are added before one backward pass, where theirs makes two: equal but for rounding;
- averages of the weights hold the discriminator's, too.
As published, the discriminator sees the image that the generator made before its own step, so nothing is restored twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.data.sample import Batch
from rsdiff.degradations.sharpening import sharpen
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.losses.adversarial import AdversarialLossConfig
from rsdiff.losses.masked import masked_l1, with_missing_of
from rsdiff.losses.perceptual import PerceptualLossConfig
from rsdiff.methods.base import Losses, MethodConfig, Predecessor, Problem, Stage, Term, frozen
from rsdiff.methods.perceptual import PerceptualTerm, refuse_bands
from rsdiff.methods.rrdb import GeneratorConfig, InitialWeights, RRDBMethod, initialise
from rsdiff.methods.whole_scale import require_scale
from rsdiff.networks.halo_tiles import HaloTilesConfig
from rsdiff.networks.patch_discriminator import PatchDiscriminator
from rsdiff.networks.unet_discriminator import UNetDiscriminator
from rsdiff.networks.vgg_discriminator import VGGDiscriminator

Discriminator = UNetDiscriminator | PatchDiscriminator | VGGDiscriminator


@config
class GanDiscriminatorConfig:
    """The adversary."""

    network: Literal["vgg", "unet", "patch"] = "unet"
    """One answer per image (ESRGAN), per pixel (Real-ESRGAN, BSRGAN's released code) or per patch (BSRGAN's paper)."""
    width: int = 64
    """Channels of its first convolution."""
    layers: int = 3
    """Strided convolutions of the patch discriminator."""
    biases: bool = False
    """Convolutions of the vgg discriminator have a bias where a norm follows, too (ESRGAN's first code, SPSR)."""
    size: int = 128
    """Side of the targets that the vgg discriminator is built for: trainer.patch, or degradation.crop times the scale."""

    def __post_init__(self) -> None:
        if min(self.width, self.layers) < 1 or self.size < 8:
            raise ValueError(
                f"width={self.width} and layers={self.layers} must be at least 1 and size={self.size} at least 8; change them."
            )

    def build(self, bands: int) -> Discriminator:
        """Return the discriminator of images of so many bands, with fresh weights."""
        match self.network:
            case "vgg":
                return VGGDiscriminator(bands, self.width, self.size, "esrgan" if self.biases else "basicsr")
            case "unet":
                return UNetDiscriminator(bands, self.width)
            case "patch":
                return PatchDiscriminator(bands, self.width, self.layers, padding=2, norm="none", spectral=True)


@config
class ESRGANConfig(MethodConfig):
    """RRDBNet against a discriminator. The defaults are those of Real-ESRGAN."""

    generator: GeneratorConfig = GeneratorConfig()
    """The network that restores."""
    initial: InitialWeights = "kaiming"
    """Initial weights of generator (where it does not start from a trained one) and discriminator; see model=rrdb."""
    pixel_weight: float = 1.0
    """Factor of the mean absolute error."""
    perceptual: PerceptualLossConfig = PerceptualLossConfig()
    """Distance of features."""
    adversarial: AdversarialLossConfig = AdversarialLossConfig()
    """The game."""
    discriminator: GanDiscriminatorConfig = GanDiscriminatorConfig()
    """The adversary."""
    sharpened_target: bool = False
    """Pixel and perceptual loss compare with the sharpened target, the discriminator sees it as it is (Real-ESRGAN)."""
    tiles: HaloTilesConfig = HaloTilesConfig()
    """How images are restored."""

    def __post_init__(self) -> None:
        if self.pixel_weight < 0:
            raise ValueError(f"pixel_weight={self.pixel_weight} was given; choose 0 or more.")

    @property
    def predecessor(self) -> Predecessor:
        return Predecessor("rrdb", {"generator": self.generator})

    def refuse(self, problem: Problem) -> str | None:
        return refuse_bands(self.perceptual, problem) or self.generator.refuse("esrgan", problem)

    def build(self, problem: Problem) -> ESRGAN:
        return ESRGAN(self, problem)


class ESRGAN(RRDBMethod):
    """See the module and `ESRGANConfig`."""

    def __init__(self, options: ESRGANConfig, problem: Problem) -> None:
        super().__init__(options.generator, options.initial, options.tiles, problem)
        self.options = options
        self.discriminator = options.discriminator.build(problem.bands)
        initialise(self.discriminator, options.initial)
        self.perceptual = PerceptualTerm(options.perceptual)

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"restorer": self.network.parameters(), "discriminator": self.discriminator.parameters()}

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the generator of a trained `rrdb`."""
        self.network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})

    def prepare_training(self) -> None:
        """Raises ValueError when the perceptual loss has no weights file."""
        self.perceptual.load()

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_scale(batch, self.scale)
        hr = batch.need("hr")
        # Missing pixels of the image are those of the target, in every term: they make no difference and get no gradient.
        image = with_missing_of(self.network(batch.need("lr")), hr, batch.valid)
        return {
            "restorer": Losses.weighted(self.image_terms(image, hr, batch.valid)),
            "discriminator": self.judged(self.discriminator, image, hr),
        }

    def image_terms(self, image: Tensor, hr: Tensor, valid: Tensor | None = None) -> dict[str, Term]:
        """Return what the generator's objective says of an image (B, C, H, W), whose missing pixels are those of hr."""
        options = self.options
        target = self._target(hr)
        terms = {"pixel": (options.pixel_weight, masked_l1(image, target, valid))}
        if options.perceptual.weight:
            terms["perceptual"] = (options.perceptual.weight, self.perceptual(with_missing_of(image, target, valid), target))
        with frozen(self.discriminator):
            adversarial = options.adversarial.generator_loss(self.discriminator, image, hr)
        return terms | {"adversarial": (options.adversarial.weight, adversarial)}

    def _target(self, hr: Tensor) -> Tensor:
        """Return what pixel and perceptual loss compare with."""
        if not self.options.sharpened_target:
            return hr
        with torch.no_grad(), torch.autocast(hr.device.type, enabled=False):
            return sharpen(hr.float())

    def judged(self, discriminator: nn.Module, made: Tensor, real: Tensor) -> Losses:
        """Return the objective of a discriminator; no gradient reaches what it judges."""
        verdict = self.options.adversarial.discriminator_loss(discriminator, made, real)
        return Losses(verdict.total, {"loss": verdict.total.detach(), "real": verdict.real, "fake": verdict.fake})
