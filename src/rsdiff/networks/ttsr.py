"""TTSR: textures of a reference image are searched for by attention and merged into the LR image's features at three sizes.

Source: Yang et al., "Learning Texture Transformer Network for Image Super-Resolution" (CVPR 2020), and researchmm/TTSR, which fixes what
the paper leaves open. Letters of the paper: Q, K and V are the features of the enlarged LR, of the blurred and of the whole reference; S
is the similarity of the best match, T its texture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.networks.edsr import EDSRBlock
from rsdiff.networks.layers import at_least_single

VGG_MEAN, VGG_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONVOLUTIONS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
"""The layers of VGG19 that the texture extractor consists of."""
VGG_NUMBERS = dict(zip(CONVOLUTIONS, (0, 2, 5, 7, 10), strict=True))
"""Their numbers in torchvision's vgg19.features."""
LARGEST_PRODUCT = 2**24
"""Similarities that are held at once while the best match is searched: 64 MiB, whatever the images' size."""


@config
class TTSRNetConfig:
    """Widths of TTSR. The defaults are the published ones: 6.7 million parameters with the extractor's 0.6 million."""

    width: int = 64
    """Channels of the network."""
    blocks: tuple[int, int, int, int] = (16, 16, 8, 4)
    """Residual blocks of the shallow features, and of every branch at a quarter, at half and at the whole size."""
    residual_scale: float = 1.0
    """Factor of what a residual block adds."""
    texture_channels: tuple[int, int, int] = (64, 128, 256)
    """Channels of the textures at the whole, half and quarter size: those of VGG19."""

    def __post_init__(self) -> None:
        if min(self.width, *self.blocks, *self.texture_channels) < 1 or self.width % 2:
            raise UserError(
                f"width={self.width}, blocks={list(self.blocks)}, texture_channels={list(self.texture_channels)} make no network; choose "
                "an even width and numbers of at least 1."
            )


class TextureExtractor(nn.Module):
    """The first five convolutions of VGG19, which learn on: images (B, C, H, W) in [0, 1] -> features at H, H / 2 and H / 4."""

    mean: Tensor
    std: Tensor

    def __init__(self, bands: int, widths: Sequence[int]) -> None:
        super().__init__()
        first, second, third = widths
        pairs = ((bands, first), (first, first), (first, second), (second, second), (second, third))
        for name, (inner, outer) in zip(CONVOLUTIONS, pairs, strict=True):
            self.add_module(name, nn.Conv2d(inner, outer, 3, padding=1))
        # ImageNet's of RGB; of other bands the means of these three.
        for name, values in (("mean", VGG_MEAN), ("std", VGG_STD)):
            of_bands = values if bands == 3 else (sum(values) / 3,) * bands
            self.register_buffer(name, torch.tensor(of_bands)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        whole, half, quarter = self.answers(images)
        return [whole, half, F.relu(quarter)]

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features at H, H / 2 and, before the activation, H / 4."""
        conv1_1, conv1_2, conv2_1, conv2_2, conv3_1 = (getattr(self, name) for name in CONVOLUTIONS)
        whole = F.relu(conv1_1((images - self.mean) / self.std))
        half = F.relu(conv2_1(F.max_pool2d(F.relu(conv1_2(whole)), 2)))
        return whole, half, conv3_1(F.max_pool2d(F.relu(conv2_2(half)), 2))


def search(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return (similarity, position) of the patch of 3 x 3 of `key` that is most like each of `query`: (B, h w) each.

    query, key  features (B, C, h, w) and (B, C, y, x) of a quarter of the images' size
    similarity  the cosine, with gradients; position counts the patches of `key` row by row
    The products are made of some queries at a time: those of two images of 1024 pixels would take 16 GiB.
    """
    queries, keys = (F.normalize(F.unfold(at_least_single(features), 3, padding=1), dim=1) for features in (query, key))
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):  # half precision cannot tell similar patches apart
        at_once = max(1, LARGEST_PRODUCT // max(1, keys.shape[0] * keys.shape[2]))
        best = torch.cat([torch.bmm(keys.transpose(1, 2), part).argmax(1) for part in queries.split(at_once, dim=2)], dim=1)
    matched = keys.gather(2, best[:, None].expand(-1, keys.shape[1], -1))
    return (queries * matched).sum(1), best


def transferred(values: Sequence[Tensor], best: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Return the textures T at the whole, half and quarter size: patches of the reference's features, laid where they match best.

    values  features of the reference at the three sizes
    best    (B, h w), the positions of `search`
    size    (h, w), a quarter of the target's
    Patches overlap three times in each direction, and every pixel is divided by 9, at the border, too, where fewer overlap (as published).
    """
    made = []
    for features, factor in zip(values, (4, 2, 1), strict=True):
        patches = F.unfold(features, 3 * factor, padding=factor, stride=factor)
        chosen = patches.gather(2, best[:, None].expand(-1, patches.shape[1], -1))
        whole = (size[0] * factor, size[1] * factor)
        made.append(F.fold(chosen, whole, 3 * factor, padding=factor, stride=factor) / 9)
    return made


def larger(x: Tensor, factor: int) -> Tensor:
    """Return x (B, C, h, w) enlarged bicubically (a = -0.75, as PyTorch does)."""
    return F.interpolate(x, scale_factor=factor, mode="bicubic")


class Body(nn.Module):
    """x + convolution(residual blocks(x))."""

    def __init__(self, width: int, blocks: int, residual_scale: float) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(EDSRBlock(width, residual_scale) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """Return x and what is made of `start`, or of x itself where there is none."""
        return x + self.tail(self.blocks(x if start is None else start))


class Exchange(nn.Module):
    """Features of several sizes, each half the next one's, see one another and are merged (the paper's CSFI)."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.paths = nn.ModuleDict()
        for source in range(levels):
            for target in range(levels):
                if source != target:
                    smaller = max(source - target, 0)
                    steps = [nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(smaller)] or [nn.Conv2d(width, width, 1)]
                    self.paths[f"{source + 1}{target + 1}"] = nn.ModuleList(steps)
        self.merges = nn.ModuleList(nn.Conv2d(levels * width, width, 3, padding=1) for _ in range(levels))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [F.relu(self.merges[target](torch.cat(self._seen_at(features, target), dim=1))) for target in range(self.levels)]

    def _seen_at(self, features: Sequence[Tensor], target: int) -> list[Tensor]:
        """Return what is merged at a size: its own features first, then those of the others."""
        seen = [features[target]]
        for source in range(self.levels):
            if source != target:
                seen.append(self._brought(features[source], source, target))
        return seen

    def _brought(self, x: Tensor, source: int, target: int) -> Tensor:
        if source < target:
            x = larger(x, 2 ** (target - source))
        path = self.paths[f"{source + 1}{target + 1}"]
        assert isinstance(path, nn.ModuleList)
        for step in path:
            x = F.relu(step(x))
        return x


class MergeTail(nn.Module):
    """Features of the three sizes -> the image in [-1, 1], which is cut off there."""

    def __init__(self, width: int, bands: int) -> None:
        super().__init__()
        self.from_quarter, self.from_half = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.merge = nn.Conv2d(3 * width, width, 3, padding=1)
        self.narrow, self.last = nn.Conv2d(width, width // 2, 3, padding=1), nn.Conv2d(width // 2, bands, 1)

    def forward(self, quarter: Tensor, half: Tensor, whole: Tensor) -> Tensor:
        parts = whole, F.relu(self.from_quarter(larger(quarter, 4))), F.relu(self.from_half(larger(half, 2)))
        image: Tensor = self.last(self.narrow(F.relu(self.merge(torch.cat(parts, dim=1)))))
        return image.clamp(-1, 1)


class TTSRNet(nn.Module):
    """forward maps an image (B, c, h, w) in [-1, 1], S (B, 1, h, w) and the textures T to the image (B, C, 4 h, 4 w) in [-1, 1].

    Textures are those of `transferred`, at the whole, half and quarter size.
    """

    def __init__(self, bands: int, lr_bands: int, options: TTSRNetConfig) -> None:
        super().__init__()
        width, (shallow, *of_level) = options.width, options.blocks
        self.head = nn.Conv2d(lr_bands, width, 3, padding=1)
        self.shallow = Body(width, shallow, options.residual_scale)
        textures = tuple(reversed(options.texture_channels))
        self.take = nn.ModuleList(nn.Conv2d(texture + width, width, 3, padding=1) for texture in textures)
        self.enlarge = nn.ModuleList(nn.Conv2d(width, 4 * width, 3, padding=1) for _ in range(2))
        self.exchange = nn.ModuleList(Exchange(width, levels) for levels in (2, 3))
        self.bodies = nn.ModuleList(
            nn.ModuleList(Body(width, blocks, options.residual_scale) for _ in range(level + 1)) for level, blocks in enumerate(of_level)
        )
        self.tail = MergeTail(width, bands)

    def forward(self, image: Tensor, similarity: Tensor, textures: Sequence[Tensor]) -> Tensor:
        features = [self.shallow(F.relu(self.head(image)))]
        for level, texture in enumerate(reversed(textures)):
            if level:
                features.append(F.relu(F.pixel_shuffle(self.enlarge[level - 1](features[-1]), 2)))
            sure = similarity if level == 0 else larger(similarity, 2**level)
            features[-1] = features[-1] + self.take[level](torch.cat((features[-1], texture), dim=1)) * sure
            starts = self.exchange[level - 1](features) if level else features
            bodies = self.bodies[level]
            assert isinstance(bodies, nn.ModuleList)
            features = [body(x, start) for body, x, start in zip(bodies, features, starts, strict=True)]
        made: Tensor = self.tail(*features)
        return made


@config
class TTSRDiscriminatorConfig:
    """Sizes of TTSR's discriminator."""

    discriminator_width: int = 32
    """Channels of the discriminator's first convolution."""
    discriminator_size: int = 160
    """Side of the targets that the discriminator is built for, a multiple of 32: trainer.patch."""

    def __post_init__(self) -> None:
        if self.discriminator_width < 1 or self.discriminator_size < 32 or self.discriminator_size % 32:
            raise UserError(
                f"discriminator_width={self.discriminator_width} must be at least 1 and discriminator_size={self.discriminator_size} a "
                "multiple of 32; change them."
            )


class TTSRDiscriminator(nn.Module):
    """Ten convolutions without norms and two full layers: images (B, C, size, size) -> one answer each (B, 1)."""

    def __init__(self, options: TTSRDiscriminatorConfig, bands: int) -> None:
        super().__init__()
        width, size = options.discriminator_width, options.discriminator_size
        widths = [width * 2**level for level in range(5)]
        layers: list[nn.Module] = []
        for level, outer in enumerate(widths):
            inner = bands if level == 0 else widths[level - 1]
            layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.LeakyReLU(0.2)]
            layers += [nn.Conv2d(outer, outer, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.convolutions = nn.Sequential(*layers)
        self.size = size
        self.answer = nn.Sequential(nn.Linear((size // 32) ** 2 * widths[-1], 32 * width), nn.LeakyReLU(0.2), nn.Linear(32 * width, 1))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.size, self.size):
            raise UserError(
                f"targets of {images.shape[-2]}x{images.shape[-1]} were given to a discriminator of {self.size}x{self.size}; set "
                f"trainer.patch={self.size} or model.discriminator_size={images.shape[-1]}."
            )
        answers: Tensor = self.answer(self.convolutions(images).flatten(1))
        return answers
