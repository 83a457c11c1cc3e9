"""TTSR: super-resolution with a reference image, whose textures are found by attention and transferred, with or without an adversary.

Inputs: the LR image and an HR image (`ref`), of the same place or not. Source: Yang et al., CVPR 2020, and researchmm/TTSR.

Unlike the published code:
- The LR is enlarged, and the reference blurred, by Pillow's filter on real numbers; theirs are rounded to 8 bits in between.
- It is built for x4; at x8 and x16 the LR is first enlarged to a quarter of the target's size, and the reference blurred as much (ours).
- The discriminator is stepped once per step of the network, by the images made before that step; there twice, and before.
- Crops of LR, reference and target are turned together, for references of the same place lose their place otherwise.
- Other bands than three are allowed, with an extractor from fresh weights (`extractor_start=random`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ABOVE_0, Either, ReadWith
from rsdiff.data.sample import Batch
from rsdiff.degradations.resizing import resize
from rsdiff.losses.images import masked_l1, with_missing_of
from rsdiff.methods.adversaries import judging_by_slopes
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, Term, frozen
from rsdiff.methods.perceptual import VGG19_FILE, PerceptualLossConfig, PerceptualTerm, coupling_by_features, read_vgg19, refuse_bands
from rsdiff.methods.referenced import blurred_as_lr, pairs, quarter_of_target, refuse_reference
from rsdiff.metrics.weight_files import require_weight_file
from rsdiff.networks.ttsr import (
    VGG_NUMBERS,
    TextureExtractor,
    TTSRDiscriminator,
    TTSRDiscriminatorConfig,
    TTSRNet,
    TTSRNetConfig,
    search,
    transferred,
)

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig

PERCEPTUAL = PerceptualLossConfig(weight=1e-2, layers=("relu5_1",), layer_weights=(1.0,), distance="l2")


@config
class TTSRConfig(TTSRDiscriminatorConfig, MethodConfig):
    """TTSR. The defaults are the published ones; all weights but the first at 0 give TTSR-rec, the one for PSNR."""

    samples: ClassVar[bool] = False
    read_with: ClassVar[ReadWith] = {
        "reconstruction_steps": Either(tuple((term, (ABOVE_0,)) for term in ("perceptual.weight", "transferal", "adversarial"))),
        "by_similarity": ("transferal", (ABOVE_0,)),
        "penalty": ("adversarial", (ABOVE_0,)),
        "discriminator_width": ("adversarial", (ABOVE_0,)),
        "discriminator_size": ("adversarial", (ABOVE_0,)),
    }

    network: TTSRNetConfig = TTSRNetConfig()
    """The network and the texture extractor."""
    extractor_start: Annotated[Literal["vgg19", "random"], Ours("training")] = "vgg19"
    """Weights that the texture extractor learns on from: VGG19's of ImageNet, or fresh ones (ours; needs no file, and takes any bands)."""
    reconstruction_steps: int = 2638
    """Steps at the beginning with the mean absolute error alone: two passes over CUFED's 11,871 pairs."""
    perceptual: PerceptualLossConfig = PERCEPTUAL
    """Distance of VGG19 features."""
    transferal: float = 1e-2
    """Factor of the distance between the result's textures and those that were transferred."""
    by_similarity: bool = False
    """That distance counts by how sure the match is (the paper's eq. 9; the released script has it off)."""
    adversarial: float = 1e-3
    """Factor of the adversarial loss (Wasserstein, with a penalty on gradients)."""
    penalty: float = 10.0
    """Factor of the penalty on the discriminator's gradients."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.transferal, self.adversarial, self.penalty, self.reconstruction_steps) < 0:
            raise UserError("transferal, adversarial, penalty and reconstruction_steps are 0 or more; change the negative one.")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr", "ref"})

    @property
    def target_side(self) -> int | None:
        return self.discriminator_size if self.adversarial else None

    def refuse(self, problem: Problem) -> str | None:
        if (refusal := refuse_reference("ttsr", problem)) is not None:
            return refusal
        if self.extractor_start == "vgg19" and problem.bands != 3:
            return f"VGG19 sees 3 bands and the target has {problem.bands}; set model.extractor_start=random."
        return refuse_bands(self.perceptual, problem)

    def build(self, problem: Problem) -> TTSR:
        return TTSR(self, problem)


class TTSR(Method):
    """See the module and `TTSRConfig`."""

    training_only: ClassVar[tuple[str, ...]] = ("discriminator.",)

    def __init__(self, options: TTSRConfig, problem: Problem) -> None:
        super().__init__()
        self.options, self.scale = options, int(problem.scale)
        self.network = TTSRNet(problem.bands, problem.lr_bands, options.network)
        self.extractor = TextureExtractor(problem.bands, options.network.texture_channels)
        if options.adversarial:
            self.discriminator = TTSRDiscriminator(options, problem.bands)
        self._fresh = self.extractor.get_parameter("conv1_1.weight").detach().clone()
        self.perceptual = PerceptualTerm(options.perceptual)

    @property
    def coupling(self) -> str:
        return coupling_by_features(self.options.perceptual) or super().coupling

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        own = {"restorer": self.network.parameters(), "extractor": self.extractor.parameters()}
        return own | ({"discriminator": self.discriminator.parameters()} if self.options.adversarial else {})

    def stages(self) -> Sequence[Stage]:
        groups = tuple(self.groups())
        first, whole = Stage("reconstruction", groups[:2], self.options.reconstruction_steps), Stage("train", groups)
        return [first, whole] if self.options.reconstruction_steps and self._has_more else [Stage("train", groups)]

    @property
    def _has_more(self) -> bool:
        """Whether there is more to minimise than the mean absolute error."""
        options = self.options
        return bool(options.perceptual.weight or options.transferal or options.adversarial)

    def prepare_training(self) -> None:
        """Give a fresh extractor the weights of VGG19; raises UserError where these are nowhere."""
        self.perceptual.load()
        first = self.extractor.get_parameter("conv1_1.weight")
        if self.options.extractor_start == "vgg19" and torch.equal(first.detach().cpu(), self._fresh.cpu()):
            folders = self.options.perceptual.weight_folders
            weights = read_vgg19(require_weight_file(VGG19_FILE, folders, "model.perceptual.weight_folders", "model.extractor_start"))
            for name, number in VGG_NUMBERS.items():
                for kind in ("weight", "bias"):
                    own, given = self.extractor.get_parameter(f"{name}.{kind}"), weights[f"features.{number}.{kind}"]
                    # A narrower extractor takes the first channels of each layer.
                    own.data.copy_(given[tuple(slice(length) for length in own.shape)])

    def found(self, batch: Batch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the image at a quarter of the target's size in [-1, 1], S (B, 1, H / 4, W / 4) and the textures T."""
        image, ref = quarter_of_target(batch, self.scale), batch.need("ref")
        quarter, ref_size = (image.shape[-2], image.shape[-1]), (ref.shape[-2] // 4 * 4, ref.shape[-1] // 4 * 4)
        ref = ref[..., : ref_size[0], : ref_size[1]]
        with torch.no_grad():
            enlarged = resize(batch.need("lr").float(), batch.size, "torch")
        blurred = blurred_as_lr(ref, self.scale, ref_size)
        similarity, best = search(self.extractor(enlarged)[-1], self.extractor(blurred)[-1])
        return 2 * image - 1, similarity.view(len(image), 1, *quarter), transferred(self.extractor(ref), best, quarter)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        options, hr = self.options, batch.need("hr")
        small, similarity, textures = self.found(batch)
        # The network is given copies, whose gradients then go to the extractor: each group's loss reaches its own weights alone.
        given = [tensor.detach().requires_grad_() for tensor in (similarity, *textures)]
        image = self.network(small, given[0], given[1:])
        terms: dict[str, Term] = {"l1": (1.0, masked_l1(image, 2 * hr - 1, batch.valid))}
        known = with_missing_of((image + 1) / 2, hr, batch.valid)
        judged: dict[str, Losses] = {}
        if stage.name == "train" and options.perceptual.weight:
            terms["perceptual"] = options.perceptual.weight, self.perceptual(known, hr)
        if stage.name == "train" and options.transferal:
            terms["transferal"] = options.transferal, self._transferal((image + 1) / 2, given[0], given[1:])
        if "discriminator" in stage.groups:
            fake, real = 2 * known - 1, 2 * hr - 1
            with frozen(self.discriminator):
                terms["adversarial"] = options.adversarial, -self.discriminator(fake).mean()
            judged["discriminator"] = judging_by_slopes(self.discriminator, fake.detach(), real, options.penalty, noise)
        restorer = Losses.weighted(terms)
        slopes = torch.autograd.grad(restorer.total, given, retain_graph=True)
        passed_on = torch.stack([(x * slope).sum() for x, slope in zip((similarity, *textures), slopes, strict=True)]).sum()
        extractor = restorer.total.detach() + passed_on - passed_on.detach()
        return {"restorer": restorer, "extractor": Losses(extractor, {}), **judged}

    def _transferal(self, image: Tensor, similarity: Tensor, textures: Sequence[Tensor]) -> Tensor:
        """Return the mean squared distance () of the textures of an image in [0, 1] from those transferred, by the extractor, frozen."""
        with frozen(self.extractor):
            own = self.extractor(image)
        distances = []
        for found, wanted in zip(own, textures, strict=True):
            sure: Tensor | float = 1.0
            if self.options.by_similarity:
                sure = torch.sigmoid(F.interpolate(similarity, size=found.shape[-2:], mode="bicubic"))
            distances.append(F.mse_loss(found * sure, wanted * sure))
        return torch.stack(distances).mean()

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        images, similarities, textures = zip(*(self.found(one) for one in pairs(batch)), strict=True)
        whole = [torch.cat(sizes) for sizes in zip(*textures, strict=True)]
        return (self.network(torch.cat(images), torch.cat(similarities), whole).float() + 1) / 2
