"""DATSR: textures of a reference are aggregated by convolutions deformed towards where they match, in a U-Net of shifted windows.

Source: Cao et al., "Reference-based Image Super-Resolution with Deformable Attention Transformer" (ECCV 2022), and caojiezhang/DATSR,
which fixes what the paper leaves open; the search and the aggregation are those of C2-Matching (Jiang et al., CVPR 2021).

Unlike the published code:
- the reference's features are gathered where they match, where theirs interpolates at these whole positions: equal but for rounding;
- its features of the LR image (`content_extractor`, 2.4 million parameters), which nothing reads there, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from rsdiff.config import UserError, config
from rsdiff.networks.layers import at_least_single
from rsdiff.networks.swinir import SwinBlock, SwinGroup

SLOPE = 0.1
"""Of every leaky ReLU."""
FARTHEST = 10.0
"""Pixels by which what is learned moves a tap of the deformed convolutions, at most."""
TAPS = 9
SMALLEST_NORM = 1e-5
LARGEST_PRODUCT = 2**24
"""Similarities that are held at once while the best match is searched: 64 MiB, whatever the images' size."""


@config
class DATSRNetConfig:
    """Widths of DATSR. The defaults are the published ones."""

    width: int = 128
    """Channels of the U-Net."""
    groups: int = 8
    """Groups of channels that a deformed convolution moves by themselves."""
    depths: tuple[int, ...] = (4, 4)
    """Transformer blocks of each group, at each size."""
    heads: tuple[int, ...] = (4, 4)
    """Attention heads of each group's blocks."""
    window: int = 8
    """Side of the windows."""
    mlp_ratio: float = 2.0
    """Width of the MLPs' hidden layer in units of `width`."""
    drop_path: float = 0.1
    """Probability in training that an image skips the last block; it rises linearly from 0 at the first."""
    texture_channels: tuple[int, int, int] = (64, 128, 256)
    """Channels of the textures at the whole, half and quarter size: those of VGG19."""

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.heads) or not self.depths:
            raise UserError(f"depths={list(self.depths)} and heads={list(self.heads)} were given; give one of either for each group.")
        if any(self.width % heads for heads in self.heads) or self.width % 2:
            raise UserError(f"width={self.width} cannot be split into heads={list(self.heads)}, or halved; choose an even multiple.")
        if self.groups < 1 or any(channels % self.groups for channels in self.texture_channels):
            raise UserError(f"texture_channels={list(self.texture_channels)} cannot be split into groups={self.groups}; choose a divisor.")
        if self.window < 2 or not 0 <= self.drop_path < 1:
            raise UserError(f"window={self.window} and drop_path={self.drop_path} were given; choose at least 2, and 0 to less than 1.")


class Flow(NamedTuple):
    """Where each pixel of the features of a quarter of the image's size matches.

    shift       (B, 2, h, w), rows and columns from a patch's upper left pixel to its match's; 0 in the last two of each, where none begins
    similarity  (B, 1, h, w), the cosine of the patch around a pixel; 0 at the border
    """

    shift: Tensor
    similarity: Tensor

    def at(self, factor: int) -> Flow:
        """Return the same for features that are so many times larger."""
        shift, similarity = (x.repeat_interleave(factor, 2).repeat_interleave(factor, 3) for x in self)
        return Flow(shift * factor, similarity)


def search(query: Tensor, key: Tensor) -> Flow:
    """Return where the patches of 3 x 3 of `query` (B, C, h, w) are most alike in `key`, of the same size; without gradients."""
    h, w = query.shape[-2:]
    normed = F.normalize(at_least_single(query), dim=1), F.normalize(at_least_single(key), dim=1)
    queries, keys = (F.unfold(features, 3) for features in normed)
    lengths, of_keys = (x.norm(dim=1, keepdim=True) + SMALLEST_NORM for x in (queries, keys))
    queries, keys = queries / lengths, keys / of_keys
    at_once = max(1, LARGEST_PRODUCT // max(1, keys.shape[0] * keys.shape[2]))
    with torch.autocast(query.device.type, enabled=False):  # half precision cannot tell similar patches apart
        found = [torch.bmm(keys.transpose(1, 2), part).max(1) for part in queries.split(at_once, dim=2)]
    similarity, best = (torch.cat([part[which] for part in found], dim=1).unflatten(1, (h - 2, w - 2)) for which in (0, 1))
    rows = best // (w - 2) - torch.arange(h - 2, device=best.device)[:, None]
    columns = best % (w - 2) - torch.arange(w - 2, device=best.device)
    return Flow(F.pad(torch.stack((rows, columns), dim=1), (0, 2, 0, 2)), F.pad(similarity[:, None], (1, 1, 1, 1)))


def warped(features: Tensor, shift: Tensor) -> Tensor:
    """Return features (B, C, H, W) from where `shift` (B, 2, H, W), whole pixels, points to."""
    H, W = features.shape[-2:]
    rows = torch.arange(H, device=shift.device)[:, None] + shift[:, 0]
    columns = torch.arange(W, device=shift.device) + shift[:, 1]
    places = (rows * W + columns).flatten(1)[:, None].expand(-1, features.shape[1], -1)
    return features.flatten(2).gather(2, places).unflatten(2, (H, W))


class Deformed(nn.Module):
    """A 3 x 3 convolution of the reference's features whose taps are moved to where these match and by what is learned (DCNv2)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        bound = (channels * TAPS) ** -0.5
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.offsets = nn.Conv2d(channels, 3 * TAPS * groups, 3, padding=1)

    def forward(self, ref: Tensor, seen: Tensor, flow: Flow, factor: int) -> Tensor:
        """Map features of the reference (B, C, H, W) to the same shape.

        seen    (B, C, H, W), what offsets and weights of the taps are learned of
        factor  pixels of a cell of the search: a tap follows the match of the patch that it is the same tap of
        """
        learned, share = self.offsets(seen).split((2 * TAPS * self.groups, TAPS * self.groups), dim=1)
        H, W = ref.shape[-2:]
        taps = [F.pad(flow.shift, (column * factor, 0, row * factor, 0))[..., :H, :W] for row in range(3) for column in range(3)]
        with torch.autocast(ref.device.type, enabled=False):  # half precision cannot hold fractions of positions
            ref, learned, share = (at_least_single(x) for x in (ref, learned, share))
            offset = FARTHEST * torch.tanh(learned) + torch.cat(taps, dim=1).to(learned.dtype).repeat(1, self.groups, 1, 1)
            share = torch.sigmoid(share * flow.similarity.to(share.dtype))
            made: Tensor = deform_conv2d(ref, offset, self.weight, self.bias, padding=1, mask=share)
        return made


class Body(nn.Module):
    """Groups of transformer blocks in shifted windows: features (B, C, H, W), sides multiples of the window, to the same shape."""

    def __init__(self, options: DATSRNetConfig) -> None:
        super().__init__()
        width, half = options.width, options.window // 2
        drops = iter(torch.linspace(0, options.drop_path, sum(options.depths), device="cpu").tolist())
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.groups = nn.Sequential(
            *(
                SwinGroup(
                    [SwinBlock(width, heads, options.window, block % 2 * half, options.mlp_ratio, next(drops)) for block in range(depth)],
                    width,
                )
                for depth, heads in zip(options.depths, options.heads, strict=True)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_out(self.groups(self.norm_in(x.movedim(1, -1)))).movedim(-1, 1)


class Stage(nn.Module):
    """A size of the U-Net: textures of that size are aggregated, merged with the features and transformed."""

    def __init__(self, options: DATSRNetConfig, texture: int) -> None:
        super().__init__()
        width = options.width
        self.see = nn.ModuleList((nn.Conv2d(width + 2 * texture, texture, 3, padding=1), nn.Conv2d(texture, texture, 3, padding=1)))
        self.aggregate = Deformed(texture, options.groups)
        self.head = nn.Conv2d(width + texture, width, 3, padding=1)
        self.body = Body(options)

    def forward(self, x: Tensor, skipped: Tensor | None, ref: Tensor, flow: Flow, factor: int) -> Tensor:
        """Return features of the shape of x; `skipped` are those of the way down, if this is the way up."""
        seen = torch.cat((x, warped(ref, flow.shift), ref), dim=1)
        for conv in self.see:
            seen = F.leaky_relu(conv(seen), SLOPE)
        found = F.leaky_relu(self.aggregate(ref, seen, flow, factor), SLOPE)
        merged = torch.cat((x if skipped is None else x + skipped, found), dim=1)
        made: Tensor = self.body(F.leaky_relu(self.head(merged), SLOPE)) + x
        return made


class DATSRNet(nn.Module):
    """forward maps images (B, C, h, w) in [0, 1], a flow of (h, w) and textures of a reference to images (B, C, 4 h, 4 w).

    Sides h and w are multiples of the window; textures are those of the reference at the whole, half and quarter of the target's size.
    """

    def __init__(self, bands: int, options: DATSRNetConfig) -> None:
        super().__init__()
        width, (large, medium, small) = options.width, options.texture_channels
        self.first = nn.Conv2d(bands, width, 3, padding=1)
        self.down = nn.ModuleList(Stage(options, texture) for texture in (large, medium))
        self.shrink = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2))
        self.up = nn.ModuleList(Stage(options, texture) for texture in (small, medium, large))
        self.enlarge = nn.ModuleList(nn.Conv2d(width, 4 * width, 3, padding=1) for _ in range(2))
        self.last = nn.ModuleList((nn.Conv2d(width, width // 2, 3, padding=1), nn.Conv2d(width // 2, bands, 3, padding=1)))
        self.apply(begin)
        for module in self.modules():
            if isinstance(module, Deformed):
                nn.init.zeros_(module.offsets.weight)

    def forward(self, lr: Tensor, flow: Flow, textures: Sequence[Tensor]) -> Tensor:
        flows = {factor: flow.at(factor) for factor in (1, 2, 4)}
        base = F.interpolate(lr, scale_factor=4, mode="bilinear")
        skipped = [self.first(base)]
        for stage, shrink, texture, factor in zip(self.down, self.shrink, textures, (4, 2), strict=False):
            skipped.append(shrink(stage(skipped[-1], None, texture, flows[factor], factor)))
        x = skipped.pop()
        for level, (stage, texture, factor) in enumerate(zip(self.up, reversed(textures), (1, 2, 4), strict=True)):
            x = stage(x, skipped.pop() if level else None, texture, flows[factor], factor)
            if level < len(self.enlarge):
                x = F.leaky_relu(F.pixel_shuffle(self.enlarge[level](x), 2), SLOPE)
        added: Tensor = self.last[1](F.leaky_relu(self.last[0](x), SLOPE))
        return added + base

    def slow_parameters(self, texture_level: int) -> list[nn.Parameter]:
        """Return what offsets are learned by at half (1) or a quarter (2) of the target's size, which trains more slowly."""
        stages = (self.down[1], self.up[1]) if texture_level == 1 else (self.up[0],)
        parts = [stage.get_submodule(name) for stage in stages if isinstance(stage, Stage) for name in ("see", "aggregate.offsets")]
        return [parameter for part in parts for parameter in part.parameters()]


def begin(module: nn.Module) -> None:
    """Set weights as published: normal with deviation 0.02, biases 0; norms, position tables and deformed convolutions stay."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DATSRDiscriminator(nn.Module):
    """Convolutions with batch norms that halve five times, a mean and two full layers: images (B, C, H, W) -> answers (B, 1) in (0, 1)."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inner = bands
        for level in range(5):
            outer = width * 2**level
            for start, stride in ((inner, 1), (outer, 2)):
                layers += [nn.Conv2d(start, outer, 3, stride=stride, padding=1), nn.BatchNorm2d(outer), nn.LeakyReLU(0.2)]
            inner = outer
        self.convolutions = nn.Sequential(*layers)
        self.answer = nn.Sequential(nn.Linear(inner, 32 * width), nn.LeakyReLU(0.2), nn.Linear(32 * width, 1))
        self.apply(begin)

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = torch.sigmoid(self.answer(self.convolutions(images).mean((2, 3))))
        return answers
