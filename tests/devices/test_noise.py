"""Noise on the pretended accelerator, which has no NumPy: the numbers are those of a processor."""

import pytest
import torch

from rsdiff.diffusion.noise import SeededNoise, TileNoise
from tests.devices.pretended import PretendedAccelerator, device


@pytest.mark.parametrize("shape", [(2, 3, 16, 24), (2, 13, 8, 8), (2, 7)])
def test_a_device_without_numpy_draws_the_same_numbers(shape: tuple[int, ...]) -> None:
    size = (shape[2], shape[3]) if len(shape) == 4 else (8, 8)
    for source in (lambda: SeededNoise([(1, 0), (1, 1)]), lambda: TileNoise((1, "scene"), [(-8, 16), (8, 24)], size)):
        here, there = source(), source()
        wanted = here.normal(shape), here.uniform(shape), here.integers(0, 9, shape)
        with PretendedAccelerator():
            found = there.normal(shape, device()), there.uniform(shape, device()), there.integers(0, 9, shape, device())
            found = tuple(values.cpu() for values in found)
        for one, other in zip(wanted, found, strict=True):
            assert torch.equal(one, other)
