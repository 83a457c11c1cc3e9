"""Noise keyed by scene position: what tiles see does not depend on how the scene is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsdiff.diffusion.noise import TileNoise

KEY = (3, "restore", "scene")
positions = st.integers(-50, 5000)
sides = st.integers(1, 12)


@settings(max_examples=40, deadline=None)
@given(row=positions, column=positions, height=sides, width=sides, down=sides, right=sides)
def test_overlapping_tiles_see_the_same_noise(row: int, column: int, height: int, width: int, down: int, right: int) -> None:
    scene = TileNoise(KEY, [(row, column)], (height + down, width + right))
    tile = TileNoise(KEY, [(row + down, column + right)], (height, width))
    for draw in ("normal", "uniform", "normal"):  # also in later draws
        whole = getattr(scene, draw)((1, 3, height + down, width + right))
        assert torch.equal(whole[:, :, down:, right:], getattr(tile, draw)((1, 3, height, width)))


@settings(max_examples=20, deadline=None)
@given(origins=st.lists(st.tuples(positions, positions), min_size=1, max_size=4))
def test_a_tile_does_not_depend_on_its_batch(origins: list[tuple[int, int]]) -> None:
    together = TileNoise(KEY, origins, (5, 7)).normal((len(origins), 2, 5, 7))
    for index, origin in enumerate(origins):
        assert torch.equal(together[index : index + 1], TileNoise(KEY, [origin], (5, 7)).normal((1, 2, 5, 7)))


def test_draws_keys_channels_and_positions_are_independent_normals() -> None:
    source = TileNoise(KEY, [(0, 0)], (128, 128))
    first, second = source.normal((1, 2, 128, 128)), source.normal((1, 2, 128, 128))
    other = TileNoise((4, *KEY[1:]), [(0, 0)], (128, 128)).normal((1, 2, 128, 128))
    reference = first[0, 0]
    fields = [reference, first[0, 1], second[0, 0], other[0, 0], reference.roll(1, 0), reference.roll(1, 1), reference.T]
    correlation = torch.corrcoef(torch.stack([field.flatten() for field in fields]).double())
    assert float((correlation - torch.eye(len(fields))).abs().max()) < 5 / 128  # five standard errors
    sample = torch.cat([first.flatten(), second.flatten()]).double()
    error = len(sample) ** -0.5
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert float((sample**power).mean()) == pytest.approx(moment, abs=5 * 11 * error)
    assert float(sample.abs().max()) < 6


def test_uniforms_fill_the_unit_interval_and_integers_their_range() -> None:
    source = TileNoise(KEY, [(0, 0)], (64, 64))
    uniform = source.uniform((1, 3, 64, 64))
    assert 0 <= float(uniform.min()) < 0.001
    assert 0.999 < float(uniform.max()) < 1
    integers = source.integers(5, 9, (1, 1, 64, 64))
    assert torch.bincount(integers.flatten(), minlength=9)[5:].min() > 900


def test_latents_are_keyed_by_their_own_grid() -> None:
    scene = TileNoise(KEY, [(0, 0)], (64, 64)).normal((1, 4, 16, 16))
    tile = TileNoise(KEY, [(32, 16)], (32, 32)).normal((1, 4, 8, 8))
    assert torch.equal(scene[:, :, 8:16, 4:12], tile)


def test_an_extended_tile_keeps_the_noise_of_its_pixels() -> None:
    plain = TileNoise(KEY, [(9, 9)], (10, 10)).normal((1, 1, 10, 10))
    extended = TileNoise(KEY, [(9, 9)], (10, 10)).normal((1, 1, 16, 16))
    assert torch.equal(extended[:, :, :10, :10], plain)


def test_draws_without_position_are_the_same_for_every_tile() -> None:
    source = TileNoise(KEY, [(0, 0), (100, 0)], (8, 8))
    values = source.uniform((2, 5))
    assert torch.equal(values[0], values[1])
    assert len(set(values[0].tolist())) == 5
    assert 3 <= source.shared_integer(3, 6) < 6


def test_latents_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of the model's pixel multiple"):
        TileNoise(KEY, [(6, 0)], (32, 32)).normal((1, 4, 8, 8))
    with pytest.raises(ValueError, match="2 tiles"):
        TileNoise(KEY, [(0, 0), (0, 8)], (8, 8)).normal((1, 1, 8, 8))
