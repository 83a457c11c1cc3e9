"""Random numbers by counters: the same bits everywhere, and statistics of the distributions they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rsdiff.diffusion import noise as counter_random
from rsdiff.diffusion.noise import SeededNoise, TileNoise

COUNT = 400_000


def splitmix(counter: int) -> int:
    """SplitMix64's output for a counter, in exact integers."""
    mask = 2**64 - 1
    z = counter & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def counters(count: int, state: int = 12345) -> torch.Tensor:
    return torch.arange(count) * counter_random.STEP + state


def test_hashes_are_those_of_exact_integers() -> None:
    values = counters(50, -99)
    expected = [splitmix(int(value)) for value in values]
    assert [int(value) % 2**64 for value in counter_random.mixed(values.clone())] == expected


def test_normals_are_exact_sums_of_two_quantiles() -> None:
    """What makes devices agree to the last bit: words of exact integers, and sums that float64 finds too."""
    first, second = counters(500), counters(500, 77)
    table = counter_random.quantiles(torch.device("cpu")).double()
    assert torch.equal((table * 2**20).round(), table * 2**20)
    values = counter_random.normals(torch.stack([first[:1], second[:1]]), 500)[0]
    for index in range(500):
        words = [[(splitmix(int(of[index])) >> 16 * k & 0xFFFF) ^ 0x8000 for k in range(4)] for of in (first, second)]
        expected = [float(table[a] + table[b]) for a, b in zip(*words, strict=True)]
        assert values[index].tolist() == expected


def test_the_table_has_the_moments_of_the_normal() -> None:
    table = counter_random.quantiles(torch.device("cpu")).double() * 2**0.5
    second, fourth = float((table**2).mean()), float((table**4).mean())
    assert second == pytest.approx(1, abs=1e-6)
    assert fourth + 3 == pytest.approx(6, abs=8e-4)  # the sum of two has (fourth + 3) / 2
    assert float(table.sum()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("chunk", [7, 130])
def test_chunks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Parts of a line, and several lines together."""
    lines = counters(20, 5).view(2, 10) * 99
    whole = counter_random.normals(lines, 50)
    monkeypatch.setattr(counter_random, "CHUNK", chunk)
    halves = torch.stack([lines[0], lines[0] + counter_random.wrapped(50 * counter_random.STEP)])
    assert torch.equal(counter_random.normals(lines[:1], 50), counter_random.normals(halves, 50))
    assert torch.equal(counter_random.normals(lines, 50), whole)


def draws(kind: str) -> np.ndarray:
    seeded = SeededNoise([(1, "image")])
    tiled = TileNoise((1, "scene"), [(0, 0)], (500, 400))
    source, shape = {"seeded": (seeded, (1, COUNT)), "tiled": (tiled, (1, 2, 500, 400))}[kind]
    return source.normal(shape).double().flatten().numpy()


@pytest.mark.parametrize("kind", ["seeded", "tiled"])
def test_normals_have_the_normal_distribution(kind: str) -> None:
    sample = draws(kind)
    assert stats.kstest(sample, "norm").pvalue > 1e-3
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert np.mean(sample**power) == pytest.approx(moment, abs=4 * math.sqrt(variance / sample.size))
    tails = 2 * stats.norm.sf(4) * sample.size
    assert np.count_nonzero(np.abs(sample) > 4) == pytest.approx(tails, abs=4 * math.sqrt(tails))
    # Values and squares of neighbours: words of one hash, and the same word of the next.
    for lag in (*range(1, 20), COUNT // 2):
        for values in (sample, sample**2 - 1):
            moved = np.roll(values, lag)
            assert abs(np.corrcoef(values, moved)[0, 1]) < 4.5 / math.sqrt(sample.size)


def test_images_draws_and_their_order_are_independent() -> None:
    source = SeededNoise([(0, "a"), (0, "b"), (1, "a")])
    first, second = source.normal((3, 20000)), source.normal((3, 20000))
    correlation = torch.corrcoef(torch.cat([first, second]))
    assert float((correlation - torch.eye(6)).abs().max()) < 5 / math.sqrt(20000)


@pytest.mark.parametrize("shape", [(4,), (4, 1, 1, 1), (4, 3, 5, 7), (4, 0)])
def test_an_image_does_not_depend_on_its_batch(shape: tuple[int, ...]) -> None:
    keys = [(7, "train", 0, index) for index in range(4)]
    for draw in ("normal", "uniform"):
        together = getattr(SeededNoise(keys), draw)(shape)
        assert together.shape == shape
        apart = [getattr(SeededNoise([key]), draw)((1, *shape[1:])) for key in keys]
        assert torch.equal(together, torch.cat(apart))


def test_uniforms_and_integers_fill_their_ranges() -> None:
    source = SeededNoise([(3, "image")])
    uniform = source.uniform((1, COUNT)).double().numpy()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    counts = np.bincount(source.integers(5, 12, (1, COUNT)).numpy().ravel(), minlength=12)
    assert counts[:5].sum() == 0
    assert stats.chisquare(counts[5:]).pvalue > 1e-3
    shared = {source.shared_integer(3, 6) for _ in range(60)}
    assert shared == {3, 4, 5}
