"""Runs the cases of `ldcsr` about data, degradation and metrics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from rsdiff.data.scales import crop_sides, lr_sides
from rsdiff.degradations.blur import blur
from rsdiff.degradations.kernels import anisotropic_kernels, covariances, isotropic_kernels
from rsdiff.degradations.resizing import resize, resize_cubic, subsample
from rsdiff.metrics.colour import crop, to_space
from rsdiff.metrics.colour import quantise as quantised
from rsdiff.metrics.psnr import psnr
from rsdiff.metrics.ssim import ssim

from ..case import AlmostEverywhere, Case, runner
from .drawn import drawn, drawn_array, label, pixels


@runner("ldcsr", "data_lr_pillow")
def lr_pillow(case: Case) -> dict[str, Any]:
    hr = pixels(drawn_array(case, "hr"))
    made: dict[str, Any] = {"hr_tensor": hr[0, :, :4, :4]}
    for scale in case.config["scales"]:
        small = resize(hr, lr_sides((hr.shape[-2], hr.shape[-1]), scale), "pillow")
        made[f"lr_{label(scale)}"] = (small[0] * 255).round().to(torch.uint8)
    return made


@runner("ldcsr", "data_multiscale_batches")
def multiscale_batches(case: Case) -> dict[str, Any]:
    """Replay of the published draws; our own scales are keyed by (seed, step), see TrainingSamples."""
    given = case.config
    made: dict[str, Any] = {}
    for stage, name in (("stage1", "s1"), ("stage2", "s2")):
        options = given[stage]
        random = np.random.RandomState(given["seed"])
        length, batch = max(options["data_length"], options["images"]), options["batch_size"]
        order = np.arange(length) % options["images"]
        random.shuffle(order)
        order = order[: options["data_length"]]
        scales = random.rand(options["data_length"] // batch + 1) * (given["max_scale"] - given["min_scale"]) + given["min_scale"]
        made[f"{name}_scales"] = scales
        if "lr_img_sz" in options:
            made[f"{name}_hr_size"] = [crop_sides(scale, options["lr_img_sz"], "lr", "down")[0] for scale in scales]
            made[f"{name}_index_and_batch"] = np.stack([order, np.arange(len(order)) // batch], axis=1)
        else:
            small = [crop_sides(scale, options["hr_img_sz"], "hr", "down")[1] for scale in scales]
            made |= {f"{name}_lr_size": small, f"{name}_scale_embedding": [options["hr_img_sz"] // side for side in small]}
            made[f"{name}_index"] = order
    return made


@runner("ldcsr", "metrics_psnr_ssim")
def metrics(case: Case) -> dict[str, Any]:
    first = drawn_array(case, "a")
    second = np.clip(np.round(first + 9 * drawn_array(case, "n")), 0, 255).astype(np.uint8)
    images = [pixels(image)[0].double() * 255 for image in (first, second)]
    images = [image.round() for image in images]
    made: dict[str, Any] = {}
    for border in case.config["crop_borders"]:
        for name, space in (("rgb", "bands"), ("y", "y_studio")):
            a, b = (crop(to_space(image, space), border) for image in images)
            made[f"{name}_{border}"] = [psnr(a, b), ssim(a, b)]
    values = torch.tensor([[[0.5 / 255, 1.5 / 255, 2.5 / 255]], [[-0.1, 1.2, 254.5 / 255]], [[0.1, 0.2, 0.3]]])
    made["quantised"] = quantised(values).permute(1, 2, 0).to(torch.uint8)
    return made


def whole_grey_levels(image: torch.Tensor) -> torch.Tensor:
    """Return (1, C, H, W) in 0..255, rounded and limited, as uint8 (H, W, C)."""
    return image[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


@runner("ldcsr", "data_imresize_matlab")
def imresize_matlab(case: Case) -> dict[str, Any]:
    """The case's notes allow the 8-bit images to differ by one grey level."""
    grey = drawn_array(case, "hr")
    hr = pixels(grey).double()
    H, W = hr.shape[-2:]
    made: dict[str, Any] = {}
    for scale in case.config["scales"]:
        size = math.ceil(H / scale), math.ceil(W / scale)
        floats = resize_cubic(hr, size, "symmetric", 1 / scale)
        small = whole_grey_levels(resize_cubic(hr * 255, size, "symmetric", 1 / scale))
        made |= {f"down_{label(scale)}": AlmostEverywhere(small, 1.0, 1.0), f"downf_{label(scale)}": floats[0].permute(1, 2, 0)}
        if f"up_{label(scale)}" in case.arrays:
            back = resize_cubic(small.permute(2, 0, 1)[None].double(), (H, W), "symmetric", scale)
            made[f"up_{label(scale)}"] = AlmostEverywhere(whole_grey_levels(back), 1.0, 1.0)
    return made


@runner("ldcsr", "data_srmd")
def srmd(case: Case) -> dict[str, Any]:
    given, x = case.config, drawn(case, "x").flatten(0, 1).float()
    scale, size = given["scale"], given["kernel_size"]
    first, second = (torch.tensor([given[name]], dtype=torch.float64) for name in ("lambda_1", "lambda_2"))
    angle = torch.deg2rad(torch.tensor([given["theta_degrees"]], dtype=torch.float64))
    kernel_iso = isotropic_kernels(torch.tensor([given["sigma_iso"]], dtype=torch.float64), size)
    kernel_aniso = anisotropic_kernels(first, second, angle, size)
    small = (x.shape[-2] // scale, x.shape[-1] // scale)
    blurred = blur(x, kernel_aniso)
    bicubic = resize(blurred, small, "dasr")

    def shaped(image: torch.Tensor, like: str) -> torch.Tensor:
        return image.reshape(case.arrays[like].shape)

    def limited(image: torch.Tensor) -> torch.Tensor:
        return image.round().clamp(0, 255)

    return {
        "kernel_iso": shaped(kernel_iso, "kernel_iso"),
        "kernel_aniso": shaped(kernel_aniso, "kernel_aniso"),
        "cov": shaped(covariances(first, second, angle), "cov"),
        "blur_aniso": shaped(blurred, "blur_aniso"),
        "bicubic": shaped(bicubic, "bicubic"),
        "lr_aniso": shaped(limited(bicubic), "lr_aniso"),
        "lr_bicubic_only": shaped(limited(resize(x, small, "dasr")), "lr_bicubic_only"),
        "lr_iso_sfold": shaped(limited(subsample(blur(x, kernel_iso), scale)), "lr_iso_sfold"),
    }
