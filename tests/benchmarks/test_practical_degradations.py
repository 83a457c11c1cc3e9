"""Speed of BSRGAN's and Real-ESRGAN's degradations in one worker, as ratios to versions that follow the published code word by word."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import ndimage
from scipy.stats import multivariate_normal

from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import BsrganConfig, PracticalDecisions, RealEsrganConfig
from rsdiff.degradations.camera_kernels import shifted_row
from rsdiff.degradations.resizing import cubic_taps
from rsdiff.degradations.sharpening import sharpen
from rsdiff.degradations.stages import Blur, Decimate, Halve, IsotropicBlur, OrientedBlur, run_stages

Array = NDArray[np.float64]
PAIRS = 40


def seconds_of(work: Callable[[], object]) -> float:
    """Processor time, which other processes of a shared machine do not change much."""
    start = time.process_time()
    work()
    return time.process_time() - start


def test_pairs_per_second_of_bsrgan(benchmark: BenchmarkFixture) -> None:
    """HR 288 to LR 72, drawing included, one image at a time as a loader's worker has them."""
    degradation = BsrganConfig().build()
    hr = image(288)

    def ours() -> list[torch.Tensor]:
        return [degradation.apply(hr, degradation.draw(keyed_generator(i), (3, 288, 288), (72, 72))).lr[0] for i in range(PAIRS)]

    def word_by_word() -> list[torch.Tensor]:
        return [literal(hr[0], degradation.draw(keyed_generator(i), (3, 288, 288), (72, 72))[0]) for i in range(PAIRS)]

    compare(benchmark, ours, word_by_word, PAIRS)


def test_pairs_per_second_of_real_esrgan(benchmark: BenchmarkFixture) -> None:
    """HR 400 to LR 64 and HR 256, against dense 51 x 51 sharpening before and after the crop, as published."""
    count = 6
    hr = image(400)
    separable = RealEsrganConfig(crop=64).build()
    dense = RealEsrganConfig(crop=64, sharpening="dense", backend="torch", target="raw").build()

    def ours() -> list[torch.Tensor]:
        return [separable.apply(hr, separable.draw(keyed_generator(i), (3, 400, 400), (100, 100))).lr[0] for i in range(count)]

    def published() -> list[torch.Tensor]:
        made = [dense.apply(hr, dense.draw(keyed_generator(i), (3, 400, 400), (100, 100))) for i in range(count)]
        for pair in made:
            sharpen(pair.hr, backend="dense")
        return [pair.lr[0] for pair in made]

    compare(benchmark, ours, published, count)


def compare(
    benchmark: BenchmarkFixture, ours: Callable[[], list[torch.Tensor]], baseline: Callable[[], list[torch.Tensor]], pairs: int
) -> None:
    """Measure both on one thread and check that they make the same images, but for values at rounding boundaries."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected, made = baseline(), ours()
        slow, fast = seconds_of(baseline), min(seconds_of(ours) for _ in range(3))
        benchmark.pedantic(ours, rounds=1)
    finally:
        torch.set_num_threads(threads)
    benchmark.extra_info["pairs_per_second"] = pairs / fast
    benchmark.extra_info["pairs_per_second_of_baseline"] = pairs / slow
    benchmark.extra_info["ratio_to_baseline"] = slow / fast
    different = torch.stack([(a - b).abs().mean() for a, b in zip(expected, made, strict=True)])
    assert different.median() < 0.5 / 255
    assert different.max() < 5 / 255


def image(side: int) -> torch.Tensor:
    noise = torch.rand(1, 3, side, side, generator=keyed_generator("benchmark"))
    return 0.7 * torch.nn.functional.avg_pool2d(noise, 9, 1, 4) + 0.3 * noise


def literal(hr: torch.Tensor, decisions: PracticalDecisions) -> torch.Tensor:
    """The published arithmetic: kernels tap by tap, blurs by ndimage in float64, MATLAB's resizing by gathered taps, all else as ours."""
    current = hr
    for stage in decisions.stages:
        if isinstance(stage, Blur):
            blurred = ndimage.convolve(current.double().numpy(), literal_kernel(stage)[None], mode="mirror")
            current = torch.from_numpy(blurred).float()
            if isinstance(stage, Decimate):
                current = current[:, :: stage.step, :: stage.step].clamp(0, 1)
        elif isinstance(stage, Halve):
            current = torch.from_numpy(literal_half(literal_half(current.double().numpy(), 1), 2)).float().clamp(0, 1)
        else:
            current = run_stages([current], [[stage]])[0]
    return current


def literal_kernel(stage: Blur) -> Array:
    if isinstance(stage, Decimate):
        row = shifted_row(stage.size, stage.width, (stage.step - 1) / 2).numpy()
        return np.outer(row, row)
    assert isinstance(stage, IsotropicBlur | OrientedBlur)
    offsets = np.arange(stage.size) - stage.size // 2
    if isinstance(stage, IsotropicBlur):
        kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * max(stage.width, 1e-2) ** 2))
        return kernel / kernel.sum()
    cos, sin = math.cos(stage.angle), math.sin(stage.angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    covariance = turn @ np.diag([max(stage.width, 1e-2) ** 2, max(stage.second_width, 1e-2) ** 2]) @ turn.T
    kernel = np.array([[multivariate_normal.pdf([x, y], mean=[0, 0], cov=covariance) for x in offsets] for y in offsets])
    return kernel / kernel.sum()


def literal_half(image: Array, axis: int) -> Array:
    """Half the size along an axis, pixel by pixel."""
    length = image.shape[axis]
    indices, weights = (taps.numpy() for taps in cubic_taps(length, -(-length // 2), 0.5, "symmetric"))
    moved = np.moveaxis(image, axis, 0)
    made = np.stack([np.tensordot(row_weights, moved[row], axes=(0, 0)) for row, row_weights in zip(indices, weights, strict=True)])
    return np.moveaxis(made, 0, axis)
