"""MCFormer, BlindDiff's denoiser: a U-shaped Restormer that also estimates the blur kernel and is modulated by time and kernel.

Source: lifengcs/BlindDiff (arXiv 2403.10211), basicsr/archs/blinddiff_arch.py. Unlike the published code, a batch of one image gives its
kernel in the same shape as any other batch, and scale and kernel size are arguments.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rsdiff.config import UserError, config
from rsdiff.data.enlarging import enlarge
from rsdiff.data.problem import Problem
from rsdiff.networks.layers import ChannelNorm, SinusoidalEmbedding, channel_attention

KERNEL_STRIDES = (1, 1, 1, 2, 1, 1)
"""Strides of the 5x5 convolutions of the kernel head."""


class TransposedAttention(nn.Module):
    """Attention of channels to channels: cost grows with H W, not its square. `heads` divides `channels`.

    Queries and keys have unit length over all pixels; logits are multiplied by a learned temperature per head.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.depthwise(self.query_key_value(x)).chunk(3, dim=1)
        query, key, value = (part.unflatten(1, (self.heads, -1)).flatten(3) for part in parts)
        attended = channel_attention(query, key, value, self.temperature)
        return self.out(attended.flatten(1, 2).unflatten(2, x.shape[-2:]))


class GatedFeedForward(nn.Module):
    """1x1 convolution to 2 int(expansion C) channels, depthwise 3x3, one half gated by GELU of the other, 1x1 convolution back."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(expansion * channels)
        self.enter = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.leave = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.depthwise(self.enter(x)).chunk(2, dim=1)
        return self.leave(F.gelu(gate) * value)


class ModulatedBlock(nn.Module):
    """Attention and feed-forward, both residual, their normalised inputs shifted and scaled by a code (B, code_channels)."""

    def __init__(self, channels: int, heads: int, expansion: float, code_channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.attention = TransposedAttention(channels, heads)
        self.norm2 = ChannelNorm(channels)
        self.feed_forward = GatedFeedForward(channels, expansion)
        self.modulation = nn.Linear(code_channels, 4 * channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        modulation = self.modulation(F.mish(code))[:, :, None, None]
        shift_attention, scale_attention, shift_forward, scale_forward = modulation.chunk(4, dim=1)
        x = x + self.attention(self.norm1(x) * (1 + scale_attention) + shift_attention)
        return x + self.feed_forward(self.norm2(x) * (1 + scale_forward) + shift_forward)


class KernelHead(nn.Sequential):
    """Estimates a blur kernel (B, taps), non-negative with sum 1, from images of `in_channels` bands."""

    def __init__(self, in_channels: int, width: int, taps: int) -> None:
        layers: list[nn.Module] = []
        for index, stride in enumerate(KERNEL_STRIDES):
            layers += [nn.Conv2d(width if index else in_channels, width, 5, stride, padding=2), nn.LeakyReLU(0.2, inplace=True)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, taps, 1), nn.Flatten(), nn.Softmax(dim=1))


class MCFormer(nn.Module):
    """Predicts noise, variance and blur kernel from a noisy HR image, its time and the LR image.

    H and W of the HR must be multiples of `size_multiple`.
    The decoder of the first level keeps 2 D channels, as in Restormer. Codes of time and kernel are added up and modulate every block.
    """

    def __init__(self, options: MCFormerConfig, bands: int, scale: int) -> None:
        super().__init__()
        width, blocks = options.width, options.blocks
        self.scale = scale
        self.kernel_size = options.kernel_size
        self.checkpointing = options.checkpointing
        levels = len(blocks)
        self.size_multiple = 2 ** (levels - 1)
        taps = self.kernel_size**2

        def stack(channels: int, level: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(ModulatedBlock(channels, options.heads[level], options.expansion, width) for _ in range(count))

        widths = [width * 2**level for level in range(levels)]
        self.time = nn.Sequential(SinusoidalEmbedding(width), nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.kernel_head = KernelHead(2 * bands, width, taps)
        self.kernel_code = nn.Sequential(nn.Linear(taps, width), nn.Mish(), nn.Linear(width, width))
        self.stem = nn.Conv2d(2 * bands, width, 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(stack(channels, level, blocks[level]) for level, channels in enumerate(widths))
        self.downs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2)) for channels in widths[:-1]
        )
        # Index i of what follows belongs to the step from level i + 1 up to level i.
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * channels, 4 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2)) for channels in widths[:-1]
        )
        self.reductions = nn.ModuleList(
            nn.Conv2d(2 * channels, channels, 1, bias=False) if level else nn.Identity() for level, channels in enumerate(widths[:-1])
        )
        self.decoders = nn.ModuleList(stack(widths[max(level, 1)], level, blocks[level]) for level in range(levels - 1))
        self.refinement = stack(widths[1], 0, options.refinement)
        self.out = nn.Conv2d(widths[1], 2 * bands, 3, padding=1, bias=False)

    def forward(self, x: Tensor, time: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return ((B, 2C, H, W): noise, then variance; kernel (B, k, k)) of the noisy x (B, C, H, W), steps time (B,), lr (B, C, h, w)."""
        both = torch.cat([x, self.enlarge(lr)], dim=1)
        taps = self.kernel_head(both)
        code = self.time(time) + self.kernel_code(taps)
        feature = self.stem(both)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            skips.append(self._run(encoder, feature, code))
            feature = down(skips[-1])
        feature = self._run(self.encoders[-1], feature, code)
        for level in reversed(range(len(self.ups))):
            joined = torch.cat([self.ups[level](feature), skips.pop()], dim=1)
            feature = self._run(self.decoders[level], self.reductions[level](joined), code)
        feature = self._run(self.refinement, feature, code)
        # The noisy image is added to the variance channels too: published, and the released weights depend on it.
        return self.out(feature) + torch.cat([x, x], dim=1), taps.unflatten(1, (self.kernel_size, self.kernel_size))

    def enlarge(self, lr: Tensor) -> Tensor:
        """Return lr at the size of the HR: bicubic with a = -0.75, neither antialiased nor clamped."""
        return enlarge(lr, (lr.shape[-2] * self.scale, lr.shape[-1] * self.scale))

    def _run(self, blocks: nn.Module, x: Tensor, code: Tensor) -> Tensor:
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x = checkpoint(block, x, code, use_reentrant=False) if self.checkpointing and torch.is_grad_enabled() else block(x, code)
        return x


@config
class MCFormerConfig:
    """The network that predicts noise, variance and kernel."""

    width: int = 48
    """Channels of the first level; each further level has twice as many."""
    blocks: tuple[int, ...] = (2, 3, 6, 8)
    """Transformer blocks per level; the image is halved between levels."""
    refinement: int = 2
    """Blocks behind the last decoder."""
    heads: tuple[int, ...] = (1, 2, 4, 8)
    """Attention heads per level."""
    expansion: float = 2.66
    """Hidden channels of the feed-forward parts, in units of a level's."""
    kernel_size: int = 21
    """Side of the estimated kernels in HR pixels."""
    checkpointing: bool = False
    """Recompute the activations of each block in the backward pass, guidance included: less memory, about a third more time."""

    def __post_init__(self) -> None:
        if len(self.blocks) < 2 or len(self.blocks) != len(self.heads) or min(*self.blocks, *self.heads, self.refinement) < 1:
            raise UserError(
                f"blocks={list(self.blocks)}, heads={list(self.heads)}, refinement={self.refinement} make no network; "
                "choose one number of at least 1 for each of two or more levels, and at least 1 block of refinement."
            )
        if self.width < 2 or self.width % 2 or any(self.width * 2**level % heads for level, heads in enumerate(self.heads)):
            raise UserError(f"width={self.width} must be even and split into heads={list(self.heads)} at every level; change one of them.")
        if self.expansion * self.width < 1 or self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise UserError(f"expansion={self.expansion}, kernel_size={self.kernel_size}: choose a positive and an odd number.")

    def build(self, problem: Problem) -> MCFormer:
        """Return the network with fresh weights."""
        return MCFormer(self, problem.bands, int(problem.scale))
