"""How well a blind method estimates the blur kernel."""

from __future__ import annotations

import math

from torch import Tensor

from rsdiff.metrics.metric import Metric

KERNEL_PSNR = Metric(
    name="kernel_psnr",
    title="Kernel PSNR",
    meaning="peak signal-to-noise ratio of the estimated blur kernel, the peak being the true kernel's largest weight",
    unit="dB",
    low=-math.inf,
)
"""Recorded where a method estimates kernels and the true ones are known; it needs no choice among `metrics`."""


def kernel_psnr(true: Tensor, estimate: Tensor) -> float:
    """Return KERNEL_PSNR of two kernels (k, k); kernels of unequal size are compared on their common centre."""
    size = min(true.shape[-1], estimate.shape[-1])
    true, estimate = _centre(true.double(), size), _centre(estimate.double(), size)
    error = float((true - estimate).square().mean())
    return 10 * math.log10(float(true.max()) ** 2 / error) if error > 0 else math.inf


def _centre(kernel: Tensor, size: int) -> Tensor:
    top = (kernel.shape[-1] - size) // 2
    return kernel[top : top + size, top : top + size]
