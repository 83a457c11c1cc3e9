"""EDSR, RDN and SwinIR as networks that restore: the encoders of continuous methods, and pixel shuffling to the target's size.

Source of the head: EDSR (Lim et al., 2017): a convolution and a shuffle per factor 2 or 3 of the scale, then a convolution. The encoders
are those of rsdiff.networks.edsr, rdn and swinir, so a published file of the whole networks has other names than these.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.problem import Problem
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.rdn import RDNConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.rrdb import nearest_stages
from rsdiff.networks.swinir import SwinIRConfig


class EncoderWithHead(nn.Module):
    """forward(lr (B, c, h, w)) -> (B, bands, h scale, w scale): `encoder` makes features of `width` channels, the head the image."""

    def __init__(self, encoder: nn.Module, width: int, bands: int, factors: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        layers: list[nn.Module] = []
        for factor in factors:
            layers += [nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
        self.enlarge = nn.Sequential(*layers)
        self.last_layer = nn.Conv2d(width, bands, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        image: Tensor = self.last_layer(self.enlarge(self.encoder(lr)))
        return image


class EncoderNet(RestorerConfig):
    """What the three have in common; a kind extends it and the encoder's own config."""

    def refuse_network(self, problem: Problem) -> str | None:
        fraction = problem.refuse_fraction(self.kind)
        if fraction is not None:
            return fraction
        try:
            factors_of(problem)
        except UserError:
            return f"model {self.kind} enlarges by factors of 2 and 3 and the scale is {problem.scale:g}; set scale=2, 3 or 4."
        return None


def factors_of(problem: Problem) -> tuple[int, ...]:
    """Return the factors of the head's stages, none at scale 1; raises UserError for scales with other factors than 2 and 3."""
    return () if problem.scale == 1 else nearest_stages(int(problem.scale))


@config
class EDSRNetConfig(EDSRConfig, EncoderNet):
    """EDSR-baseline."""

    kind: ClassVar[str] = "edsr"

    def build_network(self, problem: Problem) -> EncoderWithHead:
        return EncoderWithHead(self.build(problem.lr_bands), self.width, problem.bands, factors_of(problem))


@config
class RDNNetConfig(RDNConfig, EncoderNet):
    """Residual dense network."""

    kind: ClassVar[str] = "rdn"

    def build_network(self, problem: Problem) -> EncoderWithHead:
        return EncoderWithHead(self.build(problem.lr_bands), self.width, problem.bands, factors_of(problem))


@config
class SwinIRNetConfig(SwinIRConfig, EncoderNet):
    """SwinIR; images are extended to multiples of its windows by itself."""

    kind: ClassVar[str] = "swinir"

    def build_network(self, problem: Problem) -> EncoderWithHead:
        encoder = self.build(problem.lr_bands)
        return EncoderWithHead(encoder, encoder.out_channels, problem.bands, factors_of(problem))
