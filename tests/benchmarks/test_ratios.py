"""Speed as ratios to baselines of our own, and to other codes where they are installed: `make benchmark` prints them in one table.

No time is asserted: a busy machine proves nothing. Results are, so that a ratio compares two ways to the same thing.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import GaussianDegradationConfig
from rsdiff.diffusion import solvers as grids
from rsdiff.diffusion.multistep import deis, dpmpp_3m, unipc
from rsdiff.diffusion.noise import ReplayNoise, SeededNoise, TileNoise
from rsdiff.diffusion.solvers import ddim, dpmpp_2m
from rsdiff.diffusion.stability import worst_error
from rsdiff.metrics.ssim import ssim
from rsdiff.training.allocation import keep_freed_memory
from tests.benchmarks.ratios import Table, one_thread, seconds_of


@pytest.fixture(scope="module", autouse=True)
def _as_in_a_run() -> None:
    keep_freed_memory()


@pytest.mark.parametrize("kernel", ["isotropic", "anisotropic"])
@pytest.mark.parametrize(("count", "side"), [(1, 64), (8, 64), (1, 256), (8, 256)])
def test_gaussian_degradations(table: Table, kernel: str, count: int, side: int) -> None:
    fast, plain = (GaussianDegradationConfig(kernel=kernel, noise=(0.0, 25.0), backend=how).build() for how in ("auto", "torch"))
    hr = torch.rand(count, 3, side, side, generator=keyed_generator("benchmark"))
    drawn = [fast.draw(keyed_generator(index), (3, side, side), (side // 4, side // 4))[0] for index in range(count)]
    away = float((fast.apply(hr, drawn).lr_clean - plain.apply(hr, drawn).lr_clean).abs().max())  # type: ignore[operator]
    assert away < 2e-6
    what = f"degradation {kernel}, {count} x 3 x {side} x {side}"
    table.compare(what, "grouped 21 x 21 convolution", lambda: fast.apply(hr, drawn), lambda: plain.apply(hr, drawn), f"{away:.0e}")


@pytest.mark.parametrize("kind", ["seeded", "tiled"])
def test_noise(table: Table, kind: str) -> None:
    shape = (1, 4, 256, 256)
    source = SeededNoise([(1, "image")]) if kind == "seeded" else TileNoise((1, "scene"), [(0, 0)], (256, 256))
    table.compare(f"normals, {kind}", "torch.randn", lambda: source.normal(shape), lambda: torch.randn(shape))
    with one_thread():
        values = math.prod(shape)
        best = min(seconds_of(lambda: source.normal(shape)) for _ in range(5))
    table.note(f"normals, {kind}, ns a value", f"{1e9 * best / values:.1f}", "goal 2")


def test_ssim(table: Table) -> None:
    reference = pytest.importorskip("skimage.metrics")
    first, second = (np.random.default_rng(seed).random((600, 600, 3)) for seed in (0, 1))
    planes = [torch.from_numpy(image.transpose(2, 0, 1)) for image in (first, second)]

    def theirs() -> float:
        return float(
            reference.structural_similarity(
                first, second, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
        )

    table.compare("SSIM 600 x 600 x 3", "scikit-image", lambda: ssim(*planes, 1.0), theirs)


def test_quality_of_few_steps(table: Table) -> None:
    """Not a time: the error of solvers on Gaussians, by network calls."""
    solvers = {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "dpmpp_3m": dpmpp_3m, "unipc": unipc, "deis": deis, "deis 3": partial(deis, order=3)}
    for steps in (5, 10, 20):
        walked = grids.to_zero(grids.edm_levels(steps, 0.002, 80.0))
        errors = {name: worst_error(lambda d, g, y, s=solve: s(d, g, y, ReplayNoise([])), walked) for name, solve in solvers.items()}
        table.note(
            f"error in {steps} calls, EDM's grid", ", ".join(f"{name} {error:.3f}" for name, error in errors.items()), "exact solution"
        )
