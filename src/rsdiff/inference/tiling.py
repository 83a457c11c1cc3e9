"""How a scene is cut into overlapping tiles and put together again.

Tiles of one size begin at multiples of a stride; the last one may reach beyond the scene. A pixel lies in at most two tiles per axis, and
its weights, nowhere zero, sum to one. A sum of two terms does not depend on their order, and rows are blended after columns, so a blended
pixel is the same to the last bit in whatever order tiles are restored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rsdiff.config import UserError

LARGEST_DENOMINATOR = 64


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of a scene.

    length   pixels of the input
    tile     side of a tile in input pixels
    overlap  pixels that neighbouring tiles share, at most half a tile
    scale    target pixels per input pixel; tile, overlap and so every beginning are whole numbers of target pixels
    """

    length: int
    tile: int
    overlap: int
    scale: Fraction

    def __post_init__(self) -> None:
        assert 0 <= 2 * self.overlap <= self.tile
        assert (self.tile * self.scale).denominator == (self.overlap * self.scale).denominator == 1

    @cached_property
    def stride(self) -> int:
        return self.tile - self.overlap

    @cached_property
    def count(self) -> int:
        """Number of tiles."""
        return max(1, math.ceil((self.length - self.overlap) / self.stride))

    @cached_property
    def target_length(self) -> int:
        """Pixels of the target."""
        return round(self.length * self.scale)

    @cached_property
    def target_tile(self) -> int:
        """Side of a tile in target pixels."""
        return int(self.tile * self.scale)

    def start(self, index: int) -> int:
        """Return the first input pixel of a tile."""
        return index * self.stride

    def target_start(self, index: int) -> int:
        """Return the first target pixel of a tile."""
        return int(index * self.stride * self.scale)

    def weights(self, index: int) -> NDArray[np.float32]:
        """Return a tile's weight (target_tile,): 1 inside, a raised cosine where it meets a neighbour, complementary to the neighbour's."""
        weights = np.ones(self.target_tile, np.float32)
        width = int(self.overlap * self.scale)
        if width:
            rise = (np.sin(np.pi / 2 * (np.arange(width) + 0.5) / width) ** 2).astype(np.float32)
            if index > 0:
                weights[:width] = rise
            if index < self.count - 1:
                weights[-width:] = 1 - rise
        return weights

    def covering(self, first: int, last: int) -> range:
        """Return the tiles that hold some of the target pixels first..last-1."""
        stride = int(self.stride * self.scale)
        lowest = max(0, (first - self.target_tile) // stride + 1)
        return range(lowest, min(self.count, (last - 1) // stride + 1))

    def borders(self) -> tuple[int, ...]:
        """Return the target pixels at which a tile begins or has ended, inside the scene: where a seam would show."""
        places = [self.target_start(index) for index in range(1, self.count)]
        places += [self.target_start(index) + self.target_tile for index in range(self.count - 1)]
        return tuple(sorted({place for place in places if 0 < place < self.target_length}))


def even_side(length: int, side: int, overlap: int, multiple: int) -> int:
    """Return the smallest side, a multiple of `multiple`, with which as many tiles as with `side` still cover `length` pixels.

    What the last tile has beyond the scene is work for nothing: twice the scene's own at 300 pixels in tiles of 256.
    """
    count = max(1, math.ceil((length - overlap) / (side - overlap)))
    even = rounded_up(math.ceil((length + (count - 1) * overlap) / count), multiple)
    return min(side, max(even, rounded_up(2 * overlap, multiple)))


@dataclass(frozen=True)
class Grid:
    """Tiles of a scene, numbered row by row, and the blocks in which the result is written, numbered likewise.

    block  side of a block in target pixels
    """

    rows: Axis
    columns: Axis
    block: int

    @cached_property
    def size(self) -> tuple[int, int]:
        """(H, W) of the target."""
        return self.rows.target_length, self.columns.target_length

    @cached_property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.rows.count * self.columns.count

    @cached_property
    def block_columns(self) -> int:
        return -(-self.size[1] // self.block)

    @cached_property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.size[0] // self.block) * self.block_columns

    def place(self, tile: int) -> tuple[int, int]:
        """Return (row, column) of a tile in the grid."""
        return divmod(tile, self.columns.count)

    def extent(self, block: int) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of a block in target pixels."""
        row, column = divmod(block, self.block_columns)
        top, left = row * self.block, column * self.block
        return top, left, min(self.block, self.size[0] - top), min(self.block, self.size[1] - left)

    def tiles_of(self, block: int) -> list[int]:
        """Return the tiles that a block needs."""
        top, left, height, width = self.extent(block)
        columns = self.columns.covering(left, left + width)
        return [row * self.columns.count + column for row in self.rows.covering(top, top + height) for column in columns]

    def blend(self, block: int, tiles: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the pixels (..., height, width) of a block from its tiles (..., target_tile, target_tile), in the order of `tiles_of`."""
        top, left, height, width = self.extent(block)
        result = np.zeros((*tiles[0].shape[:-2], height, width), np.float32)
        columns = self.columns.covering(left, left + width)
        given = iter(tiles)
        for row in self.rows.covering(top, top + height):
            source_rows, own_rows = _shared(self.rows, row, top, height)
            strip = np.zeros((*result.shape[:-2], own_rows.stop - own_rows.start, width), np.float32)
            for column in columns:
                source_columns, own_columns = _shared(self.columns, column, left, width)
                weights = self.columns.weights(column)[source_columns]
                strip[..., own_columns] += weights * next(given)[..., source_rows, source_columns]
            result[..., own_rows, :] += self.rows.weights(row)[source_rows, None] * strip
        return result


def _shared(axis: Axis, index: int, first: int, length: int) -> tuple[slice, slice]:
    """Return where a tile and the stretch first..first+length-1 meet: as pixels of the tile and of the stretch."""
    start = axis.target_start(index)
    low, high = max(start, first), min(start + axis.target_tile, first + length)
    return slice(low - start, high - start), slice(low - first, high - first)


def exact_scale(scale: float) -> Fraction:
    """Return the scale as a fraction; raises UserError where tiles could not begin at whole target pixels."""
    fraction = Fraction(scale).limit_denominator(LARGEST_DENOMINATOR)
    if abs(float(fraction) - scale) > 1e-6 * scale:
        raise UserError(f"scale={scale} is no fraction with a small denominator; choose scale={float(fraction):.6g} to restore scenes.")
    return fraction


def tile_multiple(pixel_multiple: int, scale: Fraction, target_multiple: int = 1) -> int:
    """Return what tile sides and overlaps must be multiples of, in input pixels, for both multiples to hold (see Method)."""
    multiple = math.lcm(pixel_multiple, scale.denominator)
    target = int(multiple * scale)
    return multiple * (target_multiple // math.gcd(target, target_multiple))


def rounded_up(length: int, multiple: int) -> int:
    """Return the smallest multiple that is at least `length`."""
    return -(-length // multiple) * multiple
