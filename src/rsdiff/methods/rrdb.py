"""RRDBNet trained for pixels: RRDB_PSNR of ESRGAN, BSRNet, Real-ESRNet, and the first stage of the GANs in rsdiff.methods.esrgan.

The objective is the mean absolute error. Sources: XPixelGroup/BasicSR, cszn/KAIR, xinntao/Real-ESRGAN; they differ in the head at other
scales than 4, in the initial weights and in their training data.
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import nn

from rsdiff.config import Ours, config
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.pixel_regression import PixelRegression
from rsdiff.methods.whole_scale import refuse_fraction
from rsdiff.networks.halo_tiles import HaloTilesConfig
from rsdiff.networks.layers import zeroed
from rsdiff.networks.rrdb import RRDBNet, nearest_stages, rrdb_stages

InitialWeights = Literal["kaiming", "orthogonal"]
ORTHOGONAL_GAIN = 0.2


@config
class RRDBConfig:
    """The RRDB network that restores and conditions."""

    width: int = 64
    """Channels of the trunk, and of the feature that conditions."""
    blocks: int = 23
    """Residual-in-residual dense blocks."""
    growth: int = 32
    """Channels each dense convolution adds."""

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.growth) < 1:
            raise ValueError(f"width={self.width}, blocks={self.blocks}, growth={self.growth}; choose numbers of at least 1.")

    def build(self, problem: Problem) -> RRDBNet:
        """Return the network with fresh weights."""
        unshuffle, enlargements = rrdb_stages(int(problem.scale))
        return self.network(problem, unshuffle, enlargements)

    def network(self, problem: Problem, unshuffle: int, enlargements: tuple[int, ...]) -> RRDBNet:
        """Return the network with a head of its own."""
        return RRDBNet(problem.lr_bands, problem.bands, self.width, self.blocks, self.growth, unshuffle, enlargements)


@config
class GeneratorConfig(RRDBConfig):
    """RRDBNet as a model of its own."""

    head: Literal["always_x4", "stages"] = "always_x4"
    """How scales below 4 are reached: the input is taken apart into cells before an enlargement by 4 (BasicSR, Real-ESRGAN; scales 1, 2
    and 4), or the head has one stage per factor 2 or 3 of the scale (KAIR, BSRGAN; 2, 3, 4, 6, 8). They are the same at 4."""
    starts_bicubic: Annotated[bool, Ours("weights")] = False
    """Add what the network makes, which is 0 at first, to the enlarged LR (ours, for short trainings); no published file was trained so."""

    def refuse(self, model: str, problem: Problem) -> str | None:
        """Return a sentence where the head does not reach the scale, or the enlarged LR is no start."""
        if self.starts_bicubic and problem.bands != problem.lr_bands:
            return (
                f"model {model} is to begin at the enlarged LR, which has {problem.lr_bands} bands for {problem.bands}; "
                "set model.generator.starts_bicubic=false."
            )
        fraction = refuse_fraction(model, problem)
        if fraction is not None:
            return fraction
        try:
            self.stages(int(problem.scale))
        except ValueError as error:
            return f"{str(error).removesuffix('.')}, or change model.generator.head."
        return None

    def stages(self, scale: int) -> tuple[int, tuple[int, ...]]:
        """Return (unshuffle, enlargements) of the network; raises ValueError for a scale that the head does not reach."""
        return rrdb_stages(scale) if self.head == "always_x4" else (1, nearest_stages(scale))

    def network(self, problem: Problem, unshuffle: int, enlargements: tuple[int, ...]) -> RRDBNet:
        return RRDBNet(problem.lr_bands, problem.bands, self.width, self.blocks, self.growth, unshuffle, enlargements, self.starts_bicubic)

    def build(self, problem: Problem) -> RRDBNet:
        return self.network(problem, *self.stages(int(problem.scale)))


def initialise(network: nn.Module, rule: InitialWeights) -> None:
    """Replace the weights of every convolution as KAIR's training does: orthogonal rows of length 0.2, biases 0; 'kaiming' leaves them.

    Source: KAIR's define_weights with init_type orthogonal and init_gain 0.2.
    """
    if rule == "kaiming":
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, gain=ORTHOGONAL_GAIN)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@config
class RRDBMethodConfig(MethodConfig):
    """RRDBNet trained with the mean absolute error. The defaults are those of ESRGAN's first stage."""

    generator: GeneratorConfig = GeneratorConfig()
    """The network."""
    initial: InitialWeights = "kaiming"
    """Initial weights: those of ESRGAN, or orthogonal ones of gain 0.2 in every convolution (KAIR)."""
    tiles: HaloTilesConfig = HaloTilesConfig()
    """How images are restored."""

    def refuse(self, problem: Problem) -> str | None:
        return self.generator.refuse("rrdb", problem)

    def build(self, problem: Problem) -> RRDBMethod:
        return RRDBMethod(self.generator, self.initial, self.tiles, problem)


class RRDBMethod(PixelRegression):
    """See the module. The networks of the GANs restore by it, too."""

    network: RRDBNet

    def __init__(self, generator: GeneratorConfig, initial: InitialWeights, tiles: HaloTilesConfig, problem: Problem) -> None:
        network = generator.build(problem)
        initialise(network, initial)
        if generator.starts_bicubic:
            zeroed(network.last_layer)
        super().__init__(network, int(problem.scale), network.unshuffle, tiles)
