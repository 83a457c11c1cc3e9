"""SADN, and its upsampler behind EDSR and RDN: regression of whole images at any scale, in [0, 1] throughout.

Source: hanlinwu/SADN. Unlike it, the biases of dynamic kernels start at 0, and the temperature falls with steps instead of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.losses.images import masked_l1
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage
from rsdiff.networks.continuous_upsampling import CSUM, CSUMConfig
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.layers import zeroed
from rsdiff.networks.rdn import RDNConfig
from rsdiff.networks.sadn import FeedbackBody

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig

HIGHEST_TEMPERATURE, TEMPERATURE_STEP = 34.0, 3.0
STAIRS = 11  # 34, 31, .. 4, then 1


@config
class SADNConfig(CSUMConfig, MethodConfig):
    """SADN. The defaults are those of sadn.yaml."""

    samples: ClassVar[bool] = False
    read_with: ClassVar[ReadWith] = {
        **dict.fromkeys(("width", "groups", "layers", "multiplier", "reduction", "kernels"), ("body", ("sadn",))),
        "anneal_steps": (("body", ("sadn",)), ("kernels", (ABOVE_0,))),
        "edsr": ("body", ("edsr",)),
        "rdn": ("body", ("rdn",)),
    }

    body: Literal["sadn", "edsr", "rdn"] = "sadn"
    """What makes the feature maps; the upsampler is the same."""
    width: int = 64
    """Channels of the feature maps of body=sadn."""
    groups: int = 4
    """Groups of body=sadn."""
    layers: int = 4
    """Blocks per group of body=sadn."""
    multiplier: int = 4
    """Channels inside a block of body=sadn, in units of `width`."""
    reduction: int = 4
    """Channels of a feature map per hidden channel of a block's gate; body=sadn."""
    kernels: int = 3
    """Kernels that a scale-aware convolution of body=sadn chooses from; 0 for ordinary convolutions."""
    edsr: EDSRConfig = EDSRConfig()
    """Options of body=edsr."""
    rdn: RDNConfig = RDNConfig()
    """Options of body=rdn."""
    normalise: bool = True
    """Weight normalisation in the upsampler (SADN, EDSR; not RDN)."""
    mean_shift: bool = True
    """A learned 1x1 convolution before and after all, which begins as a shift by 0.5 (SADN, RDN; not EDSR)."""
    base: Annotated[BaseConfig, Ours("weights")] = NoBaseConfig()
    """What the upsampler's answer, at first 0, is added to (ours, for short trainings): the enlarged LR; none as published."""
    anneal_steps: int = 10_065
    """Training steps in which the temperature of kernel choice falls from 34 to 1 in eleven stairs (published: epochs); 0: at once."""
    self_ensemble: bool = False
    """Restore the mean of eight flipped and transposed images."""

    def __post_init__(self) -> None:
        if min(self.width, self.groups, self.layers, self.multiplier, self.reduction, self.levels, self.fuse_width) < 1:
            raise UserError("sizes of SADN below 1 were given; choose at least 1.")
        if self.reduction > self.width or self.kernels < 0 or self.anneal_steps < 0:
            raise UserError(
                f"reduction={self.reduction}, kernels={self.kernels} and anneal_steps={self.anneal_steps} were given; choose at most "
                f"width={self.width}, and 0 or more."
            )

    @property
    def any_scale(self) -> bool:
        return True

    def refuse(self, problem: Problem) -> str | None:
        if problem.bands != problem.lr_bands:
            return (
                f"model sadn makes as many bands as it is given, and {problem.lr_bands} are to become {problem.bands}; choose model=liif."
            )
        if self.base.kind == "regression":
            return "model sadn enlarges to any size and a regression keeps the pixels; set model.base=enlarged or none."
        return self.base.refuse_base("sadn", problem)

    def build(self, problem: Problem) -> SADN:
        return SADN(self, problem.bands)


def mean_shift(bands: int, shift: float) -> nn.Conv2d:
    """Return a 1x1 convolution that begins by adding `shift`."""
    layer = nn.Conv2d(bands, bands, 1)
    nn.init.dirac_(layer.weight)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, shift)
    return layer


class SADN(Method):
    """See the module and `SADNConfig`."""

    temperature: Tensor

    def __init__(self, options: SADNConfig, bands: int) -> None:
        super().__init__()
        self.options = options
        if options.body == "sadn":
            self.body: nn.Module = FeedbackBody(
                bands, options.width, options.groups, options.layers, options.levels, options.multiplier, options.reduction, options.kernels
            )
        else:
            self.body = (options.edsr if options.body == "edsr" else options.rdn).build(bands)
        width = {"sadn": options.width, "edsr": options.edsr.width, "rdn": options.rdn.width}[options.body]
        self.upsampler = CSUM(options, width, bands)
        self.base = options.base.build_base(Problem(1, bands, bands))
        if self.base.adds:
            zeroed(self.upsampler.last_layer)
        self.shift_in = mean_shift(bands, -0.5) if options.mean_shift else nn.Identity()
        self.shift_out = mean_shift(bands, 0.5) if options.mean_shift else nn.Identity()
        self.register_buffer("temperature", torch.tensor(HIGHEST_TEMPERATURE if options.anneal_steps else 1.0))

    def predict(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the image (B, C, H, W) of `size` of lr (B, C, h, w) in [0, 1], not clamped; in training by softer kernel choice."""
        x = self.shift_in(lr)
        if isinstance(self.body, FeedbackBody):
            maps = self.body(x, lr.shape[-2] / size[0], self.temperature if self.training else 1.0)
        else:
            maps = self.body(x)
        return self.shift_out(self.base.onto(self.upsampler(maps, size), x))

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        if batch.sizes is not None:
            raise UserError("model sadn is trained on whole images and they have a scale each; set trainer.scale_per=batch.")
        loss = masked_l1(self.predict(batch.need("lr"), batch.size), batch.need("hr"), batch.valid)
        return {"restorer": Losses(loss, {"l1": loss.detach()})}

    def after_step(self, stage: Stage, step: int) -> None:
        self.temperature.fill_(temperature_after(step, self.options.anneal_steps))

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        lr, size = batch.need("lr"), batch.size
        return self.predict_ensemble(lr, size) if self.options.self_ensemble else self.predict(lr, size)

    def predict_ensemble(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the mean of `predict` over flips and transposition; a transposed image has the transposed target size."""
        made = []
        for axes in ((), (-1,), (-2,), (-2, -1)):
            flipped = lr.flip(axes)
            made.append(self.predict(flipped, size).flip(axes))
            made.append(self.predict(flipped.mT, (size[1], size[0])).mT.flip(axes))
        return torch.stack(made).mean(0)


def temperature_after(step: int, anneal_steps: int) -> float:
    """Return the temperature after so many steps of training."""
    stairs = STAIRS if not anneal_steps else min(step * STAIRS // anneal_steps, STAIRS)
    return max(HIGHEST_TEMPERATURE - TEMPERATURE_STEP * stairs, 1.0)
