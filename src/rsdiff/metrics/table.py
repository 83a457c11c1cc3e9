"""The table of metrics: name -> description and how to compute it."""

from __future__ import annotations

import math
from collections.abc import Callable

from rsdiff.metrics import lr_consistency
from rsdiff.metrics.metric import Context, ImageScore, Metric, View
from rsdiff.metrics.no_reference import average_gradient, entropy
from rsdiff.metrics.psnr import cpsnr, ergas, ergas_diffbsr, mse, psnr
from rsdiff.metrics.ssim import ssim

_NONE: frozenset[str] = frozenset()


def _ready(score: ImageScore) -> Callable[[Context], ImageScore]:
    return lambda context: score


def _psnr(view: View) -> float:
    image, hr, valid = view.pair()
    return psnr(image, hr, view.protocol.peak, valid, view.protocol.epsilon, view.protocol.psnr_of_identical)


def _ssim(view: View) -> float:
    space = view.protocol.space if view.protocol.ssim_space == "same" else view.protocol.ssim_space
    image, hr, valid = view.pair(space)
    return ssim(image, hr, view.protocol.peak, valid)


def _mse(view: View) -> float:
    image, hr, valid = view.pair()
    return mse(image, hr, valid)


def _cpsnr(view: View) -> float:
    image, hr, valid = view.pair()
    return cpsnr(image, hr, view.protocol.peak, valid=valid)


def _ergas(view: View) -> float:
    image, hr, valid = view.pair("bands")
    return ergas(image, hr, view.scale, valid)


def _ergas_diffbsr(view: View) -> float:
    image, hr, valid = view.pair("bands")
    return ergas_diffbsr(image, hr, view.scale, valid)


_DEFINED = (
    Metric("psnr", "PSNR", "peak signal-to-noise ratio", "dB", build=_ready(_psnr)),
    Metric("ssim", "SSIM", "structural similarity, 11x11 Gaussian, windows inside the image", low=-1, high=1, build=_ready(_ssim)),
    Metric("mse", "MSE", "mean squared error in units of the peak squared", direction="lower", build=_ready(_mse)),
    Metric("cpsnr", "cPSNR", "PSNR after the best shift and brightness offset", "dB", build=_ready(_cpsnr)),
    Metric("ergas", "ERGAS", "relative global error, per band, by the mean of the reference", direction="lower", build=_ready(_ergas)),
    Metric(
        "ergas_diffbsr",
        "ERGAS (DiffBSR)",
        "ERGAS as DiffBSR computes it: global mean of the restored image and a further 1/3",
        direction="lower",
        build=_ready(_ergas_diffbsr),
    ),
    Metric(
        "lr_psnr",
        "LR-PSNR",
        "PSNR between the LR and the restored image degraded by the operator that made the LR",
        "dB",
        needs=frozenset({"lr", "degradation"}),
        build=_ready(lr_consistency.lr_psnr),
        on_hr=True,
    ),
    Metric(
        "lr_l1",
        "LR-L1",
        "mean absolute difference between the LR and the restored image degraded by the operator that made the LR, on [0, 1]",
        direction="lower",
        high=1,
        needs=frozenset({"lr", "degradation"}),
        build=_ready(lr_consistency.lr_l1),
        on_hr=True,
    ),
    Metric(
        "ag",
        "AG",
        "average gradient of the gray image; noise raises it",
        "grey levels/px",
        direction="none",
        needs=_NONE,
        build=_ready(lambda view: average_gradient(view.gray(), view.valid)),
        on_hr=True,
    ),
    Metric(
        "entropy",
        "Entropy",
        "entropy of the gray image",
        "bit",
        direction="none",
        high=math.log2(256),
        needs=_NONE,
        build=_ready(lambda view: entropy(view.gray(), view.valid)),
        on_hr=True,
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _DEFINED}
