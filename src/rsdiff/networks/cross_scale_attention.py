"""CiaoSR's non-local features: what a feature map looks like in places that resemble a cell at a coarser scale.

Source: caojiezhang/CiaoSR, common/arch_csnln.py, CrossScaleAttention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.networks.layers import reflect_to

SHARPNESS = 10.0  # factor of the scores before the softmax
LOWEST_NORM = 1e-4


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.PReLU())


class CrossScaleAttention(nn.Module):
    """forward maps features (B, width, h, w) to (B, len(scales) * width, h, w).

    width   channels, even
    scales  how much coarser the places are that a cell is compared with: 2, 3 or 4
    tile    attend within parts of about so many cells a side, each with a margin of one cell; 0 means within the whole map
    """

    def __init__(self, width: int, scales: Sequence[int], tile: int = 0) -> None:
        super().__init__()
        self.scales, self.tile = tuple(scales), tile
        self.match = _pointwise(width, width // 2)
        self.match_coarse = _pointwise(width, width // 2)
        self.assemble = _pointwise(width, width)
        # Published files have the layer of scale 2 whether it is used or not.
        self.down = nn.ModuleDict({str(s): nn.Conv2d(width, width, 3, stride=s, padding=1) for s in sorted({2, *scales})})

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        if not self.tile or h * w <= self.tile**2:
            return self._attend(x)
        rows = []
        for top, bottom in _spans(h, self.tile):
            row = []
            for left, right in _spans(w, self.tile):
                above, before = min(top, 1), min(left, 1)
                part = self._attend(x[..., top - above : bottom + 1, left - before : right + 1])
                row.append(part[..., above : above + bottom - top, before : before + right - left])
            rows.append(torch.cat(row, dim=-1))
        return torch.cat(rows, dim=-2)

    def _attend(self, x: Tensor) -> Tensor:
        return torch.cat([self._attend_to(x, scale) for scale in self.scales], dim=1)

    def _attend_to(self, x: Tensor, scale: int) -> Tensor:
        h, w = x.shape[-2:]
        x = reflect_to(x, -(-h // scale) * scale, -(-w // scale) * scale)
        coarse = self.match_coarse(F.interpolate(x, scale_factor=1 / scale, mode="bilinear", align_corners=False))
        sought = self.match(x)
        values = self._patches(self.assemble(x), scale)
        found = []
        for image, places, patches in zip(sought, F.unfold(coarse, 3, padding=1), values, strict=True):  # every image has its own kernels
            kernels = places / places.norm(dim=0).clamp_min(LOWEST_NORM)
            scores = F.conv2d(image[None], kernels.mT.unflatten(1, (-1, 3, 3)), padding=1)
            found.append(F.conv_transpose2d((SHARPNESS * scores).softmax(dim=1), patches, stride=scale, padding=scale))
        return self.down[str(scale)](torch.cat(found))[..., :h, :w] / 6

    @staticmethod
    def _patches(x: Tensor, scale: int) -> Tensor:
        """Return the patches (B, n, C, 3 scale, 3 scale) of x (B, C, H, W), `scale` apart, zero beyond the border."""
        patches = F.unfold(x, 3 * scale, stride=scale, padding=scale)
        return patches.mT.unflatten(2, (x.shape[1], 3 * scale, 3 * scale))


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Return begin and end of parts of `tile` cells; the last takes what is left over.

    Where one side is shorter than a tile, the published code has no parts at all and its features are 0; here it has one.
    """
    count = max(length // tile, 1)
    return [(i * tile, length if i == count - 1 else (i + 1) * tile) for i in range(count)]
