"""The blurring diffusion: an orthonormal transform, a law of blur, and a sampler that ends at the clean image."""

from __future__ import annotations

import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.solvers import to_zero
from tests.goldens.relay_diffusion import BlurLaw, block_noise, patch_dct, relay_levels, relay_sampler

IMAGES = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_transform_is_scipys_in_every_patch_and_invertible() -> None:
    spectrum = patch_dct(IMAGES, 4)
    torch.testing.assert_close(spectrum[1, 2, 4:, 8:], torch.from_numpy(dctn(IMAGES[1, 2, 4:, 8:].numpy(), norm="ortho")))
    torch.testing.assert_close(patch_dct(spectrum, 4, inverse=True), IMAGES)
    torch.testing.assert_close(spectrum.square().sum(), IMAGES.square().sum())


def test_an_image_that_patches_do_not_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 5"):
        patch_dct(IMAGES, 5)


def test_blur_vanishes_at_tau_0_and_keeps_means_at_tau_1() -> None:
    law = BlurLaw(4)
    torch.testing.assert_close(law.blur(IMAGES, torch.zeros(2)), IMAGES)
    blurred = law.blur(IMAGES, torch.ones(2))
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(blurred, 4), torch.nn.functional.avg_pool2d(IMAGES, 4), rtol=1e-6, atol=1e-6)
    assert float(blurred.var()) < 0.5 * float(IMAGES.var())


def test_training_levels_and_tau_are_inverse() -> None:
    law = BlurLaw(4)
    tau, sigma = law.training_level(torch.tensor([0.0, 0.3, 0.99], dtype=torch.float64))
    torch.testing.assert_close(law.tau(sigma), tau)
    assert float(sigma.min()) > 0


def test_block_noise_has_unit_variance() -> None:
    noise = block_noise(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), 4)
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("block_share", [0.0, 0.15])
def test_the_sampler_ends_at_what_a_certain_denoiser_knows(block_share: float) -> None:
    class Certain:
        sigma_min, sigma_max, table, data_range = 0.0, float("inf"), None, None

        def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
            return IMAGES

        def round_sigma(self, sigma: Tensor) -> Tensor:
            return sigma

    levels = relay_levels(20)
    assert float(levels[0]) < 0.9
    noise = SeededNoise([("a",), ("b",)])
    result = relay_sampler(Certain(), to_zero(levels), torch.zeros_like(IMAGES), noise, BlurLaw(4), block_share=block_share)
    assert torch.equal(result, IMAGES)
