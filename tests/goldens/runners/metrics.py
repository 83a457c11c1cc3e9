"""Golden cases of the metrics: published formulas, and the near misses that must not be mixed with them (computed here, not in rsdiff)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from rsdiff.degradations.blur import blur
from rsdiff.degradations.resizing import resize
from rsdiff.metrics import opensr
from rsdiff.metrics.colour import FULL, LIIF, crop, luma, quantise
from rsdiff.metrics.dists import Dists
from rsdiff.metrics.fid import frechet_distance, kernel_distance
from rsdiff.metrics.inception import prepare, resize_for_inception
from rsdiff.metrics.inception_network import FidInception
from rsdiff.metrics.lpips import Lpips
from rsdiff.metrics.lr_consistency import lr_l1, lr_psnr
from rsdiff.metrics.metric import View
from rsdiff.metrics.niqe import NiqeModel, asymmetric_fit, block_features, fit, half_size, niqe, sharp_blocks, statistics
from rsdiff.metrics.no_reference import average_gradient, entropy
from rsdiff.metrics.phase_correlation import subpixel_shift
from rsdiff.metrics.protocol import ProtocolConfig
from rsdiff.metrics.psnr import cpsnr, ergas, ergas_diffbsr, mse, pooled_psnr, psnr
from rsdiff.metrics.ssim import ssim

from ..case import Case, runner

PYIQA_EPSILON = 1e-8


def bands_first(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, -3).double()


def yiq_rounded(rgb: Tensor) -> Tensor:
    """Full-range luma rounded half to even (pyiqa): weights of float32 precision on float64 values decide the ties."""
    weights = torch.tensor(FULL, dtype=torch.float32).double()
    return ((rgb / 255).movedim(-3, -1) @ weights * 255).round().unsqueeze(-3)


def liif_luma(rgb: Tensor) -> Tensor:
    """Luma without an offset: LIIF and DASR apply it to differences, which is all that PSNR sees."""
    return sum(plane * weight for plane, weight in zip(rgb.unbind(-3), LIIF, strict=True)).unsqueeze(-3) / 256


@runner("metrics", "luma")
def run_luma(case: Case) -> dict[str, Any]:
    rgb = bands_first(case.input("rgb"))
    values = {
        "y_studio_float": luma(rgb, "y_studio"),
        "y_studio_skimage": luma(rgb, "y_studio"),
        "y_studio_uint8": luma(rgb, "y_studio_rounded"),
        "y_studio_uint8_kair": luma(rgb, "y_studio_rounded"),
        "y_full_opencv_uint8": luma(rgb, "y_full_rounded"),
        "y_full_yiq_round": yiq_rounded(rgb),
        "y_liif_times_255": liif_luma(rgb),
    }
    return {name: value[0] for name, value in values.items()}


@runner("metrics", "quantisation")
def run_quantisation(case: Case) -> dict[str, Any]:
    hr, sr = bands_first(case.input("hr")), case.tensor("sr")
    border = int(case.config["crop of the two y outputs"])
    rounded, clipped = quantise(sr, "round"), quantise(sr, "clip")
    truncated = clipped.floor()
    edm = ((sr * 2 - 1) * 127.5 + 128).clamp(0, 255).floor().double()
    y_sr, y_hr = (crop(luma(image, "y_studio"), border) for image in (clipped, hr))
    saved = {"round": rounded, "trunc": truncated, "edm": edm}
    return {
        **{f"q_{name}": image.movedim(0, -1) for name, image in saved.items()},
        **{f"psnr_q_{name}": psnr(image, hr) for name, image in saved.items()},
        "psnr_float_clipped": [psnr(clipped, hr, epsilon=PYIQA_EPSILON)],
        "psnr_float_unclipped": [psnr(quantise(sr, "none"), hr, epsilon=PYIQA_EPSILON)],
        "ssim_float_clipped": [ssim(clipped, hr)],
        "psnr_y_float_clipped": [psnr(y_sr, y_hr, epsilon=PYIQA_EPSILON)],
        "ssim_y_float_clipped": [ssim(y_sr, y_hr)],
    }


@runner("metrics", "psnr_ssim_uint8")
def run_psnr_ssim(case: Case) -> dict[str, Any]:
    hr = bands_first(case.input("hr"))
    outputs: dict[str, Any] = {}
    for pair in [name.removesuffix("_sr") for name in case.spec["inputs"] if name.endswith("_sr")]:
        sr = bands_first(case.input(f"{pair}_sr"))
        for prefix in sorted({name.split("_")[1] for name in case.arrays if name.startswith(f"{pair}_crop")}):
            border = int(prefix.removeprefix("crop"))
            values = conventions(crop(sr, border), crop(hr, border))
            outputs |= {f"{pair}_{prefix}_{name}": value for name, value in values.items()}
    return outputs


def conventions(sr: Tensor, hr: Tensor) -> dict[str, float]:
    """Every convention of one cropped pair (3, H, W) in 0..255."""
    y_sr, y_hr = luma(sr, "y_studio"), luma(hr, "y_studio")
    rounded = luma(sr, "y_studio_rounded"), luma(hr, "y_studio_rounded")
    opencv = luma(sr, "y_full_rounded"), luma(hr, "y_full_rounded")
    field_psnr, field_ssim, y_psnr, y_ssim = psnr(sr, hr), ssim(sr, hr), psnr(y_sr, y_hr), ssim(y_sr, y_hr)
    liif = psnr(liif_luma(sr), liif_luma(hr))
    return {
        **{f"rgb_psnr_{who}": field_psnr for who in ("basicsr", "litsr", "kair")},
        **{f"rgb_ssim_{who}": field_ssim for who in ("basicsr", "litsr", "kair")},
        **{f"y_psnr_{who}": y_psnr for who in ("basicsr", "litsr")},
        **{f"y_ssim_{who}": y_ssim for who in ("basicsr", "litsr")},
        "yround_psnr_kair": psnr(*rounded),
        "yround_ssim_kair": ssim(*rounded),
        "yfull_psnr_opencv": psnr(*opencv),
        "yfull_ssim_opencv": ssim(*opencv),
        "psnr_pyiqa": psnr(sr, hr, epsilon=PYIQA_EPSILON),
        "psnry_pyiqa": psnr(luma(sr, "y_full"), luma(hr, "y_full"), epsilon=PYIQA_EPSILON),
        "ssimc_pyiqa": ssim(sr, hr, clip_contrast=True),
        "ssim_pyiqa_yiq": ssim(yiq_rounded(sr), yiq_rounded(hr), clip_contrast=True),
        "y_psnr_liif_benchmark": liif,
        "y_psnr_dasr": liif,
        "y_ssim_dasr": ssim(luma(sr, "y_dasr"), luma(hr, "y_dasr")),
        "tm_psnr": field_psnr,
        "tm_ssim_default": torchmetrics_default_ssim(sr, hr),
        "tm_ssim_valid": field_ssim,
        "tm_psnr_y": y_psnr,
        "tm_ssim_y_valid": y_ssim,
        "sk_psnr": field_psnr,
        "sk_ssim_default_u7": skimage_default_ssim(sr.numpy(), hr.numpy()),
        "sk_ssim_gauss": field_ssim,
        "mse_diffbsr": mse(sr, hr),
        "ergas_diffbsr_x4": ergas_diffbsr(sr, hr, 4),
        "ergas_field_x4": ergas(sr, hr, 4),
    }


def torchmetrics_default_ssim(sr: Tensor, hr: Tensor) -> float:
    """Not the field's SSIM: torchmetrics pads by reflection and keeps the padded border."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    return float(structural_similarity_index_measure(sr[None] / 255, hr[None] / 255, data_range=1.0))


def skimage_default_ssim(sr: np.ndarray, hr: np.ndarray) -> float:
    """Not the field's SSIM: 7x7 uniform window and sample covariance."""

    def mean(image: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(image, (0, 7, 7))[:, 3:-3, 3:-3]

    unbiased = 49 / 48
    mean_sr, mean_hr = mean(sr), mean(hr)
    variance_sr, variance_hr = unbiased * (mean(sr * sr) - mean_sr**2), unbiased * (mean(hr * hr) - mean_hr**2)
    covariance = unbiased * (mean(sr * hr) - mean_sr * mean_hr)
    c1, c2 = 2.55**2, 7.65**2
    values = (2 * mean_sr * mean_hr + c1) * (2 * covariance + c2) / ((mean_sr**2 + mean_hr**2 + c1) * (variance_sr + variance_hr + c2))
    return float(values.mean())


@runner("metrics", "dataset_average")
def run_dataset_average(case: Case) -> dict[str, Any]:
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    sr, hr = case.tensor("sr").double(), case.tensor("hr").double()
    psnrs = [psnr(a, b) for a, b in zip(sr, hr, strict=True)]
    ssims = [ssim(a, b) for a, b in zip(sr, hr, strict=True)]
    mean = math.fsum(psnrs) / len(psnrs)
    default = StructuralSimilarityIndexMeasure(data_range=1.0)
    default.update(sr / 255, hr / 255)
    return {
        "psnr_each": psnrs,
        "ssim_each": ssims,
        "psnr_mean": mean,
        "ssim_mean": math.fsum(ssims) / len(ssims),
        "tm_psnr_pooled": pooled_psnr(psnrs),
        "tm_psnr_dim123": mean,
        "tm_ssim_class_default": default.compute(),
        "psnr_mean_counter_from_1": math.fsum(psnrs) / (len(psnrs) + 1),
    }


@runner("metrics", "cpsnr")
def run_cpsnr(case: Case) -> dict[str, Any]:
    sr, hr = bands_first(case.input("sr")), bands_first(case.input("hr"))
    outputs: dict[str, Any] = {"psnr": psnr(sr, hr)}
    for name in case.arrays:
        if name.startswith("cpsnr_crop"):
            border = int(name.removeprefix("cpsnr_crop"))
            outputs[name] = cpsnr(crop(sr, border), crop(hr, border), max_offset=case.config["max_offset"])
    return outputs


@runner("metrics", "no_reference")
def run_no_reference(case: Case) -> dict[str, Any]:
    rgb = bands_first(case.input("rgb"))
    gray = luma(rgb, "y_full")
    f = gray[0].numpy()
    height, width = f.shape
    central = np.sqrt((np.gradient(f, axis=0) ** 2 + np.gradient(f, axis=1) ** 2) / 2).sum()
    down, right = np.zeros_like(f), np.zeros_like(f)
    down[:-1], right[:, :-1] = f[1:] - f[:-1], f[:, 1:] - f[:, :-1]
    copied = np.sqrt((down**2 + right**2) / 2).sum()
    share = np.bincount(yiq_rounded(rgb).numpy().astype(int).ravel(), minlength=256) / f.size
    bits = entropy(gray)
    return {
        "ag_forward_gray": average_gradient(gray),
        "ag_forward_rgb_mean": average_gradient(rgb),
        "ag_central_gray": central / ((height - 1) * (width - 1)),
        "ag_avegrad_gray": copied / ((height - 1) * (width - 1)),
        "ag_no_half_gray": average_gradient(gray) * math.sqrt(2),
        "ag_forward_gray_0_1": average_gradient(gray / 255),
        "sobel_mean_gray": np.hypot(ndimage.sobel(f, 0, mode="reflect"), ndimage.sobel(f, 1, mode="reflect")).mean(),
        "entropy_pyiqa": -(share * np.log2(share + PYIQA_EPSILON)).sum(),
        "entropy_bits": bits,
        "entropy_skimage": bits,
    }


@runner("metrics", "lr_consistency")
def run_lr_consistency(case: Case) -> dict[str, Any]:
    sr, hr = case.tensor("sr").float() / 255, case.tensor("hr").float() / 255
    kernel = case.tensor("kernel")
    size = (sr.shape[-2] // case.config["scale"], sr.shape[-1] // case.config["scale"])

    def bicubic(image: Tensor) -> Tensor:
        return resize(image[None], size, "matlab")[0]

    def blurred(image: Tensor) -> Tensor:
        return bicubic(blur(image[None], kernel)[0])

    outputs: dict[str, Any] = {"psnr_hr": psnr(quantise(sr), quantise(hr))}
    for name, operator in (("bicubic", bicubic), ("blur", blurred)):
        lr, down = quantise(operator(hr)), operator(sr)
        view = View(sr, None, lr / 255, None, case.config["scale"], ProtocolConfig(), degrade=operator)
        outputs |= {
            f"lr_{name}": lr,
            f"down_sr_{name}": down,
            f"psnr_{name}_float": lr_psnr(view),
            f"psnr_{name}_rounded": psnr(quantise(down), lr),
            f"psnr_{name}_float_crop1": psnr(crop(down * 255, 1), crop(lr, 1)),
            f"l1_{name}_float": lr_l1(view),
            f"mse_{name}_float": mse(down, lr / 255),
        }
    of_hr = View(hr, None, quantise(bicubic(hr)) / 255, None, case.config["scale"], ProtocolConfig(), degrade=bicubic)
    return {**outputs, "psnr_ceiling_hr_float": lr_psnr(of_hr)}


@runner("metrics", "niqe_official")
def run_niqe_official(case: Case) -> dict[str, Any]:
    model = NiqeModel(case.tensor("mu_pris"), case.tensor("cov_pris"), case.config["block"])
    case.input("window")
    outputs: dict[str, Any] = {}
    for name in [name.removeprefix("rgb_") for name in case.arrays if name.startswith("rgb_")]:
        rgb = bands_first(case.input(f"rgb_{name}"))
        studio = luma(rgb, "y_studio_rounded")[0]
        gray = luma(rgb, "y_full").round()[0]
        features, sharpness = block_features(studio, model.block)
        rows, columns = (length // model.block * model.block for length in studio.shape)
        score, score_of_gray = niqe(studio, model), niqe(gray, model)
        outputs |= {
            f"features_{name}": features,
            f"sharpness_{name}": sharpness,
            f"y_{name}": studio,
            f"half_{name}_sub": half_size(studio[:rows, :columns])[::7, ::7],
            f"niqe_{name}": score,
            f"niqe_crop4_{name}": niqe(crop(studio, 4), model),
            f"niqe_gray_{name}": score_of_gray,
            f"niqe_pyiqa_{name}": score_of_gray,
            f"niqe_pyiqa_ycbcr_{name}": score,
        }
    return outputs


@runner("metrics", "niqe_block32")
def run_niqe_block(case: Case) -> dict[str, Any]:
    model = NiqeModel(case.tensor("mu_pris"), case.tensor("cov_pris"), case.config["block"])
    y = case.tensor("y").double()
    return {"features": block_features(y, model.block)[0], "niqe": niqe(y, model)}


@runner("metrics", "niqe_aggd")
def run_niqe_aggd(case: Case) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for name in [name.removeprefix("x_") for name in case.arrays if name.startswith("x_")]:
        block = case.tensor(f"x_{name}")[None]
        outputs[f"params_{name}"] = torch.cat(asymmetric_fit(block))
        outputs[f"feat_{name}"] = statistics(block)[0]
        outputs["feat_flat"] = statistics(torch.zeros_like(block))[0]
    return outputs


@runner("metrics", "niqe_fit")
def run_niqe_fit(case: Case) -> dict[str, Any]:
    block, threshold = case.config["block"], case.config["sharpness_threshold"]
    images = case.tensor("y").double()
    sharpness = torch.stack([block_features(y, block)[1] for y in images])
    model = fit(images, block, threshold)
    return {
        "sharpness": sharpness,
        "selected": torch.stack([sharp_blocks(values, threshold) for values in sharpness]),
        "mu": model.mean,
        "cov": model.covariance,
        "eig_min": torch.linalg.eigvalsh(model.covariance)[0],
        "niqe_test": niqe(case.tensor("y_test").double(), model),
    }


@runner("metrics", "lpips")
def run_lpips(case: Case) -> dict[str, Any]:
    network = Lpips(case.config["net"], case.weights())
    sr, hr = case.tensor("sr").float() / 255, case.tensor("hr").float() / 255
    per_layer = network.per_layer(sr, hr)
    total = per_layer.sum(1)
    outputs = {
        "lpips": total,
        "per_layer": per_layer,
        "lpips_unscaled_0_1": network(sr, hr, scaled=False),
        "lpips_crop4": network(crop(sr, 4), crop(hr, 4)),
        "lpips_torchmetrics": total,
    }
    network.network.spatial = True
    return {**outputs, "spatial_sub": network.network(sr, hr, normalize=True)[:, 0, ::6, ::6]}


@runner("metrics", "dists")
def run_dists(case: Case) -> dict[str, Any]:
    network = Dists(case.weights())
    sr, hr = case.tensor("sr").float() / 255, case.tensor("hr").float() / 255
    value = network(sr, hr)
    means = torch.stack([features.mean((1, 2, 3)) for features in network.features(sr)], dim=1)
    return {"dists": value, "dists_pyiqa": value, "feature_means": means}


@runner("metrics", "fid")
def run_fid(case: Case) -> dict[str, Any]:
    real, fake = case.tensor("real"), case.tensor("fake")
    distance, kernel = frechet_distance(real, fake), kernel_distance(real, fake)
    half = len(real) // 2
    return {
        **{f"fid_{form}": distance for form in ("scipy", "torchmetrics", "symmetric", "svd")},
        "mean_term": (real.double().mean(0) - fake.double().mean(0)).square().sum(),
        "fid_real_halves": frechet_distance(real[:half], real[half:]),
        **{f"kid_{form}": kernel for form in ("one_subset_all", "torch_fidelity", "pyiqa_m")},
    }


@runner("metrics", "inception_filled")
def run_inception(case: Case) -> dict[str, Any]:
    stated = re.search(r"times ([0-9.]+)", str(case.config["gain"]))
    assert stated is not None
    gain = float(stated.group(1))
    weights = {name: value * gain if value.ndim >= 2 else value for name, value in case.weights().items()}
    network = FidInception(weights)
    images = case.tensor("images")
    features = {preset: network(prepare(images, preset)) for preset in ("pytorch_fid", "torch_fidelity", "torchmetrics", "clean")}
    original = features["torch_fidelity"]
    sampled = {preset: resize_for_inception(images, preset)[..., ::37, ::41] for preset in features}
    return {
        "tf_64": original[64],
        "tf_192": original[192][:, ::4],
        "tf_768": original[768][:, ::4],
        "tf_2048": original[2048][:, ::8],
        "tm_plain_2048": original[2048][:, ::8],
        "tm_antialias_2048": features["torchmetrics"][2048][:, ::8],
        "pytorchfid_2048": features["pytorch_fid"][2048][:, ::8],
        "clean_2048": features["clean"][2048][:, ::8],
        "resize_tf_sub": sampled["torch_fidelity"],
        "resize_aa_sub": sampled["torchmetrics"],
        "resize_plain_sub": sampled["pytorch_fid"] / 255,
        "resize_clean_sub": sampled["clean"],
    }


@runner("metrics", "opensr_distances")
def run_opensr_distances(case: Case) -> dict[str, Any]:
    x, y = case.tensor("x"), case.tensor("y")
    side, scale = case.config["patch_size"], case.config["scale_of_mtf"]
    outputs: dict[str, Any] = {}
    for name in sorted({array.split("_")[0] for array in case.arrays if "_" in array}):
        outputs[f"{name}_image"] = opensr.distance(x, y, name, scale)
        outputs[f"{name}_patch"] = opensr.patch_distance(x, y, name, side, scale)
        if name != "mtf":
            outputs[f"{name}_pixel"] = opensr.pixel_distance(x, y, name)
    return outputs


def opensr_options(config: dict[str, Any]) -> opensr.OpensrConfig:
    """The options that a case's config names; the others are the published defaults, which are ours."""
    published = {
        "agg_method": "aggregation",
        "patch_size": "patch_size",
        "border_mask": "border",
        "reflectance_distance": "reflectance_distance",
        "spectral_distance": "spectral_distance",
        "synthesis_distance": "synthesis_distance",
        "correctness_distance": "correctness_distance",
        "im_score": "penalty",
        "temperature": "temperature",
        "harm_apply_spectral": "match_histograms",
    }
    return opensr.OpensrConfig(**{ours: config[name] for name, ours in published.items() if name in config})


@runner("metrics", "opensr_pixel", "opensr_patch")
def run_opensr(case: Case) -> dict[str, Any]:
    lr, sr, hr = (torch.from_numpy(case.input(name).astype(np.float32) / np.float32(10000)) for name in ("lr", "sr", "hr"))
    options = opensr_options(case.config)
    images = opensr.prepare(lr, sr, hr, options)
    found = opensr.correctness(images, options)
    variants = {
        "m": options,
        "percent": replace(options, statistic="percent"),
        "thr0p1": replace(options, threshold=0.1),
        "noharm": replace(options, match_histograms=False),
    }
    outputs: dict[str, Any] = {
        "m_reflectance": opensr.reflectance(images, options),
        "m_spectral": opensr.spectral(images, options),
        "m_synthesis": opensr.synthesis(images, options),
        "lr_to_hr_sub": images.up[:, ::5, ::5],
        "sr_harm_sub": images.matched[:, ::5, ::5],
        "sr_to_lr": images.down,
        "d_ref_sub": found.d_ref[::4, ::4],
        "d_im_sub": found.d_improvement[::4, ::4],
        "d_om_sub": found.d_omission[::4, ::4],
        "class_sub": found.classes[::4, ::4],
        "valid_fraction": found.valid_share,
    }
    shorts = dict(zip(("im", "om", "ha"), opensr.CLASSES, strict=True))
    for index, short in enumerate(shorts):
        outputs[f"{short}_sub"] = found.maps[index][::4, ::4]
    for prefix, variant in variants.items():
        values = opensr.correctness(opensr.prepare(lr, sr, hr, variant), variant).values
        outputs |= {f"{prefix}_{short}_metric": values[name] for short, name in shorts.items()}
    return outputs


@runner("metrics", "opensr_spatial")
def run_opensr_spatial(case: Case) -> dict[str, Any]:
    reference, moving = (case.tensor(name).mean(0) for name in ("reference", "moving"))
    shift = subpixel_shift(reference, moving)
    return {
        "shift_rc": shift,
        "spatial": math.hypot(*shift),
        "shift_rc_crop4": subpixel_shift(crop(reference, 4), crop(moving, 4)),
    }
