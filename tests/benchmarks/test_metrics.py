"""Metrics beside torchmetrics' and formulas written down with NumPy, and what scoring an image costs beside restoring it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rsdiff.data.seeding import keyed_generator
from rsdiff.metrics import spectral
from rsdiff.metrics.psnr import ergas, psnr
from rsdiff.metrics.ssim import ssim
from rsdiff.training.allocation import keep_freed_memory
from tests.benchmarks.ratios import Table, Work

SIDE = 600


@pytest.fixture(scope="module", autouse=True)
def _as_in_a_run() -> None:
    keep_freed_memory()


def pair(bands: int) -> tuple[Tensor, Tensor]:
    """Return two images (C, H, W) in [0, 1], like enough."""
    generator = keyed_generator("benchmark", bands)
    hr = torch.rand(bands, SIDE, SIDE, generator=generator).clamp_min(0.05)
    return (hr + 0.05 * torch.randn(hr.shape, generator=generator)).clamp(0.01, 1), hr


def agreed(table: Table, what: str, against: str, ours: Work, theirs: Work, tolerance: float = 1e-4) -> None:
    """Add a line; the values must agree, or a ratio compares two things."""
    first, second = float(ours()), float(theirs())  # type: ignore[arg-type]
    assert first == pytest.approx(second, rel=tolerance)
    table.compare(what, against, ours, theirs, f"{abs(first / second - 1):.0e}")


def test_psnr(table: Table) -> None:
    sr, hr = pair(3)
    first, second = sr.numpy(), hr.numpy()

    def plain() -> float:
        return float(-10 * np.log10(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)))

    agreed(table, f"PSNR {SIDE} x {SIDE} x 3", "NumPy in float64", lambda: psnr(sr, hr, 1.0), plain)
    metrics = pytest.importorskip("torchmetrics.functional.image")
    theirs = lambda: metrics.peak_signal_noise_ratio(sr[None], hr[None], data_range=1.0)  # noqa: E731
    agreed(table, f"PSNR {SIDE} x {SIDE} x 3", "torchmetrics", lambda: psnr(sr, hr, 1.0), theirs)


def test_ssim(table: Table) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.image")
    sr, hr = pair(3)

    def theirs() -> Tensor:
        # Another window by design, so another number: see rsdiff.metrics.ssim.
        return metrics.structural_similarity_index_measure(sr[None].double(), hr[None].double(), data_range=1.0)

    agreed(table, f"SSIM {SIDE} x {SIDE} x 3", "torchmetrics in float64", lambda: ssim(sr, hr, 1.0), theirs, 0.02)


@pytest.mark.parametrize("bands", [4, 31])
def test_spectral(table: Table, bands: int) -> None:
    metrics = pytest.importorskip("torchmetrics.functional.image")
    sr, hr = pair(bands)
    angle = lambda: torch.rad2deg(metrics.spectral_angle_mapper(sr[None], hr[None]))  # noqa: E731
    agreed(table, f"SAM {SIDE} x {SIDE} x {bands}", "torchmetrics", lambda: spectral.sam(sr, hr), angle)
    error = lambda: metrics.error_relative_global_dimensionless_synthesis(sr[None], hr[None], ratio=4)  # noqa: E731
    agreed(table, f"ERGAS {SIDE} x {SIDE} x {bands}", "torchmetrics", lambda: ergas(sr, hr, 4.0), error)
