"""Which tile a scene is cut into where the user names none."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.inference.memory import Growth, best_tile, measured_growth
from rsdiff.inference.tiling import Axis, even_side

SIDES = range(16, 513, 8)
NO_LIMIT = 1e18


def overlap(side: int) -> int:
    return min(16, side // 2)


@pytest.mark.parametrize(("per_pixel", "per_pair"), [(3.0, 0.0), (5.0, 0.25), (0.0, 2.0)])
def test_two_sides_tell_how_costs_grow(per_pixel: float, per_pair: float) -> None:
    true = Growth(per_pixel, per_pair)
    found = Growth.through((16, true.of(16)), (32, true.of(32)))
    assert found.per_pixel == pytest.approx(per_pixel, abs=1e-9)
    assert found.per_pair == pytest.approx(per_pair)


def convolutions(side: int) -> Tensor:
    return nn.Conv2d(3, 8, 3, padding=1)(torch.zeros(1, 3, side, side))


def attention(side: int) -> Tensor:
    tokens = torch.zeros(1, 1, side * side, 16)
    weights = (tokens @ tokens.transpose(-1, -2)).softmax(-1)
    return F.conv2d(torch.zeros(1, 3, side, side), torch.zeros(64, 3, 9, 9), padding=4).mean() + (weights @ tokens)


def test_convolutions_take_the_largest_tile_that_fits() -> None:
    needs, works = measured_growth(convolutions, (16, 32))
    assert works.per_pair == 0
    assert best_tile(SIDES, NO_LIMIT, needs, works, overlap) == 512
    assert best_tile(SIDES, needs.of(200), needs, works, overlap) == 200


def test_attention_over_the_tile_takes_a_smaller_one_whose_memory_is_foreseen() -> None:
    needs, works = measured_growth(attention, (16, 32))
    assert 64 <= best_tile(SIDES, NO_LIMIT, needs, works, overlap) < 200
    at_48, _ = measured_growth(attention, (16, 48))
    assert needs.of(48) == pytest.approx(at_48.of(48), rel=0.1)


def test_where_little_fits_tiles_become_small() -> None:
    needs, works = Growth(1.0, 0.0), Growth(1.0, 0.0)
    assert best_tile(SIDES, 32**2, needs, works, overlap) == 32
    assert best_tile(SIDES, 1, needs, works, overlap) == 16


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize(("side", "shared"), [(64, 0), (128, 16), (256, 16), (256, 128)])
def test_tiles_of_an_even_side_are_as_many_and_reach_hardly_beyond_the_scene(side: int, shared: int, multiple: int) -> None:
    for length in (1, side - 1, side, side + 1, 300, 512, 600, 1000, 2048, 10980):
        even = even_side(length, side, shared, multiple)
        plain, tiles = (Axis(length, one, shared, Fraction(4)) for one in (side, even))
        assert tiles.count == plain.count
        assert even % multiple == 0
        assert even <= side
        assert tiles.start(tiles.count - 1) + even >= min(length, even)
        beyond = tiles.start(tiles.count - 1) + even - length
        assert beyond < tiles.count * multiple or even in (multiple, 2 * shared)
