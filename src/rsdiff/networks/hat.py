"""HAT, HAT-L: a transformer of windows that overlap and of channel attention. The network is spandrel's; this is its config.

Source: XPixelGroup/HAT (CVPR 2023). Stochastic depth draws from PyTorch's generator, which the trainer seeds at every step.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.restorers import RestorerConfig

if TYPE_CHECKING:  # the library takes seconds to import
    from spandrel.architectures.HAT import HAT


@config
class HATNetConfig(RestorerConfig):
    """HAT. The defaults are HAT-L's."""

    kind: ClassVar[str] = "hat"

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
    """Weight of the convolutional branch beside the window attention; weights files do not contain it."""
    mlp_ratio: float = 2.0
    """Width of the MLPs' hidden layer in units of `width`."""
    head_width: int = 64
    """Channels of the layers that enlarge."""
    drop_path: float = 0.1
    """Probability in training that an image skips the last block; it rises linearly from 0 at the first."""

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.heads) or not self.blocks or min(*self.blocks, *self.heads) < 1:
            raise UserError(f"blocks={list(self.blocks)} and heads={list(self.heads)} were given; give one of either for each group.")
        if any(self.width % heads for heads in self.heads):
            raise UserError(f"width={self.width} cannot be split into heads={list(self.heads)}; choose divisors of the width.")
        if self.window < 2 or self.overlap < 0 or int(self.overlap * self.window) % 2:
            raise UserError(
                f"window={self.window} and overlap={self.overlap:g} were given; choose a window of at least 2 pixels and an overlap that "
                "makes it larger by an even number of pixels."
            )
        if not 1 <= self.compression <= self.width or not 1 <= self.squeeze <= self.width:
            raise UserError(
                f"compression={self.compression} and squeeze={self.squeeze} of width={self.width} leave no channels; choose 1 to the width."
            )
        if not 0 <= self.drop_path < 1:
            raise UserError(f"drop_path={self.drop_path} was given; choose 0 to less than 1.")

    def refuse_network(self, problem: Problem) -> str | None:
        fraction = problem.refuse_fraction("hat")
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

    def size_multiple(self, problem: Problem) -> int:
        return self.window

    def build_network(self, problem: Problem) -> HAT:
        """It cannot be made on the meta device."""
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

    def answer_zero(self, network: nn.Module) -> None:
        super().answer_zero(network)
        mean, factor, bias = network.mean, network.img_range, self.last_layer(network).bias
        assert isinstance(mean, Tensor)
        assert isinstance(factor, float)
        assert isinstance(bias, Tensor)
        with torch.no_grad():  # HAT ends by adding the mean colour of DIV2K
            bias.copy_(-factor * mean.flatten().expand_as(bias))

    def last_layer(self, network: nn.Module) -> nn.Module:
        layer = network.conv_last
        assert isinstance(layer, nn.Module)
        return layer
