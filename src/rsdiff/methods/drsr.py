"""DRSR: a degradation code learnt by contrast of two views modulates a residual network (Xiao et al., Information Fusion 96, 2023).

Networks and losses work in 0..255, as published; images enter and leave in [0, 1]. The encoder is trained alone first, on HR views and then
on LR views. Unlike the published code, an evaluation runs the encoder once (it runs it twice and discards one result), and the best weights
are kept as such (its `best` file holds the last ones).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.sample import Batch
from rsdiff.losses.images import masked_l1
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_scale
from rsdiff.networks.degradation_aware import DegradationEncoder, nt_xent
from rsdiff.networks.drsr import DRSRNetwork
from rsdiff.networks.modulated import PEAK, ModulatedConfig, ModulatedNetwork

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


Network = TypeVar("Network", bound=ModulatedNetwork)


@config
class DRSRConfig(MethodConfig):
    """DRSR. The defaults are the published network; the lengths of its stages are in the experiments."""

    samples: ClassVar[bool] = False

    restorer: ModulatedConfig = ModulatedConfig()
    """The restoration network."""
    encoder_width: int = 64
    """Channels of the encoder's first convolutions; the degradation code has four times as many."""
    temperature: float = 0.1
    """Divisor of the cosine similarities in the contrastive loss."""
    hr_contrast_steps: int = 0
    """Steps that first train the encoder alone by contrasting HR views (50 epochs published)."""
    lr_contrast_steps: int = 0
    """Steps that then train it alone by contrasting LR views (50 epochs published)."""

    def __post_init__(self) -> None:
        if self.encoder_width < 1 or self.temperature <= 0 or self.hr_contrast_steps < 0 or self.lr_contrast_steps < 0:
            raise UserError(
                f"encoder_width={self.encoder_width}, temperature={self.temperature}, hr_contrast_steps={self.hr_contrast_steps}, "
                f"lr_contrast_steps={self.lr_contrast_steps}: choose a width of at least 1, a positive temperature and no negative steps."
            )

    @property
    def views(self) -> int:
        return 2

    def refuse(self, problem: Problem) -> str | None:
        if problem.bands != problem.lr_bands and self.hr_contrast_steps:
            return (
                f"model drsr contrasts HR views with an encoder of LR bands, and there are {problem.bands} and {problem.lr_bands}; "
                "set model.hr_contrast_steps=0."
            )
        return problem.refuse_fraction("drsr")

    def network(self, problem: Problem) -> DRSRNetwork:
        """Return the restoration network with fresh weights."""
        return DRSRNetwork(self.restorer, problem, 4 * self.encoder_width)

    def encoder(self, problem: Problem) -> DegradationEncoder:
        """Return the degradation encoder with fresh weights."""
        return DegradationEncoder(problem.lr_bands, self.encoder_width)

    def build(self, problem: Problem) -> DRSR:
        return DRSR(self, problem)


class DRSR(Method):
    """See the module and `DRSRConfig`."""

    couples_batch = True

    def __init__(self, options: DRSRConfig, problem: Problem) -> None:
        super().__init__()
        self.options = options
        self.scale = int(problem.scale)
        self.network = options.network(problem)
        self.encoder = options.encoder(problem)

    def stages(self) -> Sequence[Stage]:
        lengths = {"hr_contrast": self.options.hr_contrast_steps, "lr_contrast": self.options.lr_contrast_steps}
        groups = tuple(self.groups())
        return [*(Stage(name, groups, steps) for name, steps in lengths.items() if steps), Stage("joint", groups)]

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_scale(batch, self.scale)
        on_hr = stage.name == "hr_contrast"
        first, views = (PEAK * batch.need(name) for name in (("hr", "hr_views") if on_hr else ("lr", "lr_views")))
        # One pass per view: each has batch statistics of its own, and the running ones move twice per step.
        code, projection = self.encoder(first)
        terms = {"contrast": nt_xent(projection, self.encoder(views[:, 0])[1], self.options.temperature)}
        if stage.name == "joint":
            terms["image"] = masked_l1(self.network(first, code), PEAK * batch.need("hr"), batch.valid)
        return {"restorer": Losses.summed(terms)}

    @property
    def coupling(self) -> str:
        return "its contrastive loss compares the images of a batch with each other"

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        lr = PEAK * batch.need("lr")
        image: Tensor = self.network(lr, self.encoder(lr)[0] if batch.code is None else batch.code)
        return image / PEAK

    @torch.no_grad()
    def degradation_code(self, batch: Batch) -> Tensor | None:
        code: Tensor = self.encoder(PEAK * batch.need("lr"))[0]
        return code
