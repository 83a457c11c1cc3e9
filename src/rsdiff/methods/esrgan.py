"""Adversarial training of a network that restores: ESRGAN, BSRGAN and Real-ESRGAN, or SRGAN on any network (`model.network=hat`).

The objective has the terms of a regression (`loss`), a perceptual and an adversarial one; it starts from a regression of the network.
Sources: ESRGANModel of BasicSR, ModelGAN of KAIR, RealESRGANModel. Unlike the published code:
- the two halves of the discriminator's loss are added before one backward pass, where theirs makes two: equal but for rounding;
- averages of the weights hold the discriminator's, too.
As published, the discriminator sees the image that the generator made before its own step, so nothing is restored twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.data.sample import Batch
from rsdiff.losses.images import with_missing_of
from rsdiff.methods.adversaries import AdversarialConfig, GeneratorObjective, judging
from rsdiff.methods.base import Losses, Predecessor, Problem, Stage
from rsdiff.methods.restoring import ImageMethod, ImageNetwork, initialise

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource


@config
class ESRGANConfig(AdversarialConfig):
    """A network against a discriminator. The defaults are those of Real-ESRGAN."""

    @property
    def predecessor(self) -> Predecessor:
        return Predecessor("rrdb", {"network": self.network, "base": self.base})

    def build(self, problem: Problem) -> ESRGAN:
        return ESRGAN(self, problem)


class ESRGAN(ImageMethod):
    """See the module and `ESRGANConfig`."""

    couples_batch = True
    training_only: ClassVar[tuple[str, ...]] = ("discriminator.",)

    def __init__(self, options: ESRGANConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.images = ImageNetwork(self, options.network, options.base, options.tiles, problem, options.initial)
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
        image = self.images.estimate(self.images.training_input(batch))
        known = with_missing_of(image, hr, batch.valid)
        terms = self.objective.terms(image, hr, batch.valid, self.discriminator, stage.step)
        return {"restorer": Losses.weighted(terms), "discriminator": judging(self.options.adversarial, self.discriminator, known, hr)}

    @property
    def coupling(self) -> str:
        if self.options.adversarial.relative != "no":
            return "its relativistic loss compares every image with the mean over its batch"
        return super().coupling
