"""Real-ESRGAN's degradation: kernels, filters, resizing, noise, differentiable JPEG, pair pool, whole pipelines from their decisions."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from torch import Tensor

from rsdiff.data.source import Window
from rsdiff.degradations.base import cut
from rsdiff.degradations.blur import blur_mirrored
from rsdiff.degradations.camera_kernels import KernelShape, padded_kernel, shaped_kernel, sinc_kernel
from rsdiff.degradations.camera_noise import distinct_photons, photon_rate
from rsdiff.degradations.interpolation import Interpolation, interpolate
from rsdiff.degradations.jpeg import jpeg_differentiable, quantisation_factors
from rsdiff.degradations.pool import PairPool
from rsdiff.degradations.practical import PracticalDecisions, hr_window
from rsdiff.degradations.rounding import GREY_LEVELS, to_uint8
from rsdiff.degradations.sharpening import sharpen
from rsdiff.degradations.stages import GaussianNoise, GivenBlur, Jpeg, Resize, Round, ScaledPoissonNoise, Sharpen, Stage, rounds, run_stages

from .. import fill
from ..case import AlmostEverywhere, Case, runner
from .practical_images import described_image


def published_kernel(settings: dict[str, Any], pad_to: int = 0) -> Tensor:
    """Return the kernel of recorded parameters, padded to `pad_to` or to what they say."""
    size = settings["kernel_size"]
    if "cutoff" in settings:
        kernel = sinc_kernel(size, settings["cutoff"])
    else:
        shape: KernelShape = "gaussian"
        words = str(settings.get("type", ""))
        if "plateau" in words:
            shape = "plateau"
        elif "generalized" in words:
            shape = "generalised"
        second, angle = (settings["sig_x"], 0.0) if settings["isotropic"] else (settings["sig_y"], settings["theta"])
        kernel = shaped_kernel(size, settings["sig_x"], second, angle, shape, settings.get("beta", 1.0))
    return padded_kernel(kernel, max(size, pad_to, int(settings.get("pad_to") or 0)))


@runner("real_esrgan", "kernels")
def run_kernels(case: Case) -> dict[str, Any]:
    shapes = {"g": "generalized", "p": "plateau"}
    outputs = {}
    for name, settings in case.config.items():
        prefix = re.fullmatch(r"([gp]?)(iso|aniso|sinc)\w*", name)
        assert prefix, name
        outputs[name] = published_kernel({"type": shapes.get(prefix.group(1), ""), **settings})
    return outputs


@runner("real_esrgan", "dataset_kernels")
def run_dataset_kernels(case: Case) -> dict[str, Any]:
    made: dict[str, list[Tensor]] = {"kernel1": [], "kernel2": [], "sinc_kernel": []}
    size = case.config["blur_kernel_size"]
    for draws in case.spec["draws"]:
        drawn = [{"type": draw["fn"], **draw["value"]} for draw in draws if draw["fn"].startswith("kernel.")]
        kernels = [published_kernel(settings, size) for settings in drawn]
        if len(kernels) == 2:  # the final sinc filter was not drawn: a unit pulse
            kernels.append(padded_kernel(torch.ones(1, 1, dtype=torch.float64), size))
        for name, kernel in zip(made, kernels, strict=True):
            made[name].append(kernel)
    return {name: torch.stack(kernels) for name, kernels in made.items()}


@runner("real_esrgan", "filter_usm")
def run_filter_usm(case: Case) -> dict[str, Any]:
    images, kernels = described_image(case.config["input"]), case.tensor("kernels")
    settings = {name: case.config[name] for name in ("weight", "radius", "threshold")}
    outputs = {
        "filtered": blur_mirrored(images, kernels),
        "filtered_one": blur_mirrored(images, kernels[:1].expand(len(images), -1, -1)),
        "usm": sharpen(images, **settings, backend="dense"),
        "usm_np": sharpen(images[:1], **settings, backend="opencv")[0].movedim(0, -1),
    }
    return {name: value[::2, ::2] if name == "usm_np" else value[..., ::2, ::2] for name, value in outputs.items()}


@runner("real_esrgan", "resize")
def run_resize(case: Case) -> dict[str, Any]:
    images = described_image(case.config["input"])
    outputs = {}
    for name in case.spec["outputs"]:
        mode, _, target = name.partition("_")
        if target.startswith("sf"):
            outputs[name] = resized(images, mode, float(target.removeprefix("sf")))
        else:
            height, width = map(int, target.split("x"))
            outputs[name] = interpolate(images, (height, width), mode, "torch")  # type: ignore[arg-type]
    return outputs


def resized(images: Tensor, mode: Any, ratio: float) -> Tensor:
    """Return images resized by a ratio, as Real-ESRGAN's first resize does it."""
    size = (int(images.shape[-2] * ratio), int(images.shape[-1] * ratio))
    return interpolate(images, size, mode, "torch", None if mode == "area" else ratio)


@runner("real_esrgan", "noise")
def run_noise(case: Case) -> dict[str, Any]:
    images, settings = described_image(case.config["input"]), case.config
    fields = {name: described_noise(settings[f"z_{name}"]) for name in ("gray", "color")}
    counts = {name: case.tensor(f"counts_{name}").float() for name in ("gray", "color")}

    def gaussian(flags: list[float]) -> Tensor:
        stages = [gaussian_noise("noise", i, settings["sigma"][i], flag, fields) for i, flag in enumerate(flags)]
        return torch.stack(run_stages(list(images), [[stage] for stage in stages]))

    poisson = [poisson_noise("noise", i, settings["poisson_scale"][i], flag, counts) for i, flag in enumerate(settings["gray"])]
    rate = photon_rate(images, True, "real_esrgan")
    grey_photons, photons = distinct_photons(rate), distinct_photons(photon_rate(images, False, "real_esrgan"))
    return {
        "gaussian_mixed": gaussian(settings["gray"]),
        "gaussian_color": gaussian([0] * len(images)),
        "poisson_mixed": torch.stack(run_stages(list(images), [[stage] for stage in poisson])),
        "rate_gray": rate * grey_photons[:, None, None, None],
        "vals": torch.stack([grey_photons, photons]),
    }


def described_noise(words: str) -> Tensor:
    """Return the draw of 'fill.noise("re_n_gray",[20,22])'."""
    found = re.fullmatch(r"fill\.noise\((.*)\)", words)
    assert found, words
    name, shape, *salt = json.loads(f"[{found.group(1)}]")
    return torch.from_numpy(fill.noise(name, tuple(shape), *salt))


def gaussian_noise(name: str, index: int, sigma_8bit: float, is_grey: float, fields: dict[str, Tensor]) -> Stage:
    """The grey field is one (H, W) draw for the whole batch."""
    normals = fields["gray"][None] if is_grey else fields["color"][index]
    field = normals * (sigma_8bit / GREY_LEVELS)
    return GaussianNoise(name=name, kind="grey" if is_grey else "colour", sigma_8bit=sigma_8bit, field=field)


def poisson_noise(name: str, index: int, scale: float, is_grey: float, counts: dict[str, Tensor]) -> Stage:
    drawn = counts["gray" if is_grey else "color"][index]
    return ScaledPoissonNoise(name=name, scale=scale, is_grey=bool(is_grey), counts=drawn)


@runner("real_esrgan", "diffjpeg")
def run_diffjpeg(case: Case) -> dict[str, Any]:
    images, words = described_image(case.config["input"]), case.config
    quality = torch.tensor(words["quality"], dtype=torch.float32)
    index, height, width, odd_quality = numbers(r"sample (\d+) cropped to (\d+)x(\d+), quality (\d+)", words["odd"])
    odd = images[index : index + 1, :, :height, :width]
    first, second, low, high = numbers(r"samples (\d+),(\d+), quality (\d+) and (\d+)", words["diff"])
    index, grad_quality = numbers(r"sample (\d+), quality (\d+)", words["grad"])
    image = images[index : index + 1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(jpeg_differentiable(image, torch.tensor([float(grad_quality)]), True).square().mean(), image)
    outputs = {
        "batch": jpeg_differentiable(images, quality),
        "odd": jpeg_differentiable(odd, torch.tensor([float(odd_quality)])),
        "diff": jpeg_differentiable(images[[first, second]], torch.tensor([float(low), float(high)]), True),
        "grad": gradient,
    }
    return outputs | {"factor": quantisation_factors(quality)}


def numbers(pattern: str, words: str) -> list[int]:
    found = re.search(pattern, words)
    assert found, f"{pattern!r} not found in {words!r}"
    return [int(group) for group in found.groups()]


@runner("real_esrgan", "pair_pool")
def run_pair_pool(case: Case) -> dict[str, Any]:
    batch, pool, orders = case.config["batch"], PairPool(case.config["queue_size"]), list(case.tensor("perms"))
    outputs: dict[str, list[Tensor]] = {"lq_ids": [], "gt_ids": []}
    for push in range(case.config["pushes"]):
        ids = torch.arange(batch, dtype=torch.float32) + batch * push
        lr, hr = pool.exchange_in_order(ids, 10 * ids, orders.pop(0) if pool.is_full else None)
        outputs["lq_ids"].append(lr)
        outputs["gt_ids"].append(hr)
    return {name: torch.stack(values) for name, values in outputs.items()}


def stages_of(case: Case, index: int, sharpens: bool) -> list[Stage]:
    """Return the stages of image `index`: first the sharpening where the LR alone is made of it, last the rounding."""
    stages: list[Stage] = [Sharpen(name="sharpen", backend="dense")] if sharpens else []
    kernels = {blur: case.tensor(name) for blur, name in (("blur1", "kernel1"), ("blur2", "kernel2"), ("sinc", "sinc_kernel"))}
    for decision in case.spec["decisions"]:
        name = decision["stage"]
        if decision.get("applied") is False or name == "crop":
            continue
        if name in kernels:
            stages.append(GivenBlur(name=name, weights=kernels[name][index], backend="torch"))
        elif name.startswith("resize"):
            mode: Interpolation = decision["mode"]
            ratio = decision["scale"] if decision.get("how") == "scale_factor" and mode != "area" else None
            height, width = decision["out_hw"]
            stages.append(Resize(name=name, height=height, width=width, mode=mode, backend="torch", limited=False, ratio=ratio))
        elif name.startswith("noise"):
            fields = {kind: case.tensor(decision[f"{kind}_draw"]).float() for kind in ("gray", "color") if f"{kind}_draw" in decision}
            is_grey = decision["gray"][index]
            if decision["kind"] == "gaussian":
                stages.append(gaussian_noise(name, index, decision["sigma"][index], is_grey, fields))
            else:
                stages.append(poisson_noise(name, index, decision["scale"][index], is_grey, fields))
        elif name.startswith("jpeg"):
            stages.append(Jpeg(name=name, quality=decision["quality"][index], backend="differentiable"))
        else:
            assert name == "round", decision
            stages.append(Round(name=name))
    return stages


@runner("real_esrgan", "pipeline1", "pipeline2", "pipeline3", "pipeline4", "pipeline5_net_x2")
def run_pipeline(case: Case) -> dict[str, Any]:
    gt, scale = described_image(case.config["gt"]), case.config["scale"]
    is_sharpened_target = case.config["class"] == "RealESRNetModel"
    target = sharpen(gt, backend="dense") if is_sharpened_target else gt
    crop = next(decision for decision in case.spec["decisions"] if decision["stage"] == "crop")
    patch = case.config["gt_size"] // scale
    window = Window(crop["top"], crop["left"], patch, patch)
    plans = [stages_of(case, index, not is_sharpened_target) for index in range(len(gt))]
    after = [torch.stack(images) for images in rounds(list(target), plans)]
    outputs: dict[str, Any] = {}
    for name, words in case.spec["outputs"].items():
        if found := re.search(r"number (\d+) in execution order.*rows (\d+):(\d+), columns (\d+):(\d+)", words):
            number, top, bottom, left, right = map(int, found.groups())
            image = after[number + (not is_sharpened_target)]
            outputs[name] = image[..., top:bottom, left:right]
    lr = cut(after[-1], window)
    hr = cut(target, hr_window(PracticalDecisions(stages=(), scale=scale, crop=window)))
    # The JSON's tolerance note: rounding to 8 bits may move up to 15 % of the values, by at most 6 grey levels.
    outputs["lq"] = AlmostEverywhere(lr, share=0.15, by=6 / GREY_LEVELS) if "85 %" in case.spec.get("tolerance_note", "") else lr
    outputs["gt_u8"] = to_uint8(hr)
    outputs["gt_sub"] = hr[..., ::2, ::2]
    outputs["gt_usm_sub"] = sharpen(hr, backend="dense")[..., ::2, ::2]
    return outputs
