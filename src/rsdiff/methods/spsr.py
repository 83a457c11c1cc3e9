"""SPSR: ESRGAN with a branch that restores the map of gradients, and a second discriminator that judges such maps.

Source: Maclory/SPSR (CVPR 2020), SPSR_model.py. Started from a trained `rrdb`, whose last convolution is left out.

As published:
- the first steps train the fusion alone, not the branch (`fusion_steps`); all terms of the objective are active;
- the gradient pixel loss is a mean square, and it and the second discriminator see maps two pixels larger than the image, whose border
  holds differences to zeros; the loss of the branch sees maps of the image's size.

Unlike the published code:
- normalisations of the discriminators see the real images before the restored ones, in both passes: it moves their running averages in
  another order, which matters to nothing that is trained;
- the branch may be shown other blocks of the trunk than the 5th, 10th, 15th and 20th (`network.taps`), so that trunks can be small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.missing import eroded
from rsdiff.data.sample import Batch
from rsdiff.losses.images import ImageLossConfig, masked_l1, masked_mse, with_missing_of
from rsdiff.methods.adversaries import AdversarialConfig, AdversarialLossConfig, GeneratorObjective, deceiving, judging
from rsdiff.methods.base import Losses, Predecessor, Problem, Stage
from rsdiff.methods.perceptual import PerceptualLossConfig
from rsdiff.methods.restoring import ImageMethod, ImageNetwork, initialise
from rsdiff.networks.discriminators import DiscriminatorConfig, VGGConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.spsr import SPSRNet, SPSRNetConfig, gradient_map

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource

LARGER = 2
"""Padding of the maps that are compared and judged, which makes them as many pixels larger than the image."""


@config
class SPSRConfig(AdversarialConfig):
    """SPSR. The defaults are the published ones."""

    network: RestorerConfig = SPSRNetConfig()
    """The network that restores: spsr."""
    loss: ImageLossConfig = ImageLossConfig(l1=0.01)
    """Weights of the terms that compare with the target pixel by pixel."""
    perceptual: PerceptualLossConfig = PerceptualLossConfig(layers=("conv5_4",), layer_weights=(1.0,))
    """Distance of features."""
    adversarial: AdversarialLossConfig = AdversarialLossConfig(relative="to_mean", joint=True, weight=0.005)
    """Adversarial losses of the network and both discriminators; its `weight` is for the one that sees images."""
    discriminator: DiscriminatorConfig = VGGConfig(biases=True)
    """The discriminator of images; one of its kind, built for their size, is that of gradient maps: vgg or patch."""
    gradient_pixel_weight: float = 0.01
    """Factor of the mean squared difference of gradient maps of images."""
    gradient_adversarial_weight: float = 0.005
    """Factor of the adversarial loss of gradient maps of images."""
    branch_weight: float = 0.5
    """Factor of the mean absolute error of the gradient map that the branch estimates."""
    fusion_steps: int = 4999
    """First steps, in which of the generator only the fusion is trained."""

    def __post_init__(self) -> None:
        if min(self.gradient_pixel_weight, self.gradient_adversarial_weight, self.branch_weight, self.fusion_steps) < 0:
            raise UserError(
                f"gradient_pixel_weight={self.gradient_pixel_weight}, gradient_adversarial_weight={self.gradient_adversarial_weight}, "
                f"branch_weight={self.branch_weight} and fusion_steps={self.fusion_steps} must be 0 or more."
            )
        if not isinstance(self.network, SPSRNetConfig):
            raise UserError(f"network={self.network.kind} has no gradient branch; leave network=spsr, or choose model=esrgan.")
        if self.discriminator.kind == "unet":
            raise UserError(
                "discriminator=unet needs sides that are multiples of 8, and gradient maps are 2 pixels larger than targets; "
                "choose vgg or patch."
            )

    @property
    def trunk(self) -> RestorerConfig:
        """The network of the regression that it starts from."""
        assert isinstance(self.network, SPSRNetConfig)
        return self.network.trunk

    @property
    def predecessor(self) -> Predecessor:
        return Predecessor("rrdb", {"network": self.trunk, "base": self.base})

    def build(self, problem: Problem) -> SPSR:
        return SPSR(self, problem)


class SPSR(ImageMethod):
    """See the module and `SPSRConfig`."""

    couples_batch = True
    training_only: ClassVar[tuple[str, ...]] = ("discriminator.", "gradient_discriminator.")
    network: SPSRNet

    def __init__(self, options: SPSRConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.images = ImageNetwork(self, options.network, options.base, options.tiles, problem, options.initial)
        self.discriminator = options.discriminator.build(problem.bands)
        initialise(self.discriminator, options.initial)
        self.objective = GeneratorObjective(options)
        self.gradient_discriminator = options.discriminator.build(problem.bands, LARGER)

    @property
    def coupling(self) -> str:
        if self.options.adversarial.relative != "no":
            return "its relativistic loss compares every image with the mean over its batch"
        return super().coupling

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {
            "restorer": self.network.parameters(),
            "discriminator": self.discriminator.parameters(),
            "gradient_discriminator": self.gradient_discriminator.parameters(),
        }

    def stages(self) -> Sequence[Stage]:
        groups = tuple(self.groups())
        return [Stage("fusion", groups, self.options.fusion_steps), Stage("all", groups)]

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the trunk of a trained `rrdb`, all but its last convolution."""
        self.load_state_dict({**self.state_dict(), **{name: value for name, value in weights.items() if "conv_last" not in name}})

    def prepare_training(self) -> None:
        """Raises UserError when the perceptual loss has no weights file."""
        self.objective.perceptual.load()

    def start_stage(self, stage: Stage) -> None:
        self.network.requires_grad_(stage.name == "all")
        self.network.fusion.requires_grad_(True)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        options, hr, game = self.options, batch.need("hr"), self.options.adversarial
        lr = self.images.training_input(batch)
        made, branch = self.network.image_and_map(lr)
        image = self.base.onto(made, lr)
        known = with_missing_of(image, hr, batch.valid)
        of_image, of_hr = gradient_map(known, LARGER), gradient_map(hr, LARGER)
        # A gradient is known where the pixels beside it are.
        edges = None if batch.valid is None else eroded(batch.valid, 1)
        around = None if edges is None else F.pad(edges, (LARGER // 2,) * 4, value=1.0)
        terms = self.objective.terms(image, hr, batch.valid, self.discriminator, stage.step) | {
            "gradient_pixel": (options.gradient_pixel_weight, masked_mse(of_image, of_hr, around)),
            "gradient_adversarial": (
                options.gradient_adversarial_weight,
                deceiving(game, self.gradient_discriminator, of_image, of_hr),
            ),
            "branch": (options.branch_weight, masked_l1(branch, gradient_map(hr), edges)),
        }
        return {
            "restorer": Losses.weighted(terms),
            "discriminator": judging(game, self.discriminator, known, hr),
            "gradient_discriminator": judging(game, self.gradient_discriminator, of_image, of_hr),
        }
