"""Blocks of a restored scene as they are written: blended from tiles, in stored units and the raster's type, missing where the input is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsdiff.data.normalisation import Normaliser
from rsdiff.inference.scene_input import SceneReader
from rsdiff.inference.scene_output import BLOCK, OutputForm
from rsdiff.inference.tiling import Grid


@dataclass(frozen=True)
class BlockMaker:
    """Makes the blocks of all outputs.

    bands          bands of the restored tiles
    written_bands  bands that are written: 1 where a scene of one band was shown to the model several times
    forms          'restored' and, where several restorations are drawn, 'spread' and, where they are calibrated, 'interval'
    half_width     makes half the width of an interval of a spread, both in stored units
    """

    reader: SceneReader
    grid: Grid
    scale: Fraction
    normaliser: Normaliser
    bands: int
    written_bands: int
    forms: Mapping[str, OutputForm]
    half_width: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def finished(self, block: int, read_tiles: Callable[[], Sequence[NDArray[np.float32]]]) -> dict[str, NDArray[Any]]:
        """Return the block of every output, in its type, padded to (stored_bands, BLOCK, BLOCK).

        read_tiles  returns the tiles (samples, bands, target_tile, target_tile) that the block needs; not called for a block of which no
                    pixel is valid
        """
        valid, alpha = self._valid(block)
        if not valid.any():
            return self._empty(valid, alpha)
        drawn = [self.normaliser.restore(sample) for sample in self.grid.blend(block, read_tiles())]  # each (C, h, w) in stored units
        if self.reader.is_repeated:
            drawn = [sample.mean(axis=0, keepdims=True) for sample in drawn]
        images = {"restored": self._stored(drawn[0] if len(drawn) == 1 else np.mean(drawn, axis=0), valid, alpha)}
        if "spread" in self.forms:
            spread = np.std(drawn, axis=0, ddof=1)
            images["spread"] = _padded(self.forms["spread"].convert(spread, valid))
            if "interval" in self.forms:
                images["interval"] = _padded(self.forms["interval"].convert(self.half_width(spread), valid))
        return images

    def _empty(self, valid: NDArray[np.bool_], alpha: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return a block without any valid pixel: missing where that can be said, else the range's 0."""
        nothing = self.normaliser.restore(np.zeros((self.bands, 1, 1), np.float32))
        if self.reader.is_repeated:
            nothing = nothing.mean(axis=0, keepdims=True)
        images = {"restored": self._stored(np.broadcast_to(nothing, (len(nothing), *valid.shape[1:])), valid, alpha)}
        images |= {name: _padded(form.convert(np.zeros(valid.shape), valid)) for name, form in self.forms.items() if name != "restored"}
        return images

    def _stored(self, drawn: NDArray[np.float64], valid: NDArray[np.bool_], alpha: NDArray[Any]) -> NDArray[Any]:
        """Return a block of the restored raster in its type, padded, with its alpha band and mask.

        drawn  (C, h, w) in stored units
        """
        form = self.forms["restored"]
        values = form.convert(drawn, valid)
        if form.has_alpha:
            opaque = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
            own = alpha if self.reader.alpha is not None else valid.all(axis=0, keepdims=True) * opaque
            values = np.concatenate([values, own.astype(values.dtype)])
        if form.has_mask:
            values = np.concatenate([values, valid.all(axis=0, keepdims=True).astype(values.dtype)])
        return _padded(values)

    def _valid(self, block: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Return which pixels (C, h, w) of a block are valid, and its alpha band (1, h, w), if any: those of the input pixel."""
        reader, scale = self.reader, self.scale
        top, left, height, width = self.grid.extent(block)
        rows, columns = _sources(top, height, scale, reader.height), _sources(left, width, scale, reader.width)
        window = (int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1)
        where = np.ix_(rows - rows[0], columns - columns[0])
        valid: NDArray[np.bool_] = np.ones((self.written_bands, height, width), np.bool_)
        if reader.marks_missing:
            of_input: NDArray[np.bool_] = reader.read(*window)[1]
            if len(of_input) != self.written_bands:
                of_input = np.asarray(of_input.all(axis=0, keepdims=True))
            np.logical_and(valid, np.stack([band[where] for band in of_input]), out=valid)
        alpha = reader.alpha_values(*window)[0][where][None] if reader.alpha is not None else np.empty((0, height, width))
        return valid, alpha


def _sources(first: int, count: int, scale: Fraction, length: int) -> NDArray[np.int64]:
    """Return the input pixel under the centre of each of `count` target pixels from `first` on."""
    positions = ((2 * np.arange(first, first + count) + 1) * scale.denominator) // (2 * scale.numerator)
    return np.minimum(positions, length - 1)


def _padded(values: NDArray[Any]) -> NDArray[Any]:
    """Return a block (C, h, w) at its full size."""
    return np.pad(values, ((0, 0), (0, BLOCK - values.shape[1]), (0, BLOCK - values.shape[2])))
