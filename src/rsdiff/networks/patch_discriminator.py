"""The PatchGAN discriminator of pix2pix: as VQGAN and latent diffusion train against it, and as BSRGAN does."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from rsdiff.networks.spectral_norm import SpectralConv2d

PatchNorm = Literal["batch", "instance", "none"]


class PatchDiscriminator(nn.Module):
    """forward maps images (B, in_channels, H, W) to one answer per overlapping patch, (B, 1, y, x).

    layers    strided 4x4 convolutions; the width doubles with each
    widest    largest width
    padding   zeros around every convolution's input: 1 (VQGAN, sides shrink by 1 without stride) or 2 (KAIR, they grow by 1)
    norm      after all convolutions but the first and the last; that of instances has no parameters
    spectral  spectral norm on all convolutions
    bias      convolutions before a norm have one, too
    Weights start normal with deviation 0.02, norm scales at 1 +- 0.02.
    Source: NLayerDiscriminator of CompVis/taming-transformers (the defaults), Discriminator_PatchGAN of KAIR.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        layers: int = 3,
        widest: int = 512,
        padding: int = 1,
        norm: PatchNorm = "batch",
        spectral: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        convolution = SpectralConv2d if spectral else nn.Conv2d
        widths = [min(width * 2**level, widest) for level in range(layers + 1)]
        parts: list[nn.Module] = [convolution(in_channels, width, 4, stride=2, padding=padding), nn.LeakyReLU(0.2, inplace=True)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            parts.append(convolution(widths[level - 1], widths[level], 4, stride=stride, padding=padding, bias=bias or norm == "none"))
            if norm != "none":
                parts.append(nn.BatchNorm2d(widths[level]) if norm == "batch" else nn.InstanceNorm2d(widths[level]))
            parts.append(nn.LeakyReLU(0.2, inplace=True))
        self.main = nn.Sequential(*parts, convolution(widths[-1], 1, 4, padding=padding))
        for part in self.main:
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.02)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        return self.main(images)
