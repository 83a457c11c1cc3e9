"""MASA-SR: super-resolution with a reference image, searched block by block, whose statistics adapt to the LR; with or without adversary.

Inputs: the LR image and an HR image (`ref`), of the same place or not. Source: Lu et al., CVPR 2021, and dvlab-research/MASA-SR; see
rsdiff.networks.masa for the network.

Unlike the published code:
- Bands are in the data's order; theirs are blue, green, red, also for VGG19, whose weights are for red, green, blue. Imported weights are
  turned.
- The reference is made small by Pillow's filter on real numbers; theirs is rounded to 8 bits.
- It is built for x4; at x8 and x16 the LR is first enlarged to a quarter of the target's size, and the small reference blurred as much
  (ours).
- Where sides are no multiples of a block, the LR is extended by reflection; there the target is, by its border, before it is made small.
- The discriminator is stepped once per step of the network, by the images made before that step; there just before it.
- Crops of LR, reference and target are turned together, for references of the same place lose their place otherwise; their changes of
  brightness and contrast (factor 0.7 to 1.3, of either image) are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_0, Either, ReadWith
from rsdiff.data.sample import Batch
from rsdiff.losses.images import masked_l1, ramped, with_missing_of
from rsdiff.methods.adversaries import AdversarialLossConfig, deceiving, judging
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, Term, require_multiple
from rsdiff.methods.perceptual import PerceptualLossConfig, PerceptualTerm, coupling_by_features, refuse_bands
from rsdiff.methods.referenced import blurred_as_lr, pairs, quarter_of_target, refuse_reference
from rsdiff.networks.discriminators import DiscriminatorConfig, VGGConfig
from rsdiff.networks.masa import BLOCK, Found, MASANet, MASANetConfig, joined

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig

TARGET_MULTIPLE = 4 * BLOCK
REFERENCE_MULTIPLE = 16
"""References are extended to such sides, at the bottom and right, by their border (as published)."""


@config
class MASASRConfig(MethodConfig):
    """MASA-SR. The defaults are the published ones; perceptual.weight=0 and adversarial.weight=0 give MASA-rec, the one for PSNR."""

    samples: ClassVar[bool] = False
    read_with: ClassVar[ReadWith] = {
        "reconstruction_steps": Either((("perceptual.weight", (ABOVE_0,)), ("adversarial.weight", (ABOVE_0,)))),
        **dict.fromkeys(
            ("discriminator", "adversarial.kind", "adversarial.relative", "adversarial.joint", "adversarial.ramp"),
            ("adversarial.weight", (ABOVE_0,)),
        ),
    }

    network: MASANetConfig = MASANetConfig()
    """The network."""
    reconstruction_steps: int = 329750
    """Steps at the beginning with the mean absolute error alone: 250 passes over CUFED's 11,871 pairs (README)."""
    perceptual: PerceptualLossConfig = PerceptualLossConfig(layers=("conv5_4",), layer_weights=(1.0,))
    """Distance of VGG19 features."""
    adversarial: AdversarialLossConfig = AdversarialLossConfig(relative="to_mean", weight=5e-3)
    """The game with the discriminator; a weight of 0 builds none."""
    discriminator: DiscriminatorConfig = VGGConfig(size=160)
    """The discriminator."""

    def __post_init__(self) -> None:
        if self.reconstruction_steps < 0:
            raise UserError(f"reconstruction_steps={self.reconstruction_steps} was given; choose 0 or more.")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr", "ref"})

    @property
    def target_side(self) -> int | None:
        return self.discriminator.target_side if self.adversarial.weight else None

    def refuse(self, problem: Problem) -> str | None:
        return refuse_reference("masa_sr", problem) or refuse_bands(self.perceptual, problem)

    def build(self, problem: Problem) -> MASASR:
        return MASASR(self, problem)


class MASASR(Method):
    """See the module and `MASASRConfig`."""

    training_only: ClassVar[tuple[str, ...]] = ("discriminator.",)

    def __init__(self, options: MASASRConfig, problem: Problem) -> None:
        super().__init__()
        self.options, self.scale = options, int(problem.scale)
        self.network = MASANet(problem.bands, options.network)
        if options.adversarial.weight:
            self.discriminator = options.discriminator.build(problem.bands)
        self.perceptual = PerceptualTerm(options.perceptual)

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        own = {"restorer": self.network.parameters()}
        return own | ({"discriminator": self.discriminator.parameters()} if self.options.adversarial.weight else {})

    def stages(self) -> Sequence[Stage]:
        options, groups = self.options, tuple(self.groups())
        has_more = options.perceptual.weight or options.adversarial.weight
        first = [Stage("reconstruction", ("restorer",), options.reconstruction_steps)] if options.reconstruction_steps and has_more else []
        return [*first, Stage("train", groups)]

    @property
    def coupling(self) -> str:
        game = self.options.adversarial
        if game.weight and game.relative != "no":
            return "its relativistic loss compares every image with the mean over its batch"
        return coupling_by_features(self.options.perceptual) or super().coupling

    def prepare_training(self) -> None:
        """Raises UserError when the perceptual loss has no weights file."""
        self.perceptual.load()

    def found(self, batch: Batch) -> Found:
        """Return what the network finds in a batch."""
        lr, ref = quarter_of_target(batch, self.scale), batch.need("ref")
        rows, columns = (-side % REFERENCE_MULTIPLE for side in ref.shape[-2:])
        ref = F.pad(ref, (0, columns, 0, rows), mode="replicate")
        small = blurred_as_lr(ref, self.scale, (ref.shape[-2] // 4, ref.shape[-1] // 4))
        return self.network.find(lr, ref, small)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_multiple(batch, TARGET_MULTIPLE)
        options, hr, image = self.options, batch.need("hr"), self.network.made(self.found(batch))
        terms: dict[str, Term] = {"l1": (1.0, masked_l1(image, hr, batch.valid))}
        known = with_missing_of(image, hr, batch.valid)
        judged: dict[str, Losses] = {}
        if stage.name == "train" and options.perceptual.weight:
            terms["perceptual"] = options.perceptual.weight, self.perceptual(known, hr)
        if "discriminator" in stage.groups:
            game = options.adversarial
            terms["adversarial"] = ramped(game.weight, game.ramp, stage.step), deceiving(game, self.discriminator, known, hr)
            judged["discriminator"] = judging(game, self.discriminator, known, hr)
        return {"restorer": Losses.weighted(terms), **judged}

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.network.made(joined([self.found(one) for one in pairs(batch)])).float()

    def pixel_multiple(self) -> int:
        return max(1, TARGET_MULTIPLE // self.scale)
