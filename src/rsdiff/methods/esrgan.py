"""Adversarial training of a network that restores: ESRGAN, BSRGAN and Real-ESRGAN, or SRGAN on any network (`model.network=hat`).

The objective has the terms of a regression (`loss`), a perceptual and an adversarial one; it starts from a regression of the network.
Sources: ESRGANModel of BasicSR, ModelGAN of KAIR, RealESRGANModel. Unlike the published code:
- the two halves of the discriminator's loss are added before one backward pass, where theirs makes two: equal but for rounding;
- averages of the weights hold the discriminator's, too.
As published, the discriminator sees the image that the generator made before its own step, so nothing is restored twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.losses.image_terms import ImageLossConfig
from rsdiff.losses.masked import ramped, with_missing_of
from rsdiff.methods.adversaries import AdversarialLossConfig, DiscriminatorConfig, UNetConfig, deceiving, judging
from rsdiff.methods.base import Losses, MethodConfig, Predecessor, Problem, Stage, Term
from rsdiff.methods.perceptual import PerceptualLossConfig, PerceptualTerm, refuse_bands
from rsdiff.methods.restoring import HaloTilesConfig, InitialWeights, Restoring, initialise
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.rrdb import RRDBNetConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource


@config
class ESRGANConfig(MethodConfig):
    """A network against a discriminator. The defaults are those of Real-ESRGAN."""

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
    def predecessor(self) -> Predecessor:
        return Predecessor("rrdb", {"network": self.network, "base": self.base})

    def refuse(self, problem: Problem) -> str | None:
        refusal = refuse_bands(self.perceptual, problem) or self.network.refuse_network(problem)
        return refusal or self.base.refuse_base(self.network.kind, problem)

    def build(self, problem: Problem) -> ESRGAN:
        return ESRGAN(self, problem)


class ESRGAN(Restoring):
    """See the module and `ESRGANConfig`."""

    couples_batch = True
    training_only: ClassVar[tuple[str, ...]] = ("discriminator.",)

    def __init__(self, options: ESRGANConfig, problem: Problem) -> None:
        super().__init__(options.network, options.base, options.tiles, problem, options.initial)
        self.options = options
        self.discriminator = options.discriminator.build(problem.bands)
        initialise(self.discriminator, options.initial)
        self.objective = GeneratorObjective(options)

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"restorer": self.network.parameters(), "discriminator": self.discriminator.parameters()}

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take network and base of a trained regression."""
        self.load_state_dict({**self.state_dict(), **weights})

    def prepare_training(self) -> None:
        """Raises UserError when the perceptual loss has no weights file."""
        self.objective.perceptual.load()

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        hr = batch.need("hr")
        image = self.estimate(self.training_input(batch))
        known = with_missing_of(image, hr, batch.valid)
        terms = self.objective.terms(image, hr, batch.valid, self.discriminator, stage.step)
        return {"restorer": Losses.weighted(terms), "discriminator": judging(self.options.adversarial, self.discriminator, known, hr)}

    @property
    def coupling(self) -> str:
        if self.options.adversarial.relative != "no":
            return "its relativistic loss compares every image with the mean over its batch"
        return super().coupling


class GeneratorObjective:
    """What a generator minimises. Not a module: the perceptual network is no part of the weights."""

    def __init__(self, options: ESRGANConfig) -> None:
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
