"""The VGG-style discriminator of SRGAN and ESRGAN: one answer per image of a fixed size."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError

SLOPE = 0.2
HIDDEN = 100

VGGVariant = Literal["basicsr", "esrgan", "kair"]


class VGGDiscriminator(nn.Module):
    """forward maps images (B, in_channels, size, size) in [0, 1] to logits (B, 1).

    width    channels of the first level; they double with each level, up to 8 times (64 published)
    size     side of the images; every level halves it, until at most 4 pixels are left
    variant  basicsr: convolutions before a batch norm have no bias; esrgan: all have one (ESRGAN's first code, SPSR);
             kair: all have one, nothing stands between the first two convolutions, batch norms have eps 1e-4 and momentum 0.9
    Each level is a 3x3 convolution and a 4x4 one of stride 2; all but the very first are followed by a batch norm.
    Source: VGGStyleDiscriminator of BasicSR, Discriminator_VGG_96/128/192 of KAIR.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, size: int = 128, variant: VGGVariant = "basicsr") -> None:
        super().__init__()
        if size < 8:
            raise UserError(f"the VGG discriminator was asked for images of {size} pixels; it needs at least 8.")
        self.size, self.variant = size, variant
        sides = [size]
        while sides[-1] > 4:
            sides.append(sides[-1] // 2)
        widths = [width * min(2**level, 8) for level in range(len(sides) - 1)]
        has_bias = variant != "basicsr"
        convs: list[nn.Conv2d] = []
        for level, own in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            convs += [nn.Conv2d(before, own, 3, padding=1, bias=has_bias or level == 0)]
            convs += [nn.Conv2d(own, own, 4, stride=2, padding=1, bias=has_bias)]
        self.convs = nn.ModuleList(convs)
        eps, momentum = (1e-4, 0.9) if variant == "kair" else (1e-5, 0.1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels, eps, momentum) for conv in convs[1:])
        self.hidden = nn.Linear(widths[-1] * sides[-1] ** 2, HIDDEN)
        self.answer = nn.Linear(HIDDEN, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Raises UserError for images of another size."""
        if tuple(images.shape[-2:]) != (self.size, self.size):
            raise UserError(
                f"the VGG discriminator was built for {self.size}x{self.size} pixels and was given {images.shape[-2]}x{images.shape[-1]}; "
                "set the size of the discriminator to that of the training targets."
            )
        x = self.convs[0](images)
        if self.variant != "kair":
            x = F.leaky_relu(x, SLOPE, inplace=True)
        for conv, norm in zip(list(self.convs)[1:], self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), SLOPE, inplace=True)
        return self.answer(F.leaky_relu(self.hidden(x.flatten(1)), SLOPE, inplace=True))
