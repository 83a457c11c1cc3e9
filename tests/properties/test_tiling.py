"""Tiles of a scene: weights, coverage, blending."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsdiff.inference.tiling import Axis, Grid, exact_scale, tile_multiple


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    scale = draw(st.sampled_from([Fraction(1), Fraction(2), Fraction(4), Fraction(3, 2)]))
    unit = scale.denominator
    tile = unit * draw(st.integers(1, 12))
    return Axis(draw(st.integers(1, 60)), tile, unit * draw(st.integers(0, tile // unit // 2)), scale)


@given(axes())
def test_weights_are_nowhere_zero_and_sum_to_one_on_every_pixel(axis: Axis) -> None:
    total = np.zeros(axis.target_start(axis.count - 1) + axis.target_tile)
    for index in range(axis.count):
        weights = axis.weights(index)
        assert weights.min() > 0
        total[axis.target_start(index) :][: axis.target_tile] += weights
    assert len(total) >= axis.target_length
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(axes(), st.data())
def test_covering_names_exactly_the_tiles_that_hold_a_pixel_of_the_stretch(axis: Axis, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, axis.target_length - 1))
    last = data.draw(st.integers(first + 1, axis.target_length))
    starts = [axis.target_start(index) for index in range(axis.count)]
    expected = [index for index, start in enumerate(starts) if start < last and start + axis.target_tile > first]
    assert list(axis.covering(first, last)) == expected


@settings(max_examples=25)
@given(axes(), axes(), st.integers(8, 40))
def test_tiles_cut_from_an_image_blend_to_that_image(rows: Axis, columns: Axis, block: int) -> None:
    grid = Grid(rows, columns, block)
    extent = [axis.target_start(axis.count - 1) + axis.target_tile for axis in (rows, columns)]
    image = np.random.default_rng(0).random((2, *extent), np.float32)

    def tile(number: int) -> np.ndarray:
        row, column = grid.place(number)
        top, left = rows.target_start(row), columns.target_start(column)
        return image[:, top : top + rows.target_tile, left : left + columns.target_tile]

    for number in range(grid.blocks):
        top, left, height, width = grid.extent(number)
        blended = grid.blend(number, [tile(index) for index in grid.tiles_of(number)])
        np.testing.assert_allclose(blended, image[:, top : top + height, left : left + width], atol=1e-6)


def test_fractional_scales_ask_for_tiles_of_whole_target_pixels() -> None:
    assert exact_scale(2.5) == Fraction(5, 2)
    assert tile_multiple(4, Fraction(5, 2)) == 4
    assert tile_multiple(3, Fraction(5, 2)) == 6
    with pytest.raises(ValueError, match="no fraction with a small denominator"):
        exact_scale(3.14159)
