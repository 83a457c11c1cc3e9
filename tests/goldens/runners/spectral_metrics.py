"""Golden cases of the spectral metrics: field definitions by rsdiff, what torchmetrics computes instead by torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanSquaredError
from torchmetrics.functional import image as of_image
from torchmetrics.functional.regression import mean_absolute_percentage_error, pearson_corrcoef
from torchmetrics.image import (
    ErrorRelativeGlobalDimensionlessSynthesis,
    PeakSignalNoiseRatio,
    SpectralAngleMapper,
    StructuralSimilarityIndexMeasure,
    UniversalImageQualityIndex,
)

from rsdiff.metrics.psnr import ergas, psnr
from rsdiff.metrics.spectral import (
    back_projection_mrae,
    band_psnr,
    cc,
    mpsnr,
    mrae,
    mssim,
    rmse,
    sam,
    spectral_angles,
    uiqi,
)

from ..case import Case, runner


def per_image(case: Case, score: Callable[[Tensor, Tensor], float]) -> np.ndarray:
    preds, target = case.tensor("preds"), case.tensor("target")
    return np.array([score(p, t) for p, t in zip(preds, target, strict=True)])


def sid(sr: Tensor, hr: Tensor) -> float:
    """SSPSR's divergence, which normalises no spectrum and is therefore not offered by rsdiff."""
    p, t = sr.double(), hr.double()
    ratio = ((p + 1e-3) / (t + 1e-3)).log10()
    return float(((p * ratio).sum((-2, -1)) - (t * ratio).sum((-2, -1))).abs().mean() / hr[0].numel())


@runner("spectral_metrics", "field_pair_31", "field_pair")
def field_pair(case: Case) -> dict[str, Any]:
    peak = float(case.config["data_range"])
    response = case.tensor("srf")
    clamped = lambda p, t: psnr(p.clamp(0, peak), t.clamp(0, peak), peak)  # noqa: E731
    return {
        "sspsr_mpsnr": per_image(case, lambda p, t: mpsnr(p, t, peak)),
        "sspsr_mssim": per_image(case, lambda p, t: mssim(p, t, peak, window="uniform7")),
        "sspsr_ergas_ratio4": per_image(case, lambda p, t: ergas(p, t, 4)),
        "sspsr_sam_deg": per_image(case, sam),
        "sspsr_cc": per_image(case, cc),
        "sspsr_rmse": per_image(case, rmse),
        "sspsr_sid": per_image(case, sid),
        "sspsr_mare_plus1": per_image(case, lambda p, t: mrae(p, t, offset=1.0)),
        "sspsr_qave8": per_image(case, uiqi),
        "qave20": per_image(case, lambda p, t: uiqi(p, t, block=20)),
        "ntire_mrae": per_image(case, mrae),
        "ntire_rmse": per_image(case, rmse),
        "ntire_sam_rad": per_image(case, lambda p, t: math.radians(sam(p, t, zero="half_pi"))),
        "ntire_psnr_peak1": per_image(case, lambda p, t: psnr(p, t, peak)),
        "ntire_backprojection_mrae": per_image(case, lambda p, t: back_projection_mrae(p, t, response)),
        "mst_psnr": per_image(case, clamped).mean(),
        "mst_mrae": per_image(case, mrae).mean(),
    }


@runner("spectral_metrics", "r2hgan_eval")
def r2hgan(case: Case) -> dict[str, Any]:
    peak, preds, target = float(case.config["peak"]), *(torch.from_numpy(case.input(n).astype(np.float64)) for n in ("preds", "target"))
    return {
        "rmse_f64": rmse(preds, target),
        "mrae_f64": mrae(preds, target, offset=case.config["mrae_offset"]),
        "sam_rad_f64": math.radians(sam(preds, target, zero="half_pi")),
        "mssim_f64": mssim(preds, target, peak),
        "mpsnr_f64": mpsnr(preds, target, peak),
    }


@runner("spectral_metrics", "sam_edge_cases")
def edge_cases(case: Case) -> dict[str, Any]:
    pairs = [(p[None], t[None]) for p, t in zip(case.tensor("preds"), case.tensor("target"), strict=True)]

    def unguarded(p: Tensor, t: Tensor) -> float:
        """NTIRE's error, which divides by a reference of 0."""
        return float(((p - t).abs() / t).mean())

    return {
        "tm_sam_rad": torch.stack([of_image.spectral_angle_mapper(p, t) for p, t in pairs]),
        "ntire_mrae": per_image(case, unguarded),
        "ours_sam_deg": per_image(case, sam),
        "tm_ergas_ratio1": torch.stack([of_image.error_relative_global_dimensionless_synthesis(p, t, ratio=1) for p, t in pairs]),
    }


@runner("spectral_metrics", "torchmetrics_pair")
def torchmetrics_pair(case: Case) -> dict[str, Any]:
    """What equals a field definition comes from rsdiff; where torchmetrics differs, its own value is the published one."""
    preds, target, peak = case.tensor("preds"), case.tensor("target"), float(case.config["data_range"])

    def streamed(metric: Any) -> Tensor:
        for p, t in zip(preds, target, strict=True):
            metric.update(p[None], t[None])
        return metric.compute()

    def flat(image: Tensor) -> Tensor:
        return image.movedim(1, -1).reshape(-1, image.shape[1])

    ssim_of = of_image.structural_similarity_index_measure
    bands = torch.stack([band_psnr(p, t, peak) for p, t in zip(preds, target, strict=True)])
    return {
        "psnr_pooled": psnr(flat(preds).T[:, None], flat(target).T[:, None], peak),
        "psnr_per_image": per_image(case, lambda p, t: psnr(p, t, peak)),
        "psnr_per_band": bands,
        "mpsnr": bands.mean(),
        "ssim": ssim_of(preds, target, data_range=peak, reduction="none"),
        "ssim_uniform7": ssim_of(preds, target, data_range=peak, gaussian_kernel=False, kernel_size=7, reduction="none"),
        "sam_rad": torch.stack([spectral_angles(p, t) for p, t in zip(preds, target, strict=True)]).mean(),
        "sam_map_rad_image0": of_image.spectral_angle_mapper(preds, target, reduction="none")[0],  # float32: 1e-4 off at small angles
        "ergas_ratio1": per_image(case, lambda p, t: ergas(p, t, 1)),
        "ergas_ratio4": per_image(case, lambda p, t: ergas(p, t, 4)),
        "uqi": of_image.universal_image_quality_index(preds, target),
        "rmse_pooled": rmse(flat(preds).T[:, None], flat(target).T[:, None]),
        "mape": mean_absolute_percentage_error(preds, target),
        "pearson_pooled_per_band": pearson_corrcoef(flat(preds), flat(target)),
        "stream_psnr": streamed(PeakSignalNoiseRatio(data_range=peak)),
        "stream_mpsnr": streamed(PeakSignalNoiseRatio(data_range=peak, dim=(2, 3))),
        "stream_ssim": streamed(StructuralSimilarityIndexMeasure(data_range=peak)),
        "stream_sam_rad": streamed(SpectralAngleMapper()),
        "stream_ergas4": streamed(ErrorRelativeGlobalDimensionlessSynthesis(ratio=4)),
        "stream_uqi": streamed(UniversalImageQualityIndex()),
        "stream_rmse": streamed(MeanSquaredError(squared=False)),
    }
