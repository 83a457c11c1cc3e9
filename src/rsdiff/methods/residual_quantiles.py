"""Quantiles of what a trained regression leaves over, pixel by pixel: a spread for methods that draw nothing, without drawing.

The regression stays as it is, so its image and every score of it are unchanged; a second network sees the LR and that image and is trained
by the pinball loss, whose minimum are the quantiles of HR minus the image given the LR. Samples are quantiles at the levels (i + 1/2) / N.
Sources: Koenker and Bassett, "Regression Quantiles", 1978 (the loss); Angelopoulos et al., "Image-to-Image Regression with
Distribution-Free Uncertainty Quantification and Applications in Imaging", ICML 2022 (aangelopoulos/im2im-uq), which differs in this:
- they train one network for image, 5 % and 95 % quantile; here the image is that of a regression which is trained before and kept;
- five levels instead of two, ordered by construction, so that samples and CRPS follow; between and beyond the levels a quantile is linear
  in the quantile of a normal distribution: exact where errors are Gaussian.
They are quantiles of pixels and say nothing of how errors of neighbours go together: a mean over an area has another, smaller spread.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.losses.images import difference, masked_mean
from rsdiff.methods.base import Losses, MethodConfig, Predecessor, Problem, Stage
from rsdiff.methods.restoring import HaloTilesConfig, ImageMethod, ImageNetwork
from rsdiff.networks.encoder_heads import EDSRNetConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.rrdb import RRDBNetConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource
    from rsdiff.diffusion.sampler import SamplerConfig

INITIAL_SPREAD = 0.03
"""Standard deviation, in units of [0, 1], of the normal distribution that a fresh network answers."""
SOFTPLUS_OF_ONE = math.log(math.e - 1)
"""softplus of it is 1."""


@config
class ResidualQuantilesConfig(MethodConfig):
    """Quantiles of the errors of a trained regression. The regression's options are the defaults of `rrdb`."""

    samples: ClassVar[bool] = False

    network: RestorerConfig = RRDBNetConfig()
    """The network of the regression, which is trained before (model=rrdb) and stays as it is."""
    base: BaseConfig = NoBaseConfig()
    """What that network's answer is added to."""
    tiles: HaloTilesConfig = HaloTilesConfig()
    """Whether an image is restored whole or in tiles."""
    head: RestorerConfig = EDSRNetConfig(blocks=8)
    """The network that is trained: it sees the LR and the regression's image, folded to the LR's size, and answers quantiles."""
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    """Levels of the quantiles that are learned, ascending, 0.5 among them."""

    def __post_init__(self) -> None:
        ascends = all(low < high for low, high in pairwise((0.0, *self.quantiles, 1.0)))
        if not ascends or 0.5 not in self.quantiles or len(self.quantiles) < 2:
            raise UserError(
                f"model.quantiles={list(self.quantiles)} was given; give two or more ascending levels between 0 and 1, 0.5 among them."
            )

    @property
    def predecessor(self) -> Predecessor:
        return Predecessor("rrdb", {"network": self.network, "base": self.base})

    def problem_of_head(self, problem: Problem) -> Problem:
        """Return what the head makes of what: of the LR's bands and the image's, folded, every quantile of every band."""
        seen = problem.lr_bands + problem.bands * int(problem.scale) ** 2
        return Problem(problem.scale, problem.bands * len(self.quantiles), seen)

    def refuse(self, problem: Problem) -> str | None:
        return (
            self.network.refuse_network(problem)
            or self.base.refuse_base("residual_quantiles", problem)
            or self.head.refuse_network(self.problem_of_head(problem))
        )

    def build(self, problem: Problem) -> ResidualQuantiles:
        return ResidualQuantiles(self, problem)


class ResidualQuantiles(ImageMethod):
    """See the module and `ResidualQuantilesConfig`.

    level  of the quantile that `restore` returns; None for the regression's image
    """

    predicts_quantiles = True

    def __init__(self, options: ResidualQuantilesConfig, problem: Problem) -> None:
        super().__init__()
        self.images = ImageNetwork(self, options.network, options.base, options.tiles, problem)
        self.network.requires_grad_(False)
        of_head = options.problem_of_head(problem)
        self.head = options.head.build_network(of_head)
        options.head.answer_zero(self.head)
        self.images.multiple = math.lcm(self.images.multiple, options.head.size_multiple(of_head))
        self.levels = options.quantiles
        self.scores = tuple(NormalDist().inv_cdf(level) for level in self.levels)
        self.gaps = tuple(high - low for low, high in pairwise(self.scores))
        self.level: float | None = None

    def train(self, mode: bool = True) -> ResidualQuantiles:
        """The regression stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        self.base.eval()
        return self

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"restorer": self.head.parameters()}

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take network and base of a trained regression."""
        self.load_state_dict({**self.state_dict(), **weights})

    def after_step(self, stage: Stage, step: int) -> None:
        """The base learns nothing more."""

    def residuals(self, lr: Tensor, estimate: Tensor) -> Tensor:
        """Return the quantiles (K, B, C, H, W) of HR minus `estimate` (B, C, H, W), ascending in K; lr (B, c, h, w)."""
        folded = F.pixel_unshuffle(estimate, self.images.scale)
        made = self.head(torch.cat([lr, folded.to(lr.dtype)], dim=1)).float()
        answers = made.unflatten(1, (-1, len(self.levels))).movedim(2, 0)
        middle, found = self.levels.index(0.5), list(answers)
        for above in range(middle + 1, len(found)):
            found[above] = found[above - 1] + self.gaps[above - 1] * F.softplus(answers[above] + SOFTPLUS_OF_ONE)
        for below in reversed(range(middle)):
            found[below] = found[below + 1] - self.gaps[below] * F.softplus(answers[below] + SOFTPLUS_OF_ONE)
        return INITIAL_SPREAD * torch.stack(found)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        lr = self.images.training_input(batch)
        with torch.no_grad():
            estimate = self.images.estimate(lr).float()
        total = pinball(self.residuals(lr, estimate), batch.need("hr") - estimate, self.levels, batch.valid)
        return {"restorer": Losses(total, {"pinball": total.detach()})}

    def at_level(self, level: float) -> ResidualQuantiles:
        view = copy.copy(self)  # shares every weight
        view.level = level
        return view

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        if self.level is None:
            return super().restore(batch, sampler, noise)
        return self.images.restore(batch, self.quantile)

    def quantile(self, lr: Tensor) -> Tensor:
        """Return the quantile (B, C, H, W) of HR at the method's level; beside the learned ones linear in the normal quantile."""
        assert self.level is not None
        score = NormalDist().inv_cdf(self.level)
        after = min(max(bisect_right(self.scores, score), 1), len(self.scores) - 1)
        share = (score - self.scores[after - 1]) / (self.scores[after] - self.scores[after - 1])
        estimate = self.images.estimate(lr).float()
        found = self.residuals(lr, estimate)
        return estimate + torch.lerp(found[after - 1], found[after], share)


def pinball(quantiles: Tensor, target: Tensor, levels: Sequence[float], valid: Tensor | None) -> Tensor:
    """Return the mean pinball loss () of quantiles (K, B, C, H, W) of target (B, C, H, W), over what counts.

    Source: Koenker and Bassett 1978, eq. 3.1: level times the error where the target is above, 1 - level times where it is below.
    """
    total = torch.zeros((), device=target.device)
    for level, quantile in zip(levels, quantiles, strict=True):
        error = difference(target, quantile, valid)
        total = total + masked_mean(torch.maximum(level * error, (level - 1) * error), valid)
    return total / len(levels)
