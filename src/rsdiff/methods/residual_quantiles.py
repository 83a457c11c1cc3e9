"""Quantiles of what a trained regression leaves over, pixel by pixel: a spread for methods that draw nothing, without drawing.

The regression, any method that restores without drawing, stays as it is, so its image and every score of it are unchanged; a second network
sees what all of them have in common, the LR and that image (and the scale, where one set of weights serves all), and is trained by the
pinball loss, whose minimum are the quantiles of HR minus the image given the LR. Samples are quantiles at the levels (i + 1/2) / N.
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
from dataclasses import field
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config, config_from_mapping
from rsdiff.config.reading import ReadWith, Such
from rsdiff.data.sample import Batch
from rsdiff.diffusion.bases import BaseConfig, NoBaseConfig
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.losses.images import difference, masked_mean
from rsdiff.methods.base import Losses, Method, MethodConfig, Predecessor, Problem, Stage, coupling_of
from rsdiff.methods.restoring import HaloTilesConfig
from rsdiff.networks.encoder_heads import EDSRNetConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.rrdb import RRDBNetConfig

if TYPE_CHECKING:
    from rsdiff.diffusion.noise import NoiseSource

INITIAL_SPREAD = 0.03
"""Standard deviation, in units of [0, 1], of the normal distribution that a fresh network answers."""
SOFTPLUS_OF_ONE = math.log(math.e - 1)
"""softplus of it is 1."""
EMPTY = Such("{}", lambda value: not value)
FOLD_OF_ANY_SCALE = 4
"""Target pixels per pixel of the head's grid, along each side, for regressions that serve every scale; for others it is the scale."""
TAUGHT_WITH = frozenset({"hr_views", "kernel", "noise_level", "lr_clean"})
"""Batch fields that regressions need for their own training alone."""


@config
class ResidualQuantilesConfig(MethodConfig):
    """Quantiles of the errors of a trained regression: an `rrdb` of these options, or whatever method `checkpoint` holds."""

    samples: ClassVar[bool] = False
    taught_on_checkpoint: ClassVar[bool] = True
    read_with: ClassVar[ReadWith] = dict.fromkeys(("network", "base", "tiles"), ("regression", (EMPTY,)))

    regression: Mapping[str, Any] = field(default_factory=dict)
    """The regression's own settings with its kind, which checkpoint=RUN_FOLDER brings; empty: model=rrdb of the three options below."""
    network: RestorerConfig = RRDBNetConfig()
    """The network of the regression, which is trained before (model=rrdb) and stays as it is."""
    base: BaseConfig = NoBaseConfig()
    """What that network's answer is added to."""
    tiles: HaloTilesConfig = HaloTilesConfig()
    """Whether an image is restored whole or in tiles."""
    head: RestorerConfig = EDSRNetConfig(blocks=8)
    """The network that is trained: it sees the LR and the regression's image, folded to the head's grid, and answers quantiles."""
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    """Levels of the quantiles that are learned, ascending, 0.5 among them."""

    def __post_init__(self) -> None:
        ascends = all(low < high for low, high in pairwise((0.0, *self.quantiles, 1.0)))
        if not ascends or 0.5 not in self.quantiles or len(self.quantiles) < 2:
            raise UserError(
                f"model.quantiles={list(self.quantiles)} was given; give two or more ascending levels between 0 and 1, 0.5 among them."
            )

    @property
    def taught(self) -> MethodConfig:
        """The regression."""
        from rsdiff.methods import METHODS

        if not self.regression:
            return METHODS["rrdb"](network=self.network, base=self.base, tiles=self.tiles)
        options = dict(self.regression)
        found: MethodConfig = config_from_mapping(METHODS[str(options.pop("kind"))], options, "model.regression")
        return found

    @property
    def predecessor(self) -> Predecessor | None:
        if not self.regression:
            return Predecessor("rrdb", {"network": self.network, "base": self.base})
        options = {name: value for name, value in self.regression.items() if name != "kind"}
        return None if self.taught.is_ready else Predecessor(str(self.regression["kind"]), options)

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr"}) | (self.taught.requires - TAUGHT_WITH)

    @property
    def any_scale(self) -> bool:
        return self.taught.any_scale

    @property
    def files(self) -> Sequence[Path]:
        return self.taught.files

    def problem_of_head(self, problem: Problem) -> Problem:
        """Return what the head makes of what: of the LR's bands, the image's, folded, and the scale, every quantile of every band."""
        fold = FOLD_OF_ANY_SCALE if self.any_scale else int(problem.scale)
        seen = problem.lr_bands + problem.bands * fold**2 + self.any_scale
        return Problem(fold, problem.bands * len(self.quantiles), seen)

    def refuse(self, problem: Problem) -> str | None:
        taught = self.taught
        if taught.samples or isinstance(taught, ResidualQuantilesConfig):
            kind = self.regression["kind"]
            return f"it learns the errors of regressions, and '{kind}' has a spread of its own; give a regression's checkpoint."
        return taught.refuse(problem) or self.head.refuse_network(self.problem_of_head(problem))

    def build(self, problem: Problem) -> ResidualQuantiles:
        return ResidualQuantiles(self, problem)


class ResidualQuantiles(Method):
    """See the module and `ResidualQuantilesConfig`.

    regression  the method whose errors are learned; it stays as it is
    fold        target pixels per pixel of the head's grid along each side
    level       of the quantile that `restore` returns; None for the regression's image
    """

    predicts_quantiles = True

    def __init__(self, options: ResidualQuantilesConfig, problem: Problem) -> None:
        super().__init__()
        taught, of_head = options.taught, options.problem_of_head(problem)
        self.regression = without_what_only_training_uses(taught.build(problem)).requires_grad_(False)
        self.head = options.head.build_network(of_head)
        options.head.answer_zero(self.head)
        self.fold, self.multiple, self.sees_scale = int(of_head.scale), options.head.size_multiple(of_head), taught.any_scale
        self.levels = options.quantiles
        self.scores = tuple(NormalDist().inv_cdf(level) for level in self.levels)
        self.gaps = tuple(high - low for low, high in pairwise(self.scores))
        self.level: float | None = None

    @property
    def architecture(self) -> str:
        return f"{self.regression.architecture}, {type(self.head).__name__}"

    @property
    def coupling(self) -> str:
        """What the head's layers couple; those of the regression are in evaluation mode."""
        return next((words for module in self.head.modules() if (words := coupling_of(module))), "")

    def train(self, mode: bool = True) -> ResidualQuantiles:
        """The regression stays in evaluation mode."""
        super().train(mode)
        self.regression.eval()
        return self

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"restorer": self.head.parameters()}

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take what the regression restores with."""
        own = self.regression.state_dict()
        self.regression.load_state_dict({**own, **{name: value for name, value in weights.items() if name in own}})

    def on_grid(self, lr: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Return lr (B, c, h, w) at the pixels of the head's grid (B, c, *grid), of a target of `size`: itself where the two are one."""
        if grid == lr.shape[-2:] and size == tuple(side * self.fold for side in grid):
            return lr
        places = [
            (2 * torch.arange(count, device=lr.device, dtype=lr.dtype) + 1) * (self.fold / side) - 1
            for count, side in zip(grid, size, strict=True)
        ]
        centres = torch.stack(torch.meshgrid(*places, indexing="ij")[::-1], dim=-1)
        return F.grid_sample(lr, centres.expand(len(lr), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False)

    def residuals(self, lr: Tensor, estimate: Tensor) -> Tensor:
        """Return the quantiles (K, B, C, H, W) of HR minus `estimate` (B, C, H, W), ascending in K; lr (B, c, h, w)."""
        H, W = int(estimate.shape[-2]), int(estimate.shape[-1])
        step = self.fold * self.multiple
        folded = F.pixel_unshuffle(F.pad(estimate, (0, -W % step, 0, -H % step), mode="replicate"), self.fold)
        seen = [self.on_grid(lr, (int(folded.shape[-2]), int(folded.shape[-1])), (H, W)), folded.to(lr.dtype)]
        if self.sees_scale:
            seen.append(torch.full_like(seen[0][:, :1], lr.shape[-1] / W))
        made = self.head(torch.cat(seen, dim=1)).float()[..., :H, :W]
        answers = made.unflatten(1, (-1, len(self.levels))).movedim(2, 0)
        middle, found = self.levels.index(0.5), list(answers)
        for above in range(middle + 1, len(found)):
            found[above] = found[above - 1] + self.gaps[above - 1] * F.softplus(answers[above] + SOFTPLUS_OF_ONE)
        for below in reversed(range(middle)):
            found[below] = found[below + 1] - self.gaps[below] * F.softplus(answers[below] + SOFTPLUS_OF_ONE)
        return INITIAL_SPREAD * torch.stack(found)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        (h, w), multiple = batch.lr_size, self.pixel_multiple()
        if batch.sizes is not None:
            raise UserError("model residual_quantiles is trained on images of one size; set trainer.scale_per=batch.")
        if h % multiple or w % multiple:
            raise UserError(
                f"training inputs of {h}x{w} pixels were given to a network that needs multiples of {multiple}; choose trainer.patch as a "
                f"multiple of {multiple} times the scale."
            )
        estimate = self.regression.restore(batch, SamplerConfig(), noise).float()
        found = self.residuals(batch.need("lr"), estimate)
        total = pinball(found, batch.need("hr") - estimate, self.levels, batch.valid)
        return {"restorer": Losses(total, {"pinball": total.detach()})}

    def at_level(self, level: float) -> ResidualQuantiles:
        view = copy.copy(self)  # shares every weight
        view.level = level
        return view

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        """Return the regression's image, or HR's quantile at the method's level: beside the learned ones linear in the normal quantile."""
        image = self.regression.restore(batch, sampler, noise)
        if self.level is None:
            return image
        score = NormalDist().inv_cdf(self.level)
        after = min(max(bisect_right(self.scores, score), 1), len(self.scores) - 1)
        share = (score - self.scores[after - 1]) / (self.scores[after] - self.scores[after - 1])
        found = self.residuals(batch.need("lr"), image.float())
        return image.float() + torch.lerp(found[after - 1], found[after], share)

    def estimates(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.regression.estimates(batch)

    def degradation_code(self, batch: Batch) -> Tensor | None:
        return self.regression.degradation_code(batch)

    def target_multiple(self) -> int:
        return self.regression.target_multiple()

    def pixel_multiple(self) -> int:
        return self.regression.pixel_multiple()


def without_what_only_training_uses(method: Method) -> Method:
    """Return the method without the parts that restoring does not use (a discriminator), which nothing trains here."""
    for prefix in method.training_only:
        for kept in (method._modules, method._parameters, method._buffers):
            for name in [name for name in kept if f"{name}.".startswith(prefix)]:
                kept.pop(name)
    return method


def pinball(quantiles: Tensor, target: Tensor, levels: Sequence[float], valid: Tensor | None) -> Tensor:
    """Return the mean pinball loss () of quantiles (K, B, C, H, W) of target (B, C, H, W), over what counts.

    Source: Koenker and Bassett 1978, eq. 3.1: level times the error where the target is above, 1 - level times where it is below.
    """
    total = torch.zeros((), device=target.device)
    for level, quantile in zip(levels, quantiles, strict=True):
        error = difference(target, quantile, valid)
        total = total + masked_mean(torch.maximum(level * error, (level - 1) * error), valid)
    return total / len(levels)
