"""MASA-SR: blocks of the LR image are matched coarsely, then finely, and textures of the reference merged in after their statistics adapt.

Source: Lu et al., "MASA-SR: Matching Acceleration and Spatial Adaptation for Reference-Based Image Super-Resolution" (CVPR 2021), and
dvlab-research/MASA-SR, which fixes what the paper leaves open. Its names: SAM is `Adaptation` here, DRAM `DualResidual`.

Unlike the published code:
- features of the reference are gathered where they match, where theirs cuts out a window for every block first: equal, with less memory;
- a window of the fine search ends at the reference's border; where the LR is less than two blocks wide, theirs begins outside of it and
  reads the other border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.edsr import EDSRBlock
from rsdiff.networks.layers import at_least_single

BLOCK = 8
"""Side of the blocks of the LR image that are matched coarsely."""
DILATIONS = (1, 2, 3)
"""Distances of the 3 x 3 pixels around a block's centre by which it is matched."""
WINDOW = 1.5
"""Side of the window of the fine search, in blocks of the reference."""
LARGEST_PART = 2**24
"""Numbers that the fine search holds at once: 64 MiB, whatever the images' size."""


@config
class MASANetConfig:
    """Widths of MASA-SR. The defaults are the published ones: 4.0 million parameters."""

    width: int = 64
    """Channels of every layer."""
    encoder_blocks: tuple[int, int, int] = (4, 4, 4)
    """Residual blocks of the encoder at the whole, half and quarter size."""
    decoder_blocks: tuple[int, int, int, int, int, int] = (2, 2, 2, 12, 8, 4)
    """Residual blocks of the decoder: of the LR's features at a quarter, half and its whole size, then with textures at x1, x2 and x4."""

    def __post_init__(self) -> None:
        if min(self.width, *self.encoder_blocks, *self.decoder_blocks) < 1:
            raise UserError(
                f"width={self.width}, encoder_blocks={list(self.encoder_blocks)}, decoder_blocks={list(self.decoder_blocks)} make no "
                "network; choose numbers of at least 1."
            )


def blocks_of(width: int, count: int) -> nn.Sequential:
    """Return so many residual blocks, whose weights start at a tenth."""
    return nn.Sequential(*(EDSRBlock(width, 1.0) for _ in range(count)))


class Encoder(nn.Module):
    """Images (B, C, H, W) -> features at H, H / 2 and H / 4, rounded up; of LR, reference and the reference made small alike."""

    def __init__(self, bands: int, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width if level else bands, width, 3, stride=2 if level else 1, padding=1) for level in range(len(blocks))
        )
        self.blocks = nn.ModuleList(blocks_of(width, count) for count in blocks)

    def forward(self, images: Tensor, levels: int = 3) -> list[Tensor]:
        """Return the features of the first `levels` sizes."""
        features: list[Tensor] = []
        for conv, blocks in list(zip(self.convs, self.blocks, strict=True))[:levels]:
            features.append(blocks(F.relu(conv(features[-1] if features else images))))
        return features


class Matches(NamedTuple):
    """For every pixel of the LR image, block by block: similarity and position of its best match.

    similarity  (B, P, BLOCK^2), cosines, with gradients
    position    (B, P, BLOCK^2), int64, pixels of the small reference counted row by row
    """

    similarity: Tensor
    position: Tensor


def match(lr: Tensor, ref: Tensor) -> Matches:
    """Return the best matches of LR features (B, C, h, w), sides multiples of BLOCK, in those of the small reference (B, C, y, x).

    Each block's centre is searched for in the whole reference, then each of its pixels around what was found.
    """
    lr, ref = at_least_single(lr), at_least_single(ref)
    padded = F.pad(lr, (1, 1, 1, 1), mode="replicate")
    with torch.no_grad(), torch.autocast(lr.device.type, enabled=False):  # half precision cannot tell similar patches apart
        centre = coarse(padded, ref)
        near = windows(centre, (lr.shape[-2], lr.shape[-1]), (ref.shape[-2], ref.shape[-1]))
    queries = in_blocks(F.normalize(F.unfold(padded, 3), dim=1).unflatten(2, lr.shape[-2:]))
    keys = F.normalize(F.unfold(ref, 3, padding=1), dim=1)
    at_once = max(1, LARGEST_PART // (len(keys) * keys.shape[1] * near.shape[-1]))
    similarities, positions = [], []
    for query, window in zip(queries.split(at_once, dim=2), near.split(at_once, dim=1), strict=True):
        best, matched = fine(query, keys, window)
        positions.append(best)
        similarities.append((query * matched).sum(1))
    return Matches(torch.cat(similarities, dim=1), torch.cat(positions, dim=1))


def fine(query: Tensor, keys: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position (B, P, BLOCK^2) of the best key for every query, and that key (B, K, P, BLOCK^2), with gradients.

    query   (B, K, P, BLOCK^2)
    keys    (B, K, y x)
    window  (B, P, n), the positions that are compared
    """
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        seen = gathered(keys, window)
        products = torch.einsum("bkpq,bkpn->bpqn", query, seen)
        best = window.gather(2, products.argmax(3))
    return best, gathered(keys, best)


def gathered(keys: Tensor, position: Tensor) -> Tensor:
    """Return (B, K, P, n), the keys (B, K, y x) at positions (B, P, n)."""
    flat = position.flatten(1)[:, None].expand(-1, keys.shape[1], -1)
    return keys.gather(2, flat).unflatten(2, position.shape[1:])


def coarse(padded: Tensor, ref: Tensor) -> Tensor:
    """Return the position (B, P) in `ref` (B, C, y, x) most like the centre of each block of LR features that are larger by a pixel."""
    total: Tensor | float = 0.0
    for dilation in DILATIONS:
        first = (BLOCK + 2) // 2 - dilation
        query = F.normalize(F.unfold(padded[..., first:, first:], 3, dilation=dilation, stride=BLOCK), dim=1)
        key = F.normalize(F.unfold(ref, 3, dilation=dilation, padding=dilation), dim=1)
        total = total + query.transpose(1, 2) @ key
    assert isinstance(total, Tensor)
    return total.argmax(2)


def windows(centre: Tensor, size: tuple[int, int], ref_size: tuple[int, int]) -> Tensor:
    """Return the positions (B, P, n) around each of `centre` (B, P) that lie a pixel off the border of a reference of `ref_size`."""
    near = []
    for axis, place in ((0, centre // ref_size[1]), (1, centre % ref_size[1])):
        side = ref_size[axis]
        reach = int(side // (2 * (size[axis] // BLOCK)) * WINDOW)
        length = min(2 * reach + 1, side - 2)
        first = (place - reach).clamp(1, side - 1 - length)
        near.append(first[..., None] + torch.arange(length, device=centre.device))
    return (near[0][..., :, None] * ref_size[1] + near[1][..., None, :]).flatten(2)


def in_blocks(x: Tensor) -> Tensor:
    """Return (B, C, P, BLOCK^2) of x (B, C, h, w)."""
    return x.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).transpose(3, 4).flatten(4).flatten(2, 3)


def transferred(features: Tensor, matches: Matches, factor: int, size: tuple[int, int]) -> Tensor:
    """Return (B, C, h factor, w factor), patches of the reference's features laid where they match, times the similarity.

    features  (B, C, y factor, x factor)
    size      (h, w) of the LR
    Patches of a block overlap within it, and their mean counts; no patch reaches into another block (as published).
    """
    images, blocks = matches.position.shape[:2]
    side = 3 * factor
    patches = F.unfold(features, side, padding=factor, stride=factor)
    chosen = gathered(patches, matches.position).transpose(1, 2).flatten(0, 1)
    whole = (BLOCK * factor, BLOCK * factor)
    laid = F.fold(chosen, whole, side, padding=factor, stride=factor)
    overlaps = F.fold(torch.ones_like(chosen[:1, : side**2]), whole, side, padding=factor, stride=factor)
    sure = F.interpolate(matches.similarity.reshape(images * blocks, 1, BLOCK, BLOCK), size=whole, mode="bilinear")
    tiles = (laid / overlaps * sure).unflatten(0, (images, size[0] // BLOCK, size[1] // BLOCK))
    return tiles.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


class Adaptation(nn.Module):
    """Features of the reference get the LR's statistics, per channel and, by convolutions that begin at 0, per pixel (the paper's SAM)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(2 * width, width, 3, padding=1)
        self.gamma, self.beta = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, lr: Tensor, ref: Tensor) -> Tensor:
        style = F.relu(self.shared(torch.cat((lr, ref), dim=1)))
        mean, std = lr.mean((2, 3), keepdim=True), lr.std((2, 3), keepdim=True)
        return F.instance_norm(ref) * (self.gamma(style) + std) + self.beta(style) + mean


class DualResidual(nn.Module):
    """Features at a size and textures at twice that size add to each other what the other lacks (the paper's DRAM)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down_a, self.down_b = (nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2))
        self.up_a, self.up_b = (nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1) for _ in range(2))
        self.merge = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(self, lr: Tensor, ref: Tensor) -> Tensor:
        of_ref = F.relu(self.up_a(F.relu(self.down_a(ref)) - lr)) + ref
        of_lr = F.relu(self.up_b(2 * lr - F.relu(self.down_b(ref))))
        return F.relu(self.merge(torch.cat((of_ref, of_lr), dim=1)))


def larger(x: Tensor) -> Tensor:
    """Return x enlarged twice, bilinearly."""
    return F.interpolate(x, scale_factor=2, mode="bilinear")


class Decoder(nn.Module):
    """Features of the LR at three sizes and textures at x1, x2 and x4 -> what is added to the enlarged LR."""

    def __init__(self, bands: int, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width if level == 0 else 2 * width, width, 3, padding=1) for level in range(3))
        self.blocks = nn.ModuleList(blocks_of(width, count) for count in blocks)
        self.merge = nn.Conv2d(2 * width, width, 3, padding=1)
        self.merges = nn.ModuleList(DualResidual(width) for _ in range(2))
        self.adaptation = Adaptation(width)
        self.last = nn.Conv2d(width, bands, 3, padding=1)

    def forward(self, features: Sequence[Tensor], textures: Sequence[Tensor]) -> Tensor:
        """Features come from the whole size downwards, textures from x1 upwards."""
        whole, half, quarter = features
        x = self.blocks[0](F.relu(self.convs[0](quarter)))
        for level, own in ((1, half), (2, whole)):
            x = self.blocks[level](F.relu(self.convs[level](torch.cat((larger(x), own), dim=1))))
        x = self.blocks[3](F.relu(self.merge(torch.cat((self.adaptation(x, textures[0]), x), dim=1))))
        for level, texture in enumerate(textures[1:]):
            x = self.blocks[4 + level](self.merges[level](x, self.adaptation(larger(x), texture)))
        made: Tensor = self.last(x)
        return made


class Found(NamedTuple):
    """What an image is made of.

    lr        (B, C, h, w)
    features  of the LR at its whole, half and quarter size
    textures  of the reference, where they match, at x1, x2 and x4
    """

    lr: Tensor
    features: Sequence[Tensor]
    textures: Sequence[Tensor]


def joined(parts: Sequence[Found]) -> Found:
    """Return what was found for some images in one batch."""
    lr, features, textures = zip(*parts, strict=True)
    return Found(torch.cat(lr), *([torch.cat(sizes) for sizes in zip(*levels, strict=True)] for levels in (features, textures)))


class MASANet(nn.Module):
    """forward maps images (B, C, h, w), sides multiples of 8, and references to images (B, C, 4 h, 4 w), all in [0, 1].

    ref    (B, C, y, x), sides multiples of 4 and at least 12
    small  (B, C, y / 4, x / 4), the reference as blurred as the LR
    """

    def __init__(self, bands: int, options: MASANetConfig) -> None:
        super().__init__()
        self.encoder = Encoder(bands, options.width, options.encoder_blocks)
        self.decoder = Decoder(bands, options.width, options.decoder_blocks)
        self.apply(begin)
        nn.init.zeros_(self.decoder.adaptation.gamma.weight)
        nn.init.zeros_(self.decoder.adaptation.beta.weight)

    def forward(self, lr: Tensor, ref: Tensor, small: Tensor) -> Tensor:
        return self.made(self.find(lr, ref, small))

    def find(self, lr: Tensor, ref: Tensor, small: Tensor) -> Found:
        """Return features and textures; see the class for the images."""
        size = (lr.shape[-2], lr.shape[-1])
        features = self.encoder(lr)
        matches = match(features[0], self.encoder(small, levels=1)[0])
        of_ref = self.encoder(ref)
        textures = [transferred(one, matches, factor, size) for one, factor in zip(reversed(of_ref), (1, 2, 4), strict=True)]
        return Found(lr, features, textures)

    def made(self, found: Found) -> Tensor:
        """Return the images (B, C, 4 h, 4 w)."""
        added: Tensor = self.decoder(found.features, found.textures)
        return added + F.interpolate(found.lr, scale_factor=4, mode="bicubic")


def begin(module: nn.Module) -> None:
    """Set the weights of a convolution as published: normal, of half He's variance of the outputs' number, and no bias; blocks a tenth."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        count = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0.0, 0.5 * (2 / count) ** 0.5)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    if isinstance(module, EDSRBlock):  # after its convolutions
        for conv in (module.conv1, module.conv2):
            conv.weight.data.mul_(0.1)
