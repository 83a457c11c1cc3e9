"""Attention of pixels to pixels: what it computes, and in how much memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rsdiff.inference.memory import count_operations, measured_growth
from rsdiff.networks import awan, edm_unet, latent_unet, layers, song_unet, srdsran

MODULES: dict[str, Callable[[], nn.Module]] = {
    "sr3": lambda: layers.SelfAttention(32, 8),
    "ldcsr": lambda: latent_unet.HeadedAttention(32, 16),
    "edm": lambda: edm_unet.SelfAttention(32, song_unet.SongUNetConfig().block_style()),
    "srdsran": lambda: srdsran.SpatialAttention(32),
    "awan": lambda: awan.SecondOrderAttention(32),
}


@pytest.mark.parametrize("name", MODULES)
@torch.no_grad()
def test_memory_grows_with_the_pixels_and_not_with_their_square(name: str) -> None:
    module = MODULES[name]()
    needs, works = measured_growth(lambda side: module(torch.zeros(1, 32, side, side)), (16, 48))
    assert needs.of(1000) == pytest.approx(needs.per_pixel * 1000**2, rel=0.01)
    assert works.per_pair > 0  # which still makes large tiles slow


@pytest.mark.parametrize("scale", [None, 0.3])
def test_keys_may_be_narrower_than_values(scale: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, width, 20, generator=generator, dtype=torch.float64).mT for width in (4, 4, 8))
    weights: Tensor = (query @ key.mT * (4**-0.5 if scale is None else scale)).softmax(-1)
    torch.testing.assert_close(layers.attended(query, key, value, scale), weights @ value)


def test_attention_is_counted_by_the_formula_whatever_torch_knows_of_its_kernels() -> None:
    """PyTorch's own counter knows other kernels in every release; a scene's tiles must not depend on it."""
    query, key, value = torch.zeros(2, 4, 30, 8), torch.zeros(2, 4, 50, 8), torch.zeros(2, 4, 50, 8)
    with count_operations() as operations:
        nn.functional.scaled_dot_product_attention(query, key, value)
    assert operations.get_total_flops() == 2 * 2 * 4 * 30 * 50 * (8 + 8)
