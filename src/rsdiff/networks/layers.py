"""Blocks that two or more published networks share.

Every block takes and returns (B, C, H, W) feature maps, works in any memory format and has no data-dependent control flow, so that the
networks can be compiled and run in channels_last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError

Layer = TypeVar("Layer", bound=nn.Module)


class SinusoidalEmbedding(nn.Module):
    """Maps scalars to [sin(v f_0), .., cos(v f_0), ..] with frequencies f_k = 1e4^(-k / K), k = 0 .. K-1, K = width / 2.

    v          (B,), noise levels, diffusion times or integer steps; returns (B, width) float32. `width` is even.
    inclusive  the lowest frequency is 1e-4: f_k = 1e4^(-k / (K - 1)), which needs a width of at least 4
    The values are not rescaled: with levels in (0, 1] the low frequencies barely move, which is what the published SR3 does.
    """

    frequencies: Tensor

    def __init__(self, width: int, inclusive: bool = False) -> None:
        super().__init__()
        if width % 2 or (inclusive and width < 4):
            raise UserError(f"an embedding of {width} values was asked for; it holds sines and cosines, so give an even number from 4 on.")
        # On the CPU even where parameters are made on the meta device: no state dict brings the frequencies.
        exponents = torch.arange(width // 2, dtype=torch.float64, device="cpu") / (width // 2 - inclusive)
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * exponents).float(), persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        angles = v.float()[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(nn.Sequential):
    """Sinusoidal embedding, then Linear width -> 4 width, Swish or another activation, Linear 4 width -> width; (B,) -> (B, width)."""

    def __init__(self, width: int, activation: type[nn.Module] = nn.SiLU, inclusive: bool = False) -> None:
        embedding = SinusoidalEmbedding(width, inclusive)
        super().__init__(embedding, nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width))


class ResidualBlock(nn.Module):
    """Pre-activation residual block of DDPM, told the time between its two convolutions, with optional self-attention behind it.

    h = conv1(swish(norm1(x))) + time(embedding);  h = conv2(dropout(swish(norm2(h))));  returns attention(h + shortcut(x)).

    activate_time   applies Swish to the embedding before its Linear layer (DDPM does, SR3 does not)
    attention_bias  gives the projection to queries, keys and values a bias (SCDM)
    Both convolutions are 3x3 and zero-padded; the shortcut is a 1x1 convolution where the widths differ and the identity elsewhere.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        *,
        norm_groups: int,
        dropout: float,
        attention: bool,
        activate_time: bool,
        attention_bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.activate_time = activate_time
        self.time = nn.Linear(embedding_width, out_channels)
        self.norm2 = nn.GroupNorm(norm_groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.attention: nn.Module = SelfAttention(out_channels, norm_groups, attention_bias) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(embedding) if self.activate_time else embedding)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.attention(h + self.shortcut(x))


def attended(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Return the attention of queries to values, both (B, heads, pixels, c), in memory that grows with the pixels and not their square.

    key    (B, heads, pixels, k), as the query is; k is at most c
    scale  of the logits; None means 1 / sqrt(k)
    PyTorch has fused kernels for tensors of one width whose channels lie side by side. For others, such as transposed views, it makes the
    whole matrix of pixels by pixels without saying so: 17 GB for the 65536 pixels of a tile.
    """
    narrow = value.shape[-1] - key.shape[-1]
    wide_query, wide_key = (F.pad(part, (0, narrow)) if narrow else part for part in (query, key))
    factor = key.shape[-1] ** -0.5 if scale is None else scale
    return F.scaled_dot_product_attention(wide_query.contiguous(), wide_key.contiguous(), value.contiguous(), scale=factor)


class SelfAttention(nn.Module):
    """x plus single-head attention of every pixel to every pixel of the normalised x; logits are scaled by 1 / sqrt(C).

    The projection to queries, keys and values has no bias unless `bias` asks for it.
    """

    def __init__(self, channels: int, norm_groups: int, bias: bool = False) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        query, key, value = (part.flatten(2).mT[:, None] for part in self.query_key_value(self.norm(x)).chunk(3, dim=1))
        return x + self.out(attended(query, key, value)[:, 0].mT.unflatten(2, (height, width)))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement by 2, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class DualPathGroup(nn.Module):
    """Blocks on a pair of feature maps, one after the other; returns twice what the last block returns, of both.

    DANv2 and DCLS mean to add the group's input, but their blocks overwrite the very list that holds it, so that the output is added to
    itself: chained groups double again and again. Released weights were trained that way.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            first, second = block(first, second)
        return 2 * first, 2 * second


def at_least_single(x: Tensor) -> Tensor:
    """Return x in single precision, or in double where it is so: what half precision cannot hold, such as positions of pixels.

    Autocast must be off where it is used, or products are brought back to half precision.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def shuffle_upscale(width: int, out_channels: int, scale: int) -> nn.Sequential:
    """Return 3x3 convolutions and pixel shuffles that enlarge (B, width, h, w) to (B, out_channels, scale h, scale w), without activation.

    Powers of 2 are reached in steps of 2, other scales in one step; scale 1 is the last convolution alone.
    Raises UserError for scales below 1.
    """
    if scale < 1:
        raise UserError(f"an enlargement by {scale} was asked for; choose a whole number of at least 1.")
    doublings = scale.bit_length() - 1
    factors = [2] * doublings if scale == 2**doublings else [scale]
    layers: list[nn.Module] = []
    for factor in factors:
        layers += [nn.Conv2d(width, factor**2 * width, 3, padding=1), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers, nn.Conv2d(width, out_channels, 3, padding=1))


def channel_attention(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor) -> Tensor:
    """Attention of channels to channels: cost grows with the number of pixels, not its square.

    query, key, value  (B, heads, d, pixels); queries and keys are brought to unit length over all pixels
    temperature        (heads, 1, 1), what logits are multiplied by
    Returns (B, heads, d, pixels): row i is the values averaged with the weights of query i.
    """
    logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT * temperature
    return logits.softmax(-1) @ value


def filter_each(x: Tensor, kernels: Tensor) -> Tensor:
    """Cross-correlate every channel of every image with a kernel of its own, zero-padded to the size of the input.

    x (B, C, H, W); kernels (B, C, k, k), k odd. One convolution with B * C groups.
    """
    B, C, H, W = x.shape
    size = kernels.shape[-1]
    return F.conv2d(x.reshape(1, B * C, H, W), kernels.reshape(B * C, 1, size, size), padding=size // 2, groups=B * C).view(B, C, H, W)


def orthogonal_(module: nn.Module) -> None:
    """Make the weights of every convolution and Linear layer under `module` orthogonal (gain 1) and their biases 0, in place.

    Draws from torch's global generator: callers seed it, as they do for every other initialisation of PyTorch.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def zeroed(layer: Layer) -> Layer:
    """Set weight and bias of a layer to zero, of a weight-normalised one the length of its weight, and return it."""
    for name, parameter in layer.named_parameters():
        if name != "parametrizations.weight.original1":  # the direction, which must have a length
            nn.init.zeros_(parameter)
    return layer


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of every pixel over its channels (B, C, H, W), eps 1e-5; always with a scale, with an offset if `bias`."""

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__(channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def reflect_to(x: Tensor, height: int, width: int) -> Tensor:
    """Return x (..., h, w) extended at the bottom and the right to (height, width) by reflection about its last pixel centres.

    Reflection repeats where the extension exceeds the image, so any size works; PyTorch's padding mode refuses that.
    """
    rows = _reflected_indices(x.shape[-2], height, x.device)
    columns = _reflected_indices(x.shape[-1], width, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Return x (..., h, w) extended by `reflect_to` to the next sizes that are multiples of `multiple`."""
    height, width = (-(-length // multiple) * multiple for length in x.shape[-2:])
    return reflect_to(x, height, width)


def mirror_to(x: Tensor, height: int, width: int) -> Tensor:
    """Return x (..., h, w) extended at the bottom and the right to (height, width) by mirroring; the last pixel is repeated."""
    for axis, target in ((-2, height), (-1, width)):
        size = x.shape[axis]
        index = torch.arange(target, device=x.device) % (2 * size)
        x = x.index_select(axis, torch.where(index < size, index, 2 * size - 1 - index))
    return x


def _reflected_indices(size: int, target: int, device: torch.device) -> Tensor:
    period = max(2 * (size - 1), 1)
    index = torch.arange(target, device=device) % period
    return torch.where(index < size, index, period - index)


Pooling = Literal["Avg", "Max", "Avg|Max"]


class ChannelGate(nn.Module):
    """Multiply each channel by a weight in (0, 1) made from its mean and maximum over the image (the paper's CLAM).

    forward maps (B, C, H, W) to the same shape; C must be at least `ratio`. DCLS's channel attention is the mean's half, with biases.
    """

    def __init__(self, channels: int, ratio: int = 16, pooling: Pooling = "Avg|Max", bias: bool = False) -> None:
        super().__init__()
        if channels < ratio:
            raise UserError(
                f"a channel gate of ratio {ratio} was asked for {channels} channels; it needs at least {ratio}: widen the network."
            )
        self.pooling = pooling
        self.squeeze = nn.Conv2d(channels, channels // ratio, 1, bias=bias)
        self.excite = nn.Conv2d(channels // ratio, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.zeros((), dtype=x.dtype, device=x.device)
        if "Avg" in self.pooling:
            weights = weights + self.excite(F.relu(self.squeeze(x.mean(dim=(-2, -1), keepdim=True))))
        if "Max" in self.pooling:
            weights = weights + self.excite(F.relu(self.squeeze(x.amax(dim=(-2, -1), keepdim=True))))
        return x * weights.sigmoid()


class PixelGate(nn.Module):
    """Multiply each pixel by a weight in (0, 1) made from the mean and maximum over its channels (the paper's SLAM)."""

    def __init__(self, pooling: Pooling = "Avg|Max") -> None:
        super().__init__()
        self.pooling = pooling
        self.conv = nn.Conv2d(len(pooling.split("|")), 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        if "Avg" in self.pooling:
            maps.append(x.mean(dim=1, keepdim=True))
        if "Max" in self.pooling:
            maps.append(x.amax(dim=1, keepdim=True))
        return x * self.conv(torch.cat(maps, dim=1)).sigmoid()


def positional_embedding(noise_level: Tensor, width: int, endpoint: bool) -> Tensor:
    """Return (B, width) [cos, sin] of noise_level (B,) times frequencies that fall geometrically from 1.

    endpoint  the last frequency is 1/10000 (DDPM++); otherwise the one after the last would be (ADM)
    Source: Vaswani et al. 2017; EDM, app. F.6.
    """
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=noise_level.device) / (half - (1 if endpoint else 0))
    angles = noise_level.outer((10000**-exponent).to(noise_level.dtype))
    return torch.cat([angles.cos(), angles.sin()], dim=1)
