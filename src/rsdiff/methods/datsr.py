"""DATSR: super-resolution with a reference image, whose textures deformed convolutions aggregate where they match.

With or without an adversary. Inputs: the LR image and an HR image (`ref`), of the same place or not. Source: Cao et al., ECCV 2022, and
caojiezhang/DATSR; see rsdiff.networks.datsr for the network.

The textures come from VGG19, and matches from two copies of VGG16's start that C2-Matching taught to see LR and reference alike
(feature_extraction.pth); none of the three learns on.

Unlike the published code:
- The LR is enlarged for the search by Pillow's filter on real numbers; theirs is rounded to 8 bits.
- It is built for x4; at x8 and x16 the LR is first enlarged to a quarter of the target's size (ours).
- The reference is cut, or extended by zeros, to the target's size; there the smaller of the two is extended.
- The discriminator judges the images made before its step, and the network is judged by it before that step; there after it.
- Other bands than three are allowed, with extractors from fresh weights (`extractors=random`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.data.sample import Batch
from rsdiff.degradations.resizing import resize
from rsdiff.losses.images import masked_l1, with_missing_of
from rsdiff.methods.adversaries import judging_by_slopes
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, Term, frozen, require_multiple
from rsdiff.methods.perceptual import VGG19_FILE, PerceptualLossConfig, PerceptualTerm, coupling_by_features, read_vgg19, refuse_bands
from rsdiff.methods.referenced import pairs, quarter_of_target, refuse_reference
from rsdiff.metrics.weight_files import require_weight_file
from rsdiff.networks.datsr import DATSRDiscriminator, DATSRNet, DATSRNetConfig, Flow, search
from rsdiff.networks.ttsr import CONVOLUTIONS, VGG_NUMBERS, TextureExtractor

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig

MATCHING_FILE = "feature_extraction.pth"
"""The extractors of C2-Matching, which DATSR was trained with."""
COPIES = {"matching_lr": "feature_extraction_image1.model.", "matching_ref": "feature_extraction_image2.model."}
PERCEPTUAL = PerceptualLossConfig(weight=1e-4, layers=("relu5_1",), layer_weights=(1.0,), distance="norm")


@config
class DATSRConfig(MethodConfig):
    """DATSR. The defaults are the published ones; perceptual.weight=0 and adversarial=0 give the one for PSNR (restoration_mse)."""

    samples: ClassVar[bool] = False
    read_with: ClassVar[ReadWith] = {
        "weight_folders": ("extractors", ("published",)),
        "penalty": ("adversarial", (ABOVE_0,)),
        "discriminator_width": ("adversarial", (ABOVE_0,)),
    }
    located: ClassVar[frozenset[str]] = frozenset({"weight_folders"})

    network: DATSRNetConfig = DATSRNetConfig()
    """The network and the widths of its extractors."""
    extractors: Annotated[Literal["published", "random"], Ours("training")] = "published"
    """Weights of the extractors, which do not learn: VGG19's and C2-Matching's, or fresh ones (ours; for any bands)."""
    weight_folders: tuple[str, ...] = ("weights",)
    """Where feature_extraction.pth and vgg19-dcbb9e9d.pth are looked for, besides torchvision's cache; read in training and import only."""
    perceptual: PerceptualLossConfig = PERCEPTUAL
    """Distance of VGG19 features: its norm over the batch, not a mean."""
    adversarial: float = 1e-6
    """Factor of the adversarial loss (Wasserstein, with a penalty on gradients)."""
    penalty: float = 10.0
    """Factor of the penalty on the discriminator's gradients."""
    discriminator_width: int = 32
    """Channels of the discriminator's first convolution."""

    def __post_init__(self) -> None:
        if min(self.adversarial, self.penalty) < 0 or self.discriminator_width < 1:
            raise UserError("adversarial and penalty are 0 or more, and discriminator_width is at least 1; change the smaller one.")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr", "ref"})

    def refuse(self, problem: Problem) -> str | None:
        if (refusal := refuse_reference("datsr", problem)) is not None:
            return refusal
        if self.extractors == "published" and problem.bands != 3:
            return f"VGG19 sees 3 bands and the target has {problem.bands}; set model.extractors=random."
        return refuse_bands(self.perceptual, problem)

    def build(self, problem: Problem) -> DATSR:
        return DATSR(self, problem)


def published_extractors(options: DATSRConfig) -> dict[str, dict[str, Tensor]]:
    """Return the weights of the three extractors by our names; raises UserError where a file is nowhere."""
    given = options.weight_folders, "model.weight_folders", "model.extractors"
    path = require_weight_file(MATCHING_FILE, *given)
    content = torch.load(path, map_location="cpu", weights_only=True)
    vgg = read_vgg19(require_weight_file(VGG19_FILE, *given))
    sources = {name: {layer: f"{prefix}{layer}" for layer in CONVOLUTIONS} for name, prefix in COPIES.items()}
    sources["extractor"] = {layer: f"features.{number}" for layer, number in VGG_NUMBERS.items()}
    made: dict[str, dict[str, Tensor]] = {}
    for name, layers in sources.items():
        tensors = vgg if name == "extractor" else content
        try:
            made[name] = {f"{ours}.{kind}": tensors[f"{theirs}.{kind}"] for ours, theirs in layers.items() for kind in ("weight", "bias")}
        except (KeyError, TypeError):
            raise UserError(
                f"{path} holds no '{COPIES['matching_lr']}conv1_1.weight' and the like; give the {MATCHING_FILE} of C2-Matching."
            ) from None
    return made


class DATSR(Method):
    """See the module and `DATSRConfig`."""

    training_only: ClassVar[tuple[str, ...]] = ("discriminator.",)

    def __init__(self, options: DATSRConfig, problem: Problem) -> None:
        super().__init__()
        self.options, self.scale = options, int(problem.scale)
        self.network = DATSRNet(problem.bands, options.network)
        for name in (*COPIES, "extractor"):
            self.add_module(name, TextureExtractor(problem.bands, options.network.texture_channels).requires_grad_(False))
        if options.adversarial:
            self.discriminator = DATSRDiscriminator(problem.bands, options.discriminator_width)
        self._fresh = self._first().detach().clone()
        self.perceptual = PerceptualTerm(options.perceptual)

    def _first(self) -> Tensor:
        return self.get_parameter("extractor.conv1_1.weight")

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        own: dict[str, Iterable[nn.Parameter]] = dict(self._shares())
        return own | ({"discriminator": self.discriminator.parameters()} if self.options.adversarial else {})

    def _shares(self) -> dict[str, list[nn.Parameter]]:
        """Return the network's parameters by how fast they learn: offsets of smaller textures more slowly."""
        slow = {f"offsets_{size}": self.network.slow_parameters(level) for size, level in (("medium", 1), ("small", 2))}
        apart = {id(parameter) for parameters in slow.values() for parameter in parameters}
        return {"restorer": [parameter for parameter in self.network.parameters() if id(parameter) not in apart], **slow}

    @property
    def coupling(self) -> str:
        return coupling_by_features(self.options.perceptual) or super().coupling

    def prepare_training(self) -> None:
        """Give fresh extractors the published weights; raises UserError where these are nowhere."""
        self.perceptual.load()
        if self.options.extractors == "published" and torch.equal(self._first().cpu(), self._fresh.cpu()):
            for name, weights in published_extractors(self.options).items():
                extractor = self.get_submodule(name)
                for key, value in weights.items():
                    own = extractor.get_parameter(key)
                    # A narrower extractor takes the first channels of each layer.
                    own.data.copy_(value[tuple(slice(length) for length in own.shape)])

    @torch.no_grad()
    def found(self, batch: Batch) -> tuple[Tensor, Flow, list[Tensor]]:
        """Return the image at a quarter of the target's size, where it matches, and the textures of the reference."""
        image, ref = quarter_of_target(batch, self.scale), batch.need("ref")
        H, W = batch.size
        ref = F.pad(ref[..., :H, :W], (0, max(0, W - ref.shape[-1]), 0, max(0, H - ref.shape[-2])))
        of_lr, of_ref, textures = (self.get_submodule(name) for name in (*COPIES, "extractor"))
        assert isinstance(of_lr, TextureExtractor)
        assert isinstance(of_ref, TextureExtractor)
        enlarged = resize(batch.need("lr").float(), batch.size, "torch")
        return image, search(of_lr.answers(enlarged)[2], of_ref.answers(ref)[2]), textures(ref)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_multiple(batch, 4 * self.options.network.window)
        options, hr = self.options, batch.need("hr")
        image = self.network(*self.found(batch))
        terms: dict[str, Term] = {"l1": (1.0, masked_l1(image, hr, batch.valid))}
        known = with_missing_of(image, hr, batch.valid)
        judged: dict[str, Losses] = {}
        if options.perceptual.weight:
            terms["perceptual"] = options.perceptual.weight, self.perceptual(known, hr)
        if "discriminator" in stage.groups:
            with frozen(self.discriminator):
                terms["adversarial"] = options.adversarial, -self.discriminator(known).mean()
            judged["discriminator"] = judging_by_slopes(self.discriminator, known.detach(), hr, options.penalty, noise)
        whole = Losses.weighted(terms)
        shares = shared_out(whole.total, self._shares())
        return {name: Losses(total, whole.terms if name == "restorer" else {}) for name, total in shares.items()} | judged

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        images, flows, textures = zip(*(self.found(one) for one in pairs(batch)), strict=True)
        flow = Flow(*(torch.cat(parts) for parts in zip(*flows, strict=True)))
        whole = [torch.cat(sizes) for sizes in zip(*textures, strict=True)]
        made: Tensor = self.network(torch.cat(images), flow, whole)
        return made.float()

    def pixel_multiple(self) -> int:
        return max(1, 4 * self.options.network.window // self.scale)


def shared_out(total: Tensor, groups: Mapping[str, Sequence[nn.Parameter]]) -> dict[str, Tensor]:
    """Return for every group a loss of the value of `total` () whose gradient is total's, for the parameters of the group alone."""
    parameters = [parameter for group in groups.values() for parameter in group]
    slopes = iter(torch.autograd.grad(total, parameters))
    made = {}
    for name, group in groups.items():
        passed_on = torch.stack([(parameter * next(slopes)).sum() for parameter in group]).sum()
        made[name] = total.detach() + passed_on - passed_on.detach()
    return made
