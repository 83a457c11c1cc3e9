"""MST++, MST-L, HSCNN+ and AWAN: networks that regress many bands on few at the same pixels, trained by the relative error.

Source: caiyuanhao1998/MST-plus-plus (NTIRE 2022 spectral recovery), whose recipe is in experiments/spectral. Any number of bands goes in
and out; at 31 bands the networks are the published ones. The cost of MST++ and MST-L as published, as wide as the cube has bands, grows
with the square of their number: `width` makes them narrower for cubes of hundreds of bands.

Unlike the published code:
- MST-L's mask is that of every image by itself (`mask_of_first`), so that results do not depend on the batch; alike at batch size 1.
- AWAN is evaluated on the whole image; the published script feeds it a window and cuts 10 pixels off.
- Training ends after the steps asked for; the published loop goes on to the end of a pass over its patches (395,576 of 300,000 steps),
  with the learning rate rising again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import Ours, config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.losses.spectral import relative_error
from rsdiff.methods.base import Losses, Method, MethodConfig, Problem, Stage
from rsdiff.methods.patch_sizes import require_multiple
from rsdiff.methods.spectral_linear import refuse_other_scales
from rsdiff.networks.awan import AWAN, SECOND_ORDER_REDUCTION, SQUEEZE
from rsdiff.networks.hscnn_plus import HSCNNPlus
from rsdiff.networks.layers import zeroed
from rsdiff.networks.mst import MSTL, MSTPlusPlus
from rsdiff.networks.running_regression import RunningRegression

SpectralNetwork = MSTPlusPlus | MSTL | HSCNNPlus | AWAN


@config
class SpectralRegressionConfig(MethodConfig):
    """What the networks have in common: how they are trained."""

    usual_scale: ClassVar[int] = 1
    model: ClassVar[str]
    """Name in messages."""

    relative_floor: Annotated[float, Ours("training")] = 0.0
    """Lowest divisor of the relative error; above 0 for data with dark pixels or zeros."""
    residual_ridge: Annotated[float | None, Ours("weights")] = None
    """Add what the network makes, at first 0, to a linear regression per pixel, fitted while training with this ridge (ours, for short
    trainings); None, as published: the network alone."""

    def __post_init__(self) -> None:
        if self.relative_floor < 0:
            raise ValueError(f"relative_floor={self.relative_floor} was given; choose 0 or more.")
        if self.residual_ridge is not None and self.residual_ridge < 0:
            raise ValueError(f"residual_ridge={self.residual_ridge} must be 0 or more, or null.")

    @property
    def size_multiple(self) -> int:
        """What the network needs an image's height and width to be multiples of."""
        return 1

    def network(self, bands: int, lr_bands: int) -> SpectralNetwork:
        """Return the network with fresh weights."""
        raise NotImplementedError

    def refuse(self, problem: Problem) -> str | None:
        return refuse_other_scales(self.model, problem)

    def build(self, problem: Problem) -> SpectralRegression:
        network, linear = self.network(problem.bands, problem.lr_bands), None
        if self.residual_ridge is not None:
            zeroed(network.leave)
            linear = RunningRegression(problem.lr_bands, problem.bands, self.residual_ridge)
        return SpectralRegression(network, self.objective, self.size_multiple, linear)

    def objective(self, estimate: Tensor, target: Tensor, valid: Tensor | None = None) -> Losses:
        """Return the relative error."""
        error = relative_error(estimate, target, self.relative_floor, valid)
        return Losses(error, {"relative_error": error.detach()})


@config
class HalvingConfig(SpectralRegressionConfig):
    """What MST++ and MST-L have in common: levels between which the image is halved."""

    width: int | None = None
    """Channels of the first level; null: as many as there are bands, as published."""
    blocks: tuple[int, ...]
    """Blocks of every level on the way down; the way up has as many."""

    def __post_init__(self) -> None:
        SpectralRegressionConfig.__post_init__(self)
        if self.width is not None and self.width < 1:
            raise ValueError(f"width={self.width} was given; choose at least 1 channel, or null for as many as there are bands.")
        if len(self.blocks) < 1 or min(self.blocks) < 0:
            raise ValueError(f"blocks={list(self.blocks)} make no network; give a number of blocks, 0 or more, for every level.")

    @property
    def size_multiple(self) -> int:
        # 8 as published, though these networks halve twice: attention sees the pixels that an image is extended by.
        return max(8, 2 ** (len(self.blocks) - 1))


@config
class MSTPlusPlusConfig(HalvingConfig):
    """MST++. The defaults are the published network."""

    model: ClassVar[str] = "mstpp"

    stages: int = 3
    """U-Nets in a row."""
    blocks: tuple[int, ...] = (1, 1, 1)
    """Blocks of every level of a U-Net on the way down; the way up has as many."""

    def network(self, bands: int, lr_bands: int) -> SpectralNetwork:
        return MSTPlusPlus(in_bands=lr_bands, bands=bands, width=self.width or bands, stages=self.stages, blocks=self.blocks)


@config
class MSTLConfig(HalvingConfig):
    """MST-L. The defaults are the published network."""

    model: ClassVar[str] = "mst_l"

    blocks: tuple[int, ...] = (4, 7, 5)
    """Blocks of every level on the way down; the way up has as many."""
    mask_of_first: Annotated[bool, Ours("sampling", published=(True,))] = False
    """The mask of a batch's first image serves all, as published."""

    def network(self, bands: int, lr_bands: int) -> SpectralNetwork:
        return MSTL(in_bands=lr_bands, bands=bands, width=self.width or bands, blocks=self.blocks, mask_of_first=self.mask_of_first)


@config
class HSCNNPlusConfig(SpectralRegressionConfig):
    """HSCNN+. The defaults are the published network."""

    model: ClassVar[str] = "hscnn_plus"

    blocks: int = 30
    """Dense blocks."""

    def network(self, bands: int, lr_bands: int) -> SpectralNetwork:
        return HSCNNPlus(in_bands=lr_bands, bands=bands, blocks=self.blocks)


@config
class AWANConfig(SpectralRegressionConfig):
    """AWAN. The defaults are the published network."""

    model: ClassVar[str] = "awan"

    width: int = 96
    """Channels of the features."""
    blocks: int = 8
    """Dual residual blocks."""

    def __post_init__(self) -> None:
        SpectralRegressionConfig.__post_init__(self)
        if self.width < SQUEEZE:
            raise ValueError(f"width={self.width} was given; the channel weights need at least {SQUEEZE} channels.")

    def refuse(self, problem: Problem) -> str | None:
        if problem.bands < SECOND_ORDER_REDUCTION:
            return f"model awan needs at least {SECOND_ORDER_REDUCTION} target bands and there are {problem.bands}; choose model=mstpp."
        return refuse_other_scales(self.model, problem)

    def network(self, bands: int, lr_bands: int) -> SpectralNetwork:
        return AWAN(in_bands=lr_bands, bands=bands, width=self.width, blocks=self.blocks)


class SpectralRegression(Method):
    """A network from few bands to many at the same pixels, and what it minimises.

    network    forward(lr (B, c, H, W)) -> (B, C, H, W)
    objective  (estimate, target, valid) -> losses
    multiple   H and W must be multiples of this
    linear     regression that the network's answer is added to, or None
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Callable[[Tensor, Tensor, Tensor | None], Losses],
        multiple: int = 1,
        linear: RunningRegression | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self.multiple = multiple
        self.linear = linear

    def predict(self, lr: Tensor) -> Tensor:
        """Return the bands (B, C, H, W) of lr (B, c, H, W)."""
        made: Tensor = self.network(lr)
        return made if self.linear is None else made + self.linear(lr)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        require_multiple(batch, self.multiple)
        lr, hr = batch.need("lr"), batch.need("hr")
        if self.linear is not None and self.training:
            self.linear.accumulate(lr, hr, batch.whole_pixels)
            self.linear.solve()
        return {"restorer": self.objective(self.predict(lr), hr, batch.valid)}

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        return self.predict(batch.need("lr"))

    def pixel_multiple(self) -> int:
        return self.multiple
