"""Energy by octave of frequency."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.metrics.metric import View
from rsdiff.metrics.octaves import OCTAVES, energy_share, octave_energies
from rsdiff.metrics.protocol import ProtocolConfig


def wave(cycles_per_pixel: float, side: int = 128) -> Tensor:
    return 0.5 + 0.2 * torch.sin(2 * math.pi * cycles_per_pixel * torch.arange(side)).expand(3, side, side)


def view(image: Tensor, hr: Tensor, valid: Tensor | None = None) -> View:
    return View(image, hr, None, valid, 4.0, ProtocolConfig(quantise="none"))


@pytest.mark.parametrize(("cycles", "octave"), [(0.35, 0), (0.18, 1), (0.09, 2)])
def test_a_wave_lies_in_its_octave(cycles: float, octave: int) -> None:
    energies = octave_energies(wave(cycles))
    assert float(energies[octave] / energies.sum()) > 0.999


def test_white_noise_has_three_quarters_of_its_plane_in_the_finest_octave() -> None:
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    energies = octave_energies(noise)
    outside = 1 - math.pi * 0.25**2  # of the plane of frequencies, of area 1
    expected = torch.tensor([outside, math.pi * (0.25**2 - 0.125**2), math.pi * (0.125**2 - 0.0625**2)], dtype=torch.float64)
    torch.testing.assert_close(energies / energies.sum(), expected / expected.sum(), rtol=0.1, atol=0)  # chance: 4 %


def test_contrast_counts_squared_and_the_mean_does_not() -> None:
    hr = torch.rand(3, 65, 48, generator=torch.Generator().manual_seed(0))
    for octave in range(OCTAVES):
        assert energy_share(view(0.1 + 0.5 * hr, hr), octave) == pytest.approx(0.25, rel=1e-4)


def test_enlarging_loses_the_finest_octave() -> None:
    hr = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    low = torch.nn.functional.avg_pool2d(hr, 4)
    enlarged = torch.nn.functional.interpolate(low[None], size=(64, 64), mode="bicubic")[0]
    assert energy_share(view(enlarged, hr), 0) < 0.02 < 0.2 < energy_share(view(enlarged, hr), 2)


def test_missing_pixels_and_small_images_are_refused() -> None:
    hr = torch.rand(1, 32, 32)
    valid = torch.ones_like(hr, dtype=torch.bool)
    valid[0, 3, 4] = False
    with pytest.raises(UserError, match="missing pixels"):
        energy_share(view(hr, hr, valid), 0)
    with pytest.raises(UserError, match="16x16"):
        octave_energies(hr[:, :8])
