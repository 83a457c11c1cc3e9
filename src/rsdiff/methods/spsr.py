"""SPSR: ESRGAN with a branch that restores the map of gradients, and a second discriminator that judges such maps.

Source: Maclory/SPSR (CVPR 2020), SPSR_model.py. Started from a trained `rrdb`, whose last convolution is left out.

As published:
- the first steps train the fusion alone, not the branch (`fusion_steps`); all terms of the objective are active;
- the gradient pixel loss is a mean square, and it and the second discriminator see maps two pixels larger than the image, whose border
  holds differences to zeros; the loss of the branch sees maps of the image's size.

Unlike the published code:
- normalisations of the discriminators see the real images before the restored ones, in both passes: it moves their running averages in
  another order, which matters to nothing that is trained;
- the branch may be shown other blocks of the trunk than the 5th, 10th, 15th and 20th (`generator.taps`), so that trunks can be small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import config
from rsdiff.data.missing import eroded
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.losses.adversarial import AdversarialLossConfig
from rsdiff.losses.masked import masked_l1, masked_mse, with_missing_of
from rsdiff.losses.perceptual import PerceptualLossConfig
from rsdiff.methods.base import Losses, Predecessor, Problem, Stage, frozen
from rsdiff.methods.esrgan import ESRGAN, ESRGANConfig, GanDiscriminatorConfig
from rsdiff.methods.perceptual import refuse_bands
from rsdiff.methods.rrdb import GeneratorConfig
from rsdiff.methods.whole_scale import require_scale
from rsdiff.networks.spsr import SPSRNet, gradient_map

LARGER = 2
"""Padding of the maps that are compared and judged, which makes them as many pixels larger than the image."""


@config
class SPSRGeneratorConfig(GeneratorConfig):
    """RRDBNet with a gradient branch."""

    taps: tuple[int, ...] = (5, 10, 15, 20)
    """Blocks of the trunk, counted from 1, whose outputs the branch is shown."""

    def __post_init__(self) -> None:
        GeneratorConfig.__post_init__(self)
        if not self.taps or list(self.taps) != sorted(set(self.taps)) or not 1 <= self.taps[0] <= self.taps[-1] <= self.blocks:
            raise ValueError(f"taps={list(self.taps)} of a trunk of blocks={self.blocks}; choose rising numbers from 1 to that one.")

    def network(self, problem: Problem, unshuffle: int, enlargements: tuple[int, ...]) -> SPSRNet:
        return SPSRNet(
            in_channels=problem.lr_bands,
            bands=problem.bands,
            width=self.width,
            blocks=self.blocks,
            growth=self.growth,
            taps=self.taps,
            enlargements=enlargements,
            on_enlarged=self.starts_bicubic,
        )

    @property
    def trunk(self) -> GeneratorConfig:
        """What a trained `rrdb` must have been built with."""
        return GeneratorConfig(**{field.name: getattr(self, field.name) for field in fields(GeneratorConfig)})


@config
class SPSRConfig(ESRGANConfig):
    """SPSR. The defaults are the published ones."""

    generator: SPSRGeneratorConfig = SPSRGeneratorConfig()
    """The network that restores."""
    pixel_weight: float = 0.01
    """Factor of the mean absolute error."""
    perceptual: PerceptualLossConfig = PerceptualLossConfig(layers=("conv5_4",), layer_weights=(1.0,))
    """Distance of features."""
    adversarial: AdversarialLossConfig = AdversarialLossConfig(relative="to_mean", joint=True, weight=0.005)
    """The game of either discriminator; its weight is that of the images'."""
    discriminator: GanDiscriminatorConfig = GanDiscriminatorConfig(network="vgg", biases=True)
    """Either adversary; that of the gradient maps is built for their size."""
    gradient_pixel_weight: float = 0.01
    """Factor of the mean squared difference of gradient maps of images."""
    gradient_adversarial_weight: float = 0.005
    """Factor of the adversarial loss of gradient maps of images."""
    branch_weight: float = 0.5
    """Factor of the mean absolute error of the gradient map that the branch estimates."""
    fusion_steps: int = 4999
    """First steps, in which of the generator only the fusion is trained."""

    def __post_init__(self) -> None:
        ESRGANConfig.__post_init__(self)
        if min(self.gradient_pixel_weight, self.gradient_adversarial_weight, self.branch_weight, self.fusion_steps) < 0:
            raise ValueError(
                f"gradient_pixel_weight={self.gradient_pixel_weight}, gradient_adversarial_weight={self.gradient_adversarial_weight}, "
                f"branch_weight={self.branch_weight} and fusion_steps={self.fusion_steps} must be 0 or more."
            )
        if self.discriminator.network == "unet":
            raise ValueError(
                "discriminator.network=unet needs sides that are multiples of 8, and gradient maps are 2 pixels larger than targets; "
                "choose vgg or patch."
            )

    @property
    def predecessor(self) -> Predecessor:
        return Predecessor("rrdb", {"generator": self.generator.trunk})

    def refuse(self, problem: Problem) -> str | None:
        if self.generator.head == "always_x4" and problem.scale in (1, 2):
            return (
                f"model spsr enlarges by stages and the scale is {problem.scale:g}; set model.generator.head=stages and a scale from 2 on."
            )
        return refuse_bands(self.perceptual, problem) or self.generator.refuse("spsr", problem)

    def build(self, problem: Problem) -> SPSR:
        return SPSR(self, problem)


class SPSR(ESRGAN):
    """See the module and `SPSRConfig`."""

    options: SPSRConfig
    network: SPSRNet

    def __init__(self, options: SPSRConfig, problem: Problem) -> None:
        super().__init__(options, problem)
        judge = options.discriminator
        self.gradient_discriminator = replace(judge, size=judge.size + LARGER).build(problem.bands)

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {**super().groups(), "gradient_discriminator": self.gradient_discriminator.parameters()}

    def stages(self) -> Sequence[Stage]:
        groups = tuple(self.groups())
        return [Stage("fusion", groups, self.options.fusion_steps), Stage("all", groups)]

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the trunk of a trained `rrdb`, all but its last convolution."""
        own = {name.removeprefix("network."): value for name, value in weights.items() if "conv_last" not in name}
        self.network.load_state_dict({**self.network.state_dict(), **own})

    def start_stage(self, stage: Stage) -> None:
        super().start_stage(stage)
        self.network.requires_grad_(stage.name == "all")
        self.network.fusion.requires_grad_(True)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_scale(batch, self.scale)
        options, hr = self.options, batch.need("hr")
        image, branch = self.network.image_and_map(batch.need("lr"))
        image = with_missing_of(image, hr, batch.valid)
        # A gradient is known where the pixels beside it are.
        edges = None if batch.valid is None else eroded(batch.valid, 1)
        around = None if edges is None else F.pad(edges, (LARGER // 2,) * 4, value=1.0)
        of_image, of_hr = gradient_map(image, LARGER), gradient_map(hr, LARGER)
        with frozen(self.gradient_discriminator):
            judged = options.adversarial.generator_loss(self.gradient_discriminator, of_image, of_hr)
        terms = self.image_terms(image, hr, batch.valid) | {
            "gradient_pixel": (options.gradient_pixel_weight, masked_mse(of_image, of_hr, around)),
            "gradient_adversarial": (options.gradient_adversarial_weight, judged),
            "branch": (options.branch_weight, masked_l1(branch, gradient_map(hr), edges)),
        }
        return {
            "restorer": Losses.weighted(terms),
            "discriminator": self.judged(self.discriminator, image, hr),
            "gradient_discriminator": self.judged(self.gradient_discriminator, of_image, of_hr),
        }
