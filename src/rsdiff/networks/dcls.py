"""DCLS: a deep linear kernel estimator, and a restorer that deconvolves features with its kernel (Luo et al., CVPR 2022)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.config.reading import require_at_least
from rsdiff.data.problem import Problem
from rsdiff.degradations.transfer import apply_transfer, least_squares_inverse, transfer_function
from rsdiff.networks.layers import ChannelGate, DualPathGroup, shuffle_upscale

SLOPE = 0.1
HIDDEN = 16
"""Channels between the linear filters whose collapse is the kernel."""
SMALLEST = 7
"""Pixels per side that the unpadded convolutions of the smoothing filters need."""
FILTER_SIZES = {11: (7, 3, 3, 1), 21: (11, 7, 5, 1), 31: (11, 9, 7, 5, 3)}
"""Published sides of the linear filters by the side of the kernel that they collapse to: 1 + sum(S - 1)."""

KernelNorm = Literal["sum", "softmax"]


@config
class DCLSNetConfig:
    """Sizes of restorer and estimator. The defaults are those of setting 1."""

    width: int = 64
    """Channels of the restorer's features and of the estimator."""
    groups: int = 5
    """Dual-path groups of the restorer; each doubles its streams, so more than 5 overflow easily."""
    blocks: int = 10
    """Dual-path attention blocks per group."""
    reduction: int = 4
    """The narrow streams have width / reduction channels, and so have the channel gates of either stream."""
    latent: int = 256
    """Length of the vector that the estimator's linear filters are made from."""
    kernel_size: int = 21
    """Side of the estimated kernel in LR pixels: 11, 21 or 31."""
    kernel_norm: KernelNorm = "sum"
    """How the kernel's sum becomes 1: divided by its sum, or a softmax."""

    def __post_init__(self) -> None:
        require_at_least(self, width=1, groups=1, blocks=1, reduction=1, latent=1)
        if self.kernel_size not in FILTER_SIZES:
            sizes = ", ".join(str(size) for size in FILTER_SIZES)
            raise UserError(f"kernel_size={self.kernel_size} has no published chain of linear filters; choose one of {sizes}.")
        if self.width // self.reduction < self.reduction:
            raise UserError(f"width={self.width} is too narrow for reduction={self.reduction}; choose at least {self.reduction**2}.")


class PlainResidualBlock(nn.Module):
    """x + conv(leaky(conv(x))), 3x3, no normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            assert conv.bias is not None
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
            with torch.no_grad():
                conv.weight.mul_(0.1)  # as published: residuals start small

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE, inplace=True))


class DualPathAttentionBlock(nn.Module):
    """Deblurred features a (wide) look at plain features b (narrow): both grow by gated convolutions, a's from both streams."""

    def __init__(self, deblurred: int, plain: int, reduction: int) -> None:
        super().__init__()
        self.deblurred = _two_convolutions(deblurred)
        self.plain = _two_convolutions(plain)
        self.mix = nn.Conv2d(deblurred + plain, deblurred, 3, padding=1)
        self.gate_deblurred = ChannelGate(deblurred, reduction, "Avg", bias=True)
        self.gate_plain = ChannelGate(plain, reduction, "Avg", bias=True)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        u, v = self.deblurred(a), self.plain(b)
        mixed = self.mix(F.leaky_relu(torch.cat([u, v], dim=1), SLOPE, inplace=True))
        return a + self.gate_deblurred(mixed), b + self.gate_plain(v)


def _two_convolutions(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(SLOPE, inplace=True), nn.Conv2d(width, width, 3, padding=1))


class DeepConstrainedLeastSquares(nn.Module):
    """Deconvolves features with a blur kernel: per channel conj(K) / (|K|^2 + |P|^2), with learned smoothing filters P.

    forward maps features (B, width, h, w) and kernels (B, k, k) to (B, width, h, w); h and w are at least 7.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        narrow = width // reduction
        self.reduce = nn.Conv2d(width, narrow, 1)
        self.smoother = nn.Sequential(
            nn.Conv2d(narrow, narrow, 3),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(narrow, narrow, 3),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(narrow, narrow, 3),
            nn.AdaptiveAvgPool2d(3),
            nn.Conv2d(narrow, narrow, 1),
        )
        self.expand = nn.Conv2d(narrow, width, 1)

    def smoothing_filters(self, reduced: Tensor) -> Tensor:
        """Return one 3x3 filter of mean 0 per channel and image, (B, width / reduction, 3, 3)."""
        with torch.autocast(reduced.device.type, enabled=False):
            filters = self.smoother(reduced.float()).exp()
        return filters - filters.mean(dim=(-2, -1), keepdim=True)

    def forward(self, feature: Tensor, kernel: Tensor) -> Tensor:
        if min(feature.shape[-2:]) < SMALLEST:
            raise UserError(
                f"DCLS deconvolves images of at least {SMALLEST}x{SMALLEST} LR pixels and got {feature.shape[-2]}x{feature.shape[-1]}; "
                "give a larger image."
            )
        reduced = self.reduce(feature)
        return self.deconvolve(reduced, kernel, self.smoothing_filters(reduced))

    def deconvolve(self, reduced: Tensor, kernel: Tensor, filters: Tensor) -> Tensor:
        """Return features (B, width, h, w) of the reduced ones (B, width / reduction, h, w) under kernels (B, k, k) and 3x3 `filters`."""
        pad = kernel.shape[-1]
        padded = F.pad(reduced, (pad, pad, pad, pad), mode="replicate")
        size = (int(padded.shape[-2]), int(padded.shape[-1]))
        # Spectra are float32 under mixed precision too: there is no half-precision FFT of such sizes.
        with torch.autocast(reduced.device.type, enabled=False):
            blur = transfer_function(kernel.float(), size)[:, None]
            inverse = least_squares_inverse(blur, transfer_function(filters.float(), size))
            deblurred = apply_transfer(padded.float(), inverse)[..., pad:-pad, pad:-pad]
        return self.expand(deblurred.to(reduced.dtype))


class Restorer(nn.Module):
    """LR image (B, c, h, w) and kernels (B, k, k) -> image (B, C, scale h, scale w), unbounded."""

    def __init__(self, options: DCLSNetConfig, problem: Problem) -> None:
        super().__init__()
        width, reduction = options.width, options.reduction
        narrow = width // reduction
        self.conv_first = nn.Conv2d(problem.lr_bands, width, 3, padding=1)
        self.features = nn.Sequential(*(PlainResidualBlock(width) for _ in range(3)))
        self.head_plain = nn.Conv2d(width, narrow, 3, padding=1)
        self.head_deblurred = DeepConstrainedLeastSquares(width, reduction)
        self.groups = nn.ModuleList(
            DualPathGroup(DualPathAttentionBlock(width, narrow, reduction) for _ in range(options.blocks)) for _ in range(options.groups)
        )
        self.fusion = nn.Conv2d(width + narrow, width, 3, padding=1)
        self.upscale = shuffle_upscale(width, problem.bands, int(problem.scale))

    def forward(self, lr: Tensor, kernel: Tensor) -> Tensor:
        first = self.conv_first(lr)
        feature = self.features(first)
        deblurred, plain = self.head_deblurred(feature, kernel), self.head_plain(feature)
        for group in self.groups:
            deblurred, plain = group(deblurred, plain)
        enlarged: Tensor = self.upscale(self.fusion(torch.cat([plain, deblurred], dim=1)) + first)
        return enlarged


def collapse_filters(filters: list[Tensor]) -> Tensor:
    """Return the kernels (B, C, k, k) that chains of linear filters amount to, k = 1 + sum(S - 1).

    filters  one (B, out, in, S, S) per layer; the first has C inputs, the last C outputs, C being treated as separate signals
    """
    batch = len(filters[0])
    size = 1 + sum(layer.shape[-1] - 1 for layer in filters)
    signal = filters[0].new_ones(1, batch * filters[0].shape[2], 1, 1)
    for index, layer in enumerate(filters):
        signal = F.conv2d(signal, layer.flatten(0, 1), padding=0 if index else size - 1, groups=batch)
    return signal.view(batch, -1, size, size).flip(-2, -1)


def normalise_kernels(kernels: Tensor, norm: KernelNorm) -> Tensor:
    """Return one kernel (B, k, k) of sum 1 per image from one per band, (B, C, k, k): their mean over its sum, or its softmax.

    Taps may be negative with "sum", which does not guard against a sum of 0. The published code has both, one as a comment; which of
    them the released weights of setting 2 at x2 need cannot be told.
    """
    mean = kernels.mean(1)
    if norm == "softmax":
        return mean.flatten(1).softmax(1).view_as(mean)
    return mean / mean.sum(dim=(-2, -1), keepdim=True)


class Estimator(nn.Module):
    """LR image (B, c, h, w) -> kernel (B, k, k) of sum 1; h and w are at least 5."""

    def __init__(self, options: DCLSNetConfig, in_channels: int) -> None:
        super().__init__()
        width, filter_sizes = options.width, FILTER_SIZES[options.kernel_size]
        self.kernel_norm: KernelNorm = options.kernel_norm
        self.head = nn.Conv2d(in_channels, width, 7, padding=3)
        self.body = nn.Sequential(*(PlainResidualBlock(width) for _ in range(3)))
        self.tail = nn.Sequential(
            nn.Conv2d(width, width, 3),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(width, width, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, options.latent, 1),
        )
        last = len(filter_sizes) - 1
        self.filter_shapes = [
            (in_channels if i == last else HIDDEN, HIDDEN if i else in_channels, size, size) for i, size in enumerate(filter_sizes)
        ]
        self.filters = nn.ModuleList(nn.Linear(options.latent, math.prod(shape)) for shape in self.filter_shapes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.bias is not None
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, lr: Tensor) -> Tensor:
        # In float32 whatever surrounds it: a product of as many linear filters leaves the range of fp16 with the first weights, and
        # bf16's 8 bits would be a kernel of 3 % other taps.
        with torch.autocast(lr.device.type, enabled=False):
            lr = lr.float()
            first = self.head(lr)
            latent = self.tail(self.body(first) + first).flatten(1)
            filters = [layer(latent).view(-1, *shape) for layer, shape in zip(self.filters, self.filter_shapes, strict=True)]
            return normalise_kernels(collapse_filters(filters), self.kernel_norm)


class DCLS(nn.Module):
    """forward maps lr (B, c, h, w) in [0, 1] to (image (B, C, H, W), unbounded, kernel (B, k, k)); the image does not train
    the estimator."""

    def __init__(self, options: DCLSNetConfig, problem: Problem) -> None:
        super().__init__()
        self.restorer = Restorer(options, problem)
        self.estimator = Estimator(options, problem.lr_bands)

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        kernel = self.estimator(lr)
        return self.restorer(lr, kernel.detach()), kernel
