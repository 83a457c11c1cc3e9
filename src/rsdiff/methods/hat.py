"""HAT, HAT-L: a transformer of windows that overlap and of channel attention, trained for pixels. The network is spandrel's.

Source: XPixelGroup/HAT (CVPR 2023), whose released files `task=import model=hat_l` reads. `model=spandrel` runs such a file as it is and
does not train it. Stochastic depth draws from PyTorch's generator, which the trainer seeds at every step.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rsdiff.config import config
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.methods.base import Losses, MethodConfig, Problem, Stage
from rsdiff.methods.pixel_regression import PixelRegression
from rsdiff.methods.whole_scale import refuse_fraction
from rsdiff.networks.halo_tiles import HaloTilesConfig

if TYPE_CHECKING:  # the library takes seconds to import
    from spandrel.architectures.HAT import HAT


@config
class HATConfig(MethodConfig):
    """HAT trained with the mean absolute error. The defaults are HAT-L's."""

    width: int = 180
    """Channels of every layer of the trunk."""
    blocks: tuple[int, ...] = (6,) * 12
    """Hybrid attention blocks of each group; an overlapping cross-attention follows them."""
    heads: tuple[int, ...] = (6,) * 12
    """Attention heads of each group's blocks."""
    window: int = 16
    """Side of the windows in LR pixels; images are extended to multiples of it."""
    overlap: float = 0.5
    """By how much of their side the windows of keys and values are larger than those of queries; an even number of pixels."""
    compression: int = 3
    """The channel attention's convolutions have so many times fewer channels inside."""
    squeeze: int = 30
    """The channel attention's weights are made from so many times fewer channels."""
    conv_scale: float = 0.01
    """Weight of the convolutional branch beside the window attention; files of weights do not tell it."""
    mlp_ratio: float = 2.0
    """Width of the MLPs' hidden layer in units of `width`."""
    head_width: int = 64
    """Channels of the layers that enlarge."""
    drop_path: float = 0.1
    """Probability in training that an image skips the last block; it rises linearly from 0 at the first."""
    tiles: HaloTilesConfig = HaloTilesConfig()
    """How images are restored."""

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.heads) or not self.blocks or min(*self.blocks, *self.heads) < 1:
            raise ValueError(f"blocks={list(self.blocks)} and heads={list(self.heads)} were given; give one of either for each group.")
        if any(self.width % heads for heads in self.heads):
            raise ValueError(f"width={self.width} cannot be split into heads={list(self.heads)}; choose divisors of the width.")
        if self.window < 2 or self.overlap < 0 or int(self.overlap * self.window) % 2:
            raise ValueError(
                f"window={self.window} and overlap={self.overlap:g} were given; choose a window of at least 2 pixels and an overlap that "
                "makes it larger by an even number of pixels."
            )
        if not 1 <= self.compression <= self.width or not 1 <= self.squeeze <= self.width:
            raise ValueError(
                f"compression={self.compression} and squeeze={self.squeeze} of width={self.width} leave no channels; choose 1 to the width."
            )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path} was given; choose 0 to less than 1.")

    def refuse(self, problem: Problem) -> str | None:
        fraction = refuse_fraction("hat", problem)
        if fraction is not None:
            return fraction
        scale = int(problem.scale)
        if scale != 3 and scale & (scale - 1):
            return f"model hat enlarges by 3 and by powers of 2, and the scale is {scale}; set scale=2, 3, 4 or 8."
        if problem.bands != problem.lr_bands:
            return (
                f"model hat makes as many bands as it is given, and the images have {problem.lr_bands} to {problem.bands}; choose a "
                "degradation that keeps the bands, or another model."
            )
        return None

    def network(self, problem: Problem) -> HAT:
        """Return the network with fresh weights. It cannot be made on the meta device."""
        from spandrel.architectures.HAT import HAT

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch.meshgrid, to which spandrel does not tell the order of axes
            return HAT(
                in_chans=problem.bands,
                embed_dim=self.width,
                depths=self.blocks,
                num_heads=self.heads,
                window_size=self.window,
                compress_ratio=self.compression,
                squeeze_factor=self.squeeze,
                conv_scale=self.conv_scale,
                overlap_ratio=self.overlap,
                mlp_ratio=self.mlp_ratio,
                drop_path_rate=self.drop_path,
                upscale=int(problem.scale),
                num_feat=self.head_width,
            )

    def build(self, problem: Problem) -> HATMethod:
        """Raises ValueError in one sentence for a problem that `refuse` refuses."""
        refusal = self.refuse(problem)
        if refusal is not None:
            raise ValueError(refusal)
        return HATMethod(self, problem)


class HATMethod(PixelRegression):
    """See the module."""

    def __init__(self, options: HATConfig, problem: Problem) -> None:
        super().__init__(options.network(problem), int(problem.scale), options.window, options.tiles)

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        h, w = batch.lr_size
        if h % self.multiple or w % self.multiple:
            raise ValueError(
                f"training inputs of {h}x{w} pixels were given to a network that looks at windows of {self.multiple}; choose trainer.patch "
                f"as a multiple of {self.multiple * self.scale}."
            )
        return super().losses(batch, stage, noise)
