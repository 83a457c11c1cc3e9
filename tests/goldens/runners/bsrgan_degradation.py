"""BSRGAN's degradation: kernels, blurs, resizing, noise, JPEG, sharpening, whole pipelines from their decisions, data-set item, metrics."""

from __future__ import annotations

import math
import random
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.augmentation import augment
from rsdiff.data.source import Window
from rsdiff.degradations.base import cut
from rsdiff.degradations.blur import blur, blur_opencv
from rsdiff.degradations.bsrgan import CORRELATED_SIGMA_8BIT
from rsdiff.degradations.camera_kernels import gaussian_row, shaped_kernel, shifted_row
from rsdiff.degradations.camera_noise import correlated_covariance
from rsdiff.degradations.interpolation import interpolate
from rsdiff.degradations.jpeg import decode_jpeg, encode_jpeg
from rsdiff.degradations.practical import PracticalDecisions, hr_window
from rsdiff.degradations.resizing import resize_cubic, subsample
from rsdiff.degradations.rounding import GREY_LEVELS, to_uint8
from rsdiff.degradations.sharpening import gaussian_window, sharpen
from rsdiff.degradations.stages import (
    Decimate,
    GaussianNoise,
    Halve,
    IsotropicBlur,
    Jpeg,
    OrientedBlur,
    PoissonNoise,
    Resize,
    Sharpen,
    Speckle,
    Stage,
    rounds,
    run_stages,
)
from rsdiff.metrics.colour import crop, luma
from rsdiff.metrics.psnr import psnr
from rsdiff.metrics.ssim import ssim
from rsdiff.training.learning_rate import multistep

from ..case import Case, runner
from .practical_images import bands_first, bands_last, described_image, opencv_mode

SYMMETRIES = {  # KAIR's mode -> our flips: horizontal, vertical, transpose
    0: (False, False, False),
    1: (False, False, True),
    2: (False, True, False),
    3: (False, True, True),
    4: (True, False, False),
    5: (True, False, True),
    6: (True, True, False),
    7: (True, True, True),
}


@runner("bsrgan", "augment")
def run_augment(case: Case) -> dict[str, Any]:
    image = torch.arange(60, dtype=torch.uint8).reshape(4, 5, 3).movedim(-1, 0)
    outputs: dict[str, Any] = {f"mode{mode}": bands_last(augment(image, *flips)) for mode, flips in SYMMETRIES.items()}
    x = case.tensor("x")
    outputs["single2uint"] = to_uint8(x)
    outputs["tensor2uint"] = to_uint8(x).reshape(5, 5)
    outputs["half"] = to_uint8(torch.tensor([0.5, 1.5, 2.5, 3.5]) / GREY_LEVELS)
    settings = case.config["crop"]
    stream, patch, scale = random.Random(settings["seed"]), settings["lq_patchsize"], settings["sf"]
    lr, hr = (described_range(settings[name]) for name in ("lq", "hq"))
    window = Window(stream.randint(0, lr.shape[1] - patch), stream.randint(0, lr.shape[2] - patch), patch, patch)
    decisions = PracticalDecisions(stages=(), scale=scale, crop=window)
    return outputs | {"crop_lq": bands_last(cut(lr, window)), "crop_hq": bands_last(cut(hr, hr_window(decisions)))}


def described_range(words: str) -> Tensor:
    """Return the array of 'arange(216).reshape(8,9,3)', bands first."""
    count, height, width, bands = map(int, re.findall(r"\d+", words))
    return torch.arange(count).reshape(height, width, bands).movedim(-1, 0)


@runner("bsrgan", "kernels")
def run_kernels(case: Case) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for index, k in enumerate(case.config["aniso"]):
        outputs[f"aniso{index}"] = shaped_kernel(k["ksize"], math.sqrt(k["l1"]), math.sqrt(k["l2"]), k["theta"])
    for index, k in enumerate(case.config["iso"]):
        row = gaussian_row(k["ksize"], k["sigma"])
        outputs[f"iso{index}"] = torch.outer(row, row)
    for index, k in enumerate(case.config["shifted"]):
        row = shifted_row(k["ksize"], k["sigma"], (k["sf"] - 1) / 2)
        outputs[f"shifted{index}"] = torch.outer(row, row)
    return outputs


@runner("bsrgan", "blur")
def run_blur(case: Case) -> dict[str, Any]:
    image, scale = described_image(case.config["image"])[None], case.config["sf"]
    aniso, iso, shifted = (case.tensor(name) for name in ("k_aniso", "k_iso", "k_shifted"))
    outputs = {"blur_aniso": blur_opencv(image, [aniso.flip(0, 1)]), "blur_iso": blur_opencv(image, [iso.flip(0, 1)])}
    outputs["shifted_blur"] = blur_opencv(image, [shifted.flip(0, 1)])
    outputs["shifted_down"] = subsample(outputs["shifted_blur"], scale).clamp(0, 1)
    wrapped = outputs["wrap_blur"] = blur(image, aniso.flip(0, 1), border="circular")

    def reduced(images: Tensor, factor: int) -> Tensor:
        size = (math.ceil(images.shape[-2] / factor), math.ceil(images.shape[-1] / factor))
        return resize_cubic(images, size, "symmetric", 1 / factor)

    for name in case.spec["outputs"]:
        if found := re.fullmatch(r"(classical|srmd|dpsr|bicubic)_x(\d+)", name):
            kind, factor = found.group(1), int(found.group(2))
            outputs[name] = {
                "classical": lambda f: subsample(wrapped, f),
                "srmd": lambda f: reduced(wrapped, f),
                "dpsr": lambda f: blur(reduced(image, f), aniso.flip(0, 1), border="circular"),
                "bicubic": lambda f: reduced(image, f),
            }[kind](factor)
    return {name: bands_last(value[0]) for name, value in outputs.items()}


@runner("bsrgan", "imresize")
def run_imresize(case: Case) -> dict[str, Any]:
    image = described_image(case.config["image"])

    def imresize(images: Tensor, ratio: float, antialias: bool = True) -> Tensor:
        size = (math.ceil(images.shape[-2] * ratio), math.ceil(images.shape[-1] * ratio))
        return resize_cubic(images, size, "symmetric", ratio, antialias)

    outputs: dict[str, Any] = {}
    for name, words in case.spec["outputs"].items():
        if found := re.match(r"scale=([\d.]+) antialiasing=(True|False)", words):
            outputs[name] = bands_last(imresize(image, float(found.group(1)), found.group(2) == "True"))
        else:
            found = re.search(r"scale (\d+)/(\d+)", words)
            assert found, words
            made = imresize(image, int(found.group(1)) / int(found.group(2)))
            outputs[name] = made[0] if "channel 0" in words else made
    return outputs


@runner("bsrgan", "resize_cv2")
def run_resize_cv2(case: Case) -> dict[str, Any]:
    image = described_image(case.config["image"])[None]
    outputs = {}
    for name in case.spec["outputs"]:
        code, height, width = map(int, re.findall(r"\d+", name))
        outputs[name] = bands_last(interpolate(image, (height, width), opencv_mode(code), "opencv")[0])
    return outputs


@runner("bsrgan", "jpeg")
def run_jpeg(case: Case) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for name in case.spec["outputs"]:
        if found := re.fullmatch(r"q(\d+)_(\d+)x(\d+)", name):
            quality, height, width = map(int, found.groups())
            image = described_image(case.config["image"], (3, height, width))
            stream = encode_jpeg(to_uint8(image).numpy(), quality)
            outputs[name] = decode_jpeg(stream).transpose(1, 2, 0)
            outputs[f"n_bytes_{name}"] = [len(stream)]
    return outputs


@runner("bsrgan", "sharpen")
def run_sharpen(case: Case) -> dict[str, Any]:
    image = described_image(case.config["image"])[None]
    defaults = {name: case.config[name] for name in ("weight", "radius", "threshold")}
    outputs: dict[str, Any] = {"out": sharpen(image, **defaults, backend="opencv")}
    for name, words in case.spec["outputs"].items():
        given = dict(re.findall(r"(weight|radius|threshold)=([\d.]+)", words))
        if given:
            settings = {"weight": float(given["weight"]), "radius": int(given["radius"]), "threshold": float(given["threshold"])}
            outputs[name] = sharpen(image, **settings, backend="opencv")
    windows = {name: gaussian_window(int(name.removeprefix("gauss"))) for name in case.spec["outputs"] if name.startswith("gauss")}
    return {name: bands_last(value[0]) for name, value in outputs.items()} | windows


@runner("bsrgan", "noise")
def run_noise(case: Case) -> dict[str, Any]:
    image = described_image(case.config["image"])
    outputs: dict[str, Any] = {}
    for settings in case.config["cases"]:
        name = settings["case"]
        family, kind = name.split("_")
        field = bands_first(case.input(f"draw_{name}"))
        stage: Stage
        if family == "poisson":
            stage = PoissonNoise(name=name, photons=settings["vals"], is_grey=kind == "gray", counts=field.float())
        else:
            stage = noise_stage(Speckle if family == "speckle" else GaussianNoise, name, kind, settings["level"], field)
        outputs[f"out_{name}"] = bands_last(run_stages([image], [[stage]])[0])
        if kind == "correlated":
            outputs[f"cov_{name}"] = covariance(settings, case.config["noise_level"][1])
    return outputs


def covariance(settings: dict[str, Any], highest_level: float = CORRELATED_SIGMA_8BIT) -> Tensor:
    spread, mixing = (torch.tensor(settings[name], dtype=torch.float64) for name in ("diag", "mixing"))
    return correlated_covariance(spread, mixing, highest_level / GREY_LEVELS)


def noise_stage(stage: type[GaussianNoise], name: str, kind: str, level: float, field: Tensor) -> GaussianNoise:
    kinds: dict[str, Any] = {"color": "colour", "gray": "grey", "correlated": "correlated"}
    return stage(name=name, kind=kinds[kind], sigma_8bit=level, field=field)


def stage_of(case: Case, decision: dict[str, Any], scale: int, size: tuple[int, int]) -> Stage | None:
    """Return our stage for one recorded decision (image of `size` before it), or None where nothing happened."""
    name = decision["stage"]
    if decision.get("applied") is False or name in ("order", "crop"):
        return None
    match name.rstrip("0123456789"):
        case "sharpen":
            return Sharpen(name=name, backend="opencv")
        case "blur" if decision["kind"] == "aniso":
            widths = {"width": math.sqrt(decision["l1"]), "second_width": math.sqrt(decision["l2"])}
            return OrientedBlur(name=name, size=decision["ksize"], angle=decision["theta"], **widths)
        case "blur":
            return IsotropicBlur(name=name, size=decision["ksize"], width=decision["sigma"])
        case "downsample" if decision.get("kind") == "shifted_gaussian":
            return Decimate(name=name, size=decision["ksize"], width=decision["sigma"], step=decision["stride"])
        case "downsample" if decision.get("kind") == "imresize_np":
            return Halve(name=name)
        case "downsample" | "resize" | "final_resize":
            if "out_hw" in decision:
                target = decision["out_hw"]
            elif name == "final_resize":
                target = [side // scale for side in size]
            else:  # downsample1 halves
                target = [side // 2 for side in decision["in_hw"]]
            mode = opencv_mode(decision["interp"])
            return Resize(name=name, height=target[0], width=target[1], mode=mode, limited=name != "final_resize")
        case "gaussian_noise" | "speckle":
            field = bands_first(case.input(decision["noise"]))
            stage = Speckle if name.startswith("speckle") else GaussianNoise
            return noise_stage(stage, name, decision["kind"], decision["level"], field)
        case "poisson":
            counts = bands_first(case.input(decision["counts"])).float()
            return PoissonNoise(name=name, photons=decision["vals"], is_grey=decision["kind"] == "gray", counts=counts)
        case "jpeg" | "final_jpeg":
            return Jpeg(name=name, quality=decision["quality"])
    raise AssertionError(f"{case.folder}/{case.name}: no stage for the decision {decision}")


def plan_of(case: Case, scale: int, size: tuple[int, int]) -> tuple[list[tuple[dict[str, Any], Stage | None]], Window]:
    """Return every decision with its stage, and the crop."""
    decisions = case.spec["decisions"]
    crop_decision = next(decision for decision in decisions if decision["stage"] == "crop")
    patch = case.config["lq_patchsize"]
    plan = [(decision, stage_of(case, decision, scale, size)) for decision in decisions]
    return plan, Window(crop_decision["top"], crop_decision["left"], patch, patch)


@runner(
    "bsrgan",
    "pipeline1_sf4_ds1cv2",
    "pipeline2_sf4_ds1imresize",
    "pipeline3_sf4_resize",
    "pipeline4_sf4_shifted",
    "pipeline5_sf2_resize",
    "pipeline6_sf2_shifted",
    "plus1_local_sharp",
    "plus2_global",
)
def run_pipeline(case: Case) -> dict[str, Any]:
    scale = case.config["sf"]
    image = described_image(case.config["image"])
    height, width = (side - side % scale for side in image.shape[-2:])
    image = image[:, :height, :width]
    plan, window = plan_of(case, scale, (height, width))
    target_stages = [stage for _, stage in plan if isinstance(stage, Sharpen)]
    target = run_stages([image], [target_stages])[0]
    stages = [stage for _, stage in plan if stage is not None and not isinstance(stage, Sharpen)]
    after = [images[0] for images in rounds([target], [stages])]
    outputs: dict[str, Any] = {}
    done = 0
    for decision, stage in plan:
        entering = decision.get("input_array") or next((n for n in case.arrays if re.fullmatch(rf"in\d+_{decision['stage']}", n)), None)
        if entering is not None and entering in case.arrays:
            outputs[entering] = bands_last(stored_part(after[done], case.spec["outputs"][entering]))
        done += stage is not None and not isinstance(stage, Sharpen)
    made = PracticalDecisions(stages=tuple(stages), scale=scale, crop=window)
    outputs["lq"] = bands_last(cut(after[-1], window))
    hq = cut(target, hr_window(made))
    return outputs | {"hq": bands_last(hq), "hq_u8": bands_last(to_uint8(hq))}


def stored_part(image: Tensor, words: str) -> Tensor:
    """Return the part of an intermediate image that the case stores ('stored rows 28:52, columns 28:52'), or all of it."""
    found = re.search(r"rows (\d+):(\d+), columns (\d+):(\d+)", words)
    if not found:
        return image
    top, bottom, left, right = map(int, found.groups())
    return image[:, top:bottom, left:right]


@runner("bsrgan", "dataset_item")
def run_dataset_item(case: Case) -> dict[str, Any]:
    scale, side, place = case.config["scale"], case.config["H_size"], case.config["crop_and_augment"]
    image = described_image(case.config["image"])
    image = augment(cut(image, Window(place["top"], place["left"], side, side)), *SYMMETRIES[place["mode"]]).contiguous()
    plan, window = plan_of(case, scale, (side, side))
    stages = tuple(stage for _, stage in plan if stage is not None)
    decisions = PracticalDecisions(stages=stages, scale=scale, crop=window)
    lr = run_stages([image], [stages])[0]
    return {"L": cut(lr, window), "H_u8": to_uint8(cut(image, hr_window(decisions)))}


@runner("bsrgan", "metrics")
def run_metrics(case: Case) -> dict[str, Any]:
    a, b = (bands_first(case.input(name)).double() for name in ("a", "b"))
    outputs: dict[str, Any] = {}
    y = [luma(image, "y_studio_rounded") for image in (a, b)]
    for name in case.spec["outputs"]:
        if found := re.fullmatch(r"(psnr|ssim)(_y)?_b(\d+)", name):
            border = int(found.group(3))
            pair = [crop(image, border) for image in (y if found.group(2) else (a, b))]
            outputs[name] = [psnr(*pair) if found.group(1) == "psnr" else ssim(*pair)]
    chroma = [blue_red(a / GREY_LEVELS, weights) for weights in ((-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))]
    outputs["y_a"] = y[0][0].to(torch.uint8)
    outputs["ycbcr_a"] = bands_last(torch.cat([y[0], *(128 + c for c in chroma)])).round().to(torch.uint8)
    outputs["y_float"] = (luma(a, "y_studio")[0] / GREY_LEVELS).float()
    return outputs


def blue_red(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Return a chroma of an image (3, H, W) in [0, 1]; no metric uses chroma, so rsdiff has none."""
    return (image * image.new_tensor(weights)[:, None, None]).sum(0, keepdim=True)


@runner("bsrgan", "lr_schedule")
def run_lr_schedule(case: Case) -> dict[str, Any]:
    outputs = {}
    for stage in case.config:
        settings, steps = case.config[stage], case.input(f"{stage}_steps")
        outputs[f"{stage}_lr"] = np.array([settings["lr"] * multistep(int(n), settings["milestones"], settings["gamma"]) for n in steps])
    return outputs
