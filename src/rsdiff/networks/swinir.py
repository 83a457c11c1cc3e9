"""SwinIR as an encoder: LR image to LR feature map by attention in shifted windows, without enlargement (LIIF, LTE, LMF, CiaoSR)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.config import UserError, config
from rsdiff.data.transfer import to_device
from rsdiff.networks.layers import reflect_to

UNSEEN = -100.0  # added to the scores of cells that a cyclic shift has put into one window


@config
class SwinIRConfig:
    """SwinIR without its upsampler; the defaults are the encoder of LTE and LMF."""

    width: int = 180
    """Channels of every layer but the last."""
    depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    """Transformer blocks of each group."""
    heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    """Attention heads of each group's blocks."""
    window: int = 8
    """Side of the windows; images are extended to multiples of it."""
    mlp_ratio: float = 2.0
    """Width of the MLPs' hidden layer in units of `width`."""
    out_channels: int = 64
    """Channels of the result, by a convolution at the end; 0 leaves `width` channels without it (CiaoSR)."""
    drop_path: float = 0.1
    """Probability in training that an image skips the last block; it rises linearly from 0 at the first."""
    mirror: bool = True
    """Extend the image that is restored by mirroring, by at least a pixel, and keep the features there (`--window` of LTE and LMF)."""

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.heads) or not self.depths:
            raise UserError(f"depths={list(self.depths)} and heads={list(self.heads)} were given; give one of either for each group.")
        if any(self.width % heads for heads in self.heads):
            raise UserError(f"width={self.width} cannot be split into heads={list(self.heads)}; choose divisors of the width.")
        if self.window < 2 or not 0 <= self.drop_path < 1:
            raise UserError(f"window={self.window} and drop_path={self.drop_path} were given; choose at least 2, and 0 to less than 1.")

    def build(self, in_channels: int) -> SwinIR:
        """Return the encoder with fresh weights."""
        return SwinIR(self, in_channels)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for every relative position."""

    positions: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.bias_table = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02))
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        with torch.device("cpu"):  # numbers, not weights, also where parameters are made on the meta device
            self.register_buffer("positions", relative_positions(window), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, windows, cells, width) to the same shape; `mask` (windows, cells, cells) is added to the scores."""
        query, key, value = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias_table[self.positions].permute(2, 0, 1)
        added = bias if mask is None else bias + mask[:, None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=added.to(query.dtype).expand(len(x), x.shape[1], -1, -1, -1))
        return self.out(attended.transpose(2, 3).flatten(3))


class SwinBlock(nn.Module):
    """Attention in windows, shifted by `shift` cells, then an MLP; both normalised before and added to their input."""

    def __init__(self, width: int, heads: int, window: int, shift: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.window, self.shift, self.drop_path = window, shift, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.mlp = nn.Sequential(nn.Linear(width, int(width * mlp_ratio)), nn.GELU(), nn.Linear(int(width * mlp_ratio), width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, width) to the same shape; H and W are multiples of the window."""
        x = x + self._kept(self._attended(self.norm1(x)))
        return x + self._kept(self.mlp(self.norm2(x)))

    def _attended(self, x: Tensor) -> Tensor:
        H, W = x.shape[1:3]
        shift = self.shift  # also where the image is a single window: the published code decides by a nominal size
        mask = to_device(shift_mask((H, W), self.window, shift), x.device) if shift else None
        moved = x.roll((-shift, -shift), dims=(1, 2)) if shift else x
        attended = self.attention(_windows(moved, self.window), mask)
        joined = attended.unflatten(1, (H // self.window, -1)).unflatten(3, (self.window, -1)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return joined.roll((shift, shift), dims=(1, 2)) if shift else joined

    def _kept(self, x: Tensor) -> Tensor:
        """Return x, in training 0 for some images and more for the others."""
        return x * F.dropout(x.new_ones(len(x), 1, 1, 1), self.drop_path, self.training)


class SwinGroup(nn.Module):
    """Blocks, shifted every other time, and a convolution; added to the input."""

    def __init__(self, blocks: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, width) to the same shape."""
        return x + self.conv(self.blocks(x).movedim(-1, 1)).movedim(1, -1)


class SwinIR(nn.Module):
    """forward maps images (B, in_channels, h, w) to features (B, out_channels, h, w).

    Source: SwinIR (Liang et al., 2021) in jaewon-lee-b/lte, models/swinir.py, no_upsampling. There, features keep the extension.
    """

    def __init__(self, options: SwinIRConfig, in_channels: int) -> None:
        super().__init__()
        self.options = options
        width = options.width
        self.out_channels = options.out_channels or width
        drops = iter(torch.linspace(0, options.drop_path, sum(options.depths), device="cpu").tolist())
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.groups = nn.ModuleList(
            SwinGroup(
                [
                    SwinBlock(width, heads, options.window, block % 2 * (options.window // 2), options.mlp_ratio, next(drops))
                    for block in range(depth)
                ],
                width,
            )
            for depth, heads in zip(options.depths, options.heads, strict=True)
        )
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, options.out_channels, 3, padding=1) if options.out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        return self.extended(x)[..., :h, :w]

    def extended(self, x: Tensor) -> Tensor:
        """Return the features of x extended by reflection to multiples of the window, extension included."""
        window = self.options.window
        x = self.head(reflect_to(x, *(-(-side // window) * window for side in x.shape[-2:])))
        tokens = self.norm_in(x.movedim(1, -1))
        for group in self.groups:
            tokens = group(tokens)
        x = x + self.tail(self.norm_out(tokens).movedim(-1, 1))
        return x if self.last is None else F.leaky_relu(self.last(x), 0.01, inplace=True)


def _windows(x: Tensor, window: int) -> Tensor:
    """Return (B, windows, window^2, C) of x (B, H, W, C)."""
    return x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def relative_positions(window: int) -> Tensor:
    """Return (window^2, window^2) int64: row of the bias table for every pair of cells of a window."""
    rows, columns = (axis.flatten() for axis in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    down, right = rows[:, None] - rows, columns[:, None] - columns
    return (down + window - 1) * (2 * window - 1) + right + window - 1


def shift_mask(size: tuple[int, int], window: int, shift: int) -> Tensor:
    """Return (windows, window^2, window^2): 0 between cells that were neighbours before the shift, UNSEEN between others."""
    rows, columns = (torch.bucketize(torch.arange(side), torch.tensor([side - window, side - shift]), right=True) for side in size)
    labels = _windows((3 * rows[:, None] + columns)[None, :, :, None], window)[0, :, :, 0]
    return torch.where(labels[:, None] == labels[:, :, None], 0.0, UNSEEN)
