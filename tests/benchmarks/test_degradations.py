"""Speed of the Gaussian degradation, as a ratio to a loop over images and bands that follows the formulas word by word."""

import time
from typing import Any

import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import GaussianDecisions, GaussianDegradationConfig
from rsdiff.degradations.resizing import cubic_taps

COUNT, HR, LR = 16, (3, 256, 256), (64, 64)


def test_gaussian_degradation_of_sixteen_images(benchmark: BenchmarkFixture) -> None:
    """HR (16, 3, 256, 256), 21 x 21 anisotropic kernels, noise, resize to a quarter, one thread."""
    degradation = GaussianDegradationConfig(kernel="anisotropic", noise=(0.0, 25.0)).build()
    hr = torch.rand(COUNT, *HR, generator=keyed_generator("benchmark"))
    decisions = [degradation.draw(keyed_generator(index), HR, LR)[0] for index in range(COUNT)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.perf_counter()
        expected = literal(hr, decisions)
        baseline = time.perf_counter() - start
        made: Any = benchmark.pedantic(degradation.apply, (hr, decisions), rounds=5, warmup_rounds=1)
    finally:
        torch.set_num_threads(threads)
    benchmark.extra_info["ratio_to_literal_loop"] = benchmark.stats.stats.min / baseline
    torch.testing.assert_close(made.lr, expected, rtol=0, atol=1.001 / 255)


def literal(hr: torch.Tensor, decisions: list[GaussianDecisions]) -> torch.Tensor:
    """One image and one band at a time: convolve, gather the resizing taps of rows, then columns, add noise, round."""
    degradation = GaussianDegradationConfig(kernel="anisotropic").build()
    indices, weights = cubic_taps(HR[1], LR[0], LR[0] / HR[1], "clamped")
    images = []
    for image, decision in zip(hr, decisions, strict=True):
        kernels = degradation.kernels([decision.parameters])
        assert kernels is not None
        assert decision.noise_field is not None
        bands = []
        for band, noise in zip(image, decision.noise_field, strict=True):
            blurred = F.conv2d(F.pad(band[None, None], (10, 10, 10, 10), mode="reflect"), kernels[:, None])[0, 0]
            rows = (blurred[indices] * weights.float()[:, :, None]).sum(1)
            small = (rows[:, indices] * weights.float()[None]).sum(2)
            bands.append((small + decision.parameters.noise / 255 * noise).clamp(0, 1).mul(255).round() / 255)
        images.append(torch.stack(bands))
    return torch.stack(images)
