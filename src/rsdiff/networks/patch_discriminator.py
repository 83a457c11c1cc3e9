"""The PatchGAN discriminator of pix2pix as VQGAN and latent diffusion train against it."""

from __future__ import annotations

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """forward maps images (B, in_channels, H, W) in [-1, 1] to one answer per overlapping patch, (B, 1, y, x).

    layers  strided 4x4 convolutions; the width doubles with each, up to 8 times
    Weights start normal with deviation 0.02, norm scales at 1 +- 0.02. Source: CompVis/taming-transformers, NLayerDiscriminator.
    """

    def __init__(self, in_channels: int, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            parts += [nn.Conv2d(widths[level - 1], widths[level], 4, stride=stride, padding=1, bias=False)]
            parts += [nn.BatchNorm2d(widths[level]), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for part in self.main:
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.02)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        return self.main(images)
