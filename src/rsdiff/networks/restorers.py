"""Networks that make an image of an LR image, and what an objective must know of one. Any of them goes with any objective on images."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from rsdiff.config.kinds import Kinds
from rsdiff.config.tagged import Tagged
from rsdiff.data.problem import Problem
from rsdiff.networks import NETWORKS
from rsdiff.networks.layers import zeroed


class RestorerConfig(Tagged):
    """The family of networks (B, c, h, w) -> (B, C, h scale, w scale) on images in [0, 1]. A kind is a config class beside its network."""

    family: ClassVar[str] = "network"
    kinds: ClassVar[Kinds] = NETWORKS

    def refuse_network(self, problem: Problem) -> str | None:
        """Return None, or one sentence that says why the network cannot treat `problem` and what to change."""
        return None

    def size_multiple(self, problem: Problem) -> int:
        """Return what the sides of an LR image must be multiples of; in restoration, images are extended by reflection and cropped."""
        return 1

    def build_network(self, problem: Problem) -> nn.Module:
        """Return the network with fresh weights."""
        raise NotImplementedError

    def answer_zero(self, network: nn.Module) -> None:
        """Let a fresh `network` answer 0, so that it adds nothing to what it is added to."""
        zeroed(self.last_layer(network))

    def last_layer(self, network: nn.Module) -> nn.Module:
        """Return the layer of `network` that makes the image."""
        layer = getattr(network, "last_layer", None)
        assert isinstance(layer, nn.Module), f"{type(network).__name__} does not tell its last layer"
        return layer
