"""Two small networks that recognise what is in an image: a U-Net for objects, a classifier for scenes. For task=downstream.

They are judges of restored images, trained in minutes, not contributions: what counts is that all images are seen by the same one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 3


def _block(inputs: int, outputs: int) -> nn.Sequential:
    def half(channels: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, outputs, 3, padding=1), nn.GroupNorm(min(8, outputs), outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(*half(inputs), *half(outputs))


class ObjectNetwork(nn.Module):
    """Maps images (B, C, H, W) in [0, 1] to the logit (B, 1, H, W) of every pixel to belong to an object.

    A U-Net of three halvings (Ronneberger et al. 2015) with group normalisation; `width` channels at full size, doubled at each halving.
    """

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.down = nn.ModuleList(_block(inputs, outputs) for inputs, outputs in zip([bands, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(3 * outputs, outputs) for outputs in reversed(widths[:-1]))
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        H, W = images.shape[-2:]
        multiple = 2**LEVELS
        x = F.pad(images - 0.5, (0, -W % multiple, 0, -H % multiple), mode="replicate")
        seen = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            seen.append(x)
        for block, beside in zip(self.up, reversed(seen[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), beside], 1))
        logits: Tensor = self.last(x)[..., :H, :W]
        return logits


class SceneNetwork(nn.Module):
    """Maps images (B, C, H, W) in [0, 1] of any size to the logits (B, classes) of what they show."""

    def __init__(self, bands: int, classes: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.blocks = nn.ModuleList(_block(inputs, outputs) for inputs, outputs in zip([bands, *widths], widths, strict=False))
        self.last = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images - 0.5
        for level, block in enumerate(self.blocks):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if level else x)
        logits: Tensor = self.last(x.mean((2, 3)))
        return logits
