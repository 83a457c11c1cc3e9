"""DASR: momentum contrast of two views gives a degradation code that predicts filters (Wang et al., CVPR 2021). DRSR's base.

Networks and losses work in 0..255, as published; images enter and leave in [0, 1]. Unlike the published code, whose released files lack
them, checkpoints keep key encoder and queue, so that a resumed run goes on with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.data.sample import Batch
from rsdiff.losses.images import masked_l1
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage, require_scale
from rsdiff.networks.dasr import DASRNetwork
from rsdiff.networks.degradation_aware import ContrastConfig, contrastive_loss
from rsdiff.networks.modulated import PEAK, ModulatedConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig


@config
class DASRConfig(MethodConfig):
    """DASR. The defaults are the published network; the lengths of its stages are in the experiments."""

    samples: ClassVar[bool] = False

    restorer: ModulatedConfig = ModulatedConfig()
    """The restoration network."""
    contrast: ContrastConfig = ContrastConfig(weight=1.0)
    """The degradation encoder and its momentum contrast."""
    contrast_steps: int = 0
    """Steps that train the encoder alone first (100 epochs published)."""

    def __post_init__(self) -> None:
        if self.contrast_steps < 0:
            raise UserError(f"contrast_steps is {self.contrast_steps}; give 0 or more.")

    @property
    def views(self) -> int:
        return 2

    def refuse(self, problem: Problem) -> str | None:
        return problem.refuse_fraction("dasr")

    def network(self, problem: Problem) -> DASRNetwork:
        """Return the restoration network with fresh weights."""
        return DASRNetwork(self.restorer, problem, self.contrast.code_channels)

    def build(self, problem: Problem) -> DASR:
        return DASR(self, problem)


class DASR(Method):
    """See the module and `DASRConfig`."""

    couples_batch = True
    training_only: ClassVar[tuple[str, ...]] = ("contrast.key_encoder.",)

    def __init__(self, options: DASRConfig, problem: Problem) -> None:
        super().__init__()
        self.scale = int(problem.scale)
        self.contrast_steps = options.contrast_steps
        self.contrast_weight = options.contrast.weight
        self.network = options.network(problem)
        self.contrast = options.contrast.build(problem.lr_bands)

    def stages(self) -> Sequence[Stage]:
        joint = Stage("joint", tuple(self.groups()))
        return [Stage("contrast", joint.groups, self.contrast_steps), joint] if self.contrast_steps else [joint]

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_scale(batch, self.scale)
        lr = PEAK * batch.need("lr")
        code, logits = self.contrast.contrast(lr, PEAK * batch.need("lr_views")[:, 0])
        terms = {"contrast": self.contrast_weight * contrastive_loss(logits)}
        if stage.name == "joint":
            terms["image"] = masked_l1(self.network(lr, code), PEAK * batch.need("hr"), batch.valid)
        return {"restorer": Losses.summed(terms)}

    def after_step(self, stage: Stage, step: int) -> None:
        self.contrast.after_step()

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        require_scale(batch, self.scale)
        lr = PEAK * batch.need("lr")
        image: Tensor = self.network(lr, self.contrast.code(lr) if batch.code is None else batch.code)
        return image / PEAK

    @torch.no_grad()
    def degradation_code(self, batch: Batch) -> Tensor | None:
        return self.contrast.code(PEAK * batch.need("lr"))
