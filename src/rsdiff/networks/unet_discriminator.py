"""The U-Net discriminator of Real-ESRGAN and BSRGAN: one answer per pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.networks.spectral_norm import SpectralConv2d

SLOPE = 0.2
MULTIPLE = 8


class UNetDiscriminator(nn.Module):
    """forward maps images (B, in_channels, H, W) in [0, 1], sides multiples of 8, to logits (B, 1, H, W).

    width  channels of the first convolution (64 published: 4 376 897 parameters)
    skips  add the features of the way down to those of the way up
    Source: UNetDiscriminatorSN of BasicSR, Discriminator_UNet of KAIR; all but the first and last convolution have spectral norm, no bias.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, skips: bool = True) -> None:
        super().__init__()
        self.skips = skips
        self.conv0 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv1, self.conv2, self.conv3 = (
            SpectralConv2d(width * 2**level, width * 2 ** (level + 1), 4, stride=2, padding=1, bias=False) for level in range(3)
        )
        self.conv4, self.conv5, self.conv6 = (
            SpectralConv2d(width * 2 ** (level + 1), width * 2**level, 3, padding=1, bias=False) for level in reversed(range(3))
        )
        self.conv7, self.conv8 = (SpectralConv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.conv9 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Raises UserError for sides that are no multiples of 8."""
        if images.shape[-2] % MULTIPLE or images.shape[-1] % MULTIPLE:
            raise UserError(
                f"the U-Net discriminator needs sides that are multiples of {MULTIPLE} and was given "
                f"{images.shape[-2]}x{images.shape[-1]}; choose trainer.patch (or degradation.crop times the scale) accordingly."
            )
        ways = [F.leaky_relu(self.conv0(images), SLOPE, inplace=True)]
        for down in (self.conv1, self.conv2, self.conv3):
            ways.append(F.leaky_relu(down(ways[-1]), SLOPE, inplace=True))
        feature = ways.pop()
        for up in (self.conv4, self.conv5, self.conv6):
            enlarged = F.interpolate(feature, scale_factor=2, mode="bilinear", align_corners=False)
            feature = F.leaky_relu(up(enlarged), SLOPE, inplace=True)
            feature = feature + ways.pop() if self.skips else feature
        for conv in (self.conv7, self.conv8):
            feature = F.leaky_relu(conv(feature), SLOPE, inplace=True)
        return self.conv9(feature)
