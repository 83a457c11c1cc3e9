"""Tiles that are sampled together keep a common state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rsdiff.diffusion.fusion import FusedTileNoise
from rsdiff.diffusion.noise import TileNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.solvers import per_image

SIDE, OVERLAP = 16, 6
STRIDE = SIDE - OVERLAP
ORIGINS = [(row, column) for row in (0, STRIDE) for column in (0, STRIDE)]


class PerTile:
    """Shrinks towards a value of its own for every tile of the batch: tiles disagree wherever they overlap."""

    sigma_min, sigma_max, table, data_range = 0.01, 10.0, None, None

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        share = 1 / (1 + per_image(sigma.expand(len(y)), y).square())
        return share * y + (1 - share) * self.values[:, None, None, None].to(y)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma


SAMPLER = SamplerConfig(solver="ddim", eta=1.0, steps=6, grid="edm", sigma_min=0.01, sigma_max=10.0, start="edm")


def fused(groups: int = 1) -> FusedTileNoise:
    return FusedTileNoise((0, "test"), ORIGINS * groups, (SIDE, SIDE), len(ORIGINS), OVERLAP)


def test_overlapping_tiles_end_in_the_same_pixels_though_their_denoisers_disagree() -> None:
    tiles = sample(SAMPLER, PerTile(torch.tensor([0.0, 1.0, 2.0, 3.0])), (4, 2, SIDE, SIDE), fused(), device="cpu")
    torch.testing.assert_close(tiles[0, :, :, STRIDE:], tiles[1, :, :, :OVERLAP])
    torch.testing.assert_close(tiles[0, :, STRIDE:], tiles[2, :, :OVERLAP])
    alone = sample(SAMPLER, PerTile(torch.arange(4.0)), (4, 2, SIDE, SIDE), TileNoise((0, "test"), ORIGINS, (SIDE, SIDE)), device="cpu")
    assert (alone[0, :, :, STRIDE:] - alone[1, :, :, :OVERLAP]).abs().min() > 0.1


def test_tiles_that_agree_are_left_as_they_are() -> None:
    image = torch.randn(3, SIDE + STRIDE, SIDE + STRIDE, generator=torch.Generator().manual_seed(0))
    tiles = torch.stack([image[:, row : row + SIDE, column : column + SIDE] for row, column in ORIGINS])
    torch.testing.assert_close(fused().blend(tiles), tiles)


def test_groups_do_not_see_each_other() -> None:
    tiles = torch.randn(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    blended = fused(groups=2).blend(tiles)
    torch.testing.assert_close(blended[4:], fused().blend(tiles[4:]), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(8, 8), (20, 18)], ids=["latents", "extended"])
def test_states_may_be_latents_or_extended_at_their_end(shape: tuple[int, int]) -> None:
    constant = torch.full((4, 2, *shape), 0.7)
    torch.testing.assert_close(fused().blend(constant), constant)


def test_a_models_own_step_cannot_be_fused() -> None:
    with pytest.raises(ValueError, match=r"cannot be fused with sampler\.solver=native"):
        sample(SamplerConfig(solver="native", grid="edm"), PerTile(torch.arange(4.0)), (4, 2, SIDE, SIDE), fused(), device="cpu")
