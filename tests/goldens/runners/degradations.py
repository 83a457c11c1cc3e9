"""The Gaussian degradation family: kernels, blur, resizing, whole pipelines, kernel codes, augmentation.

Many settings of this folder are sentences in the JSON; regular expressions read them, so that a case with other figures runs alike.
"""

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.augmentation import augment
from rsdiff.data.ranges import to_signed_range, to_unit_range
from rsdiff.degradations.blur import blur
from rsdiff.degradations.gaussian import GaussianDecisions, GaussianDegradation, GaussianDegradationConfig, GaussianParameters
from rsdiff.degradations.kernels import anisotropic_kernels, covariances, gaussian_kernels, isotropic_kernels, peak_index, shifted_mean
from rsdiff.degradations.pca import encode_kernels, kernel_basis
from rsdiff.degradations.resizing import resize_cubic, resize_pillow, shift_pixels, subsample
from rsdiff.degradations.rounding import round_to_grey_levels, to_uint8

from .. import fill
from ..case import AlmostEverywhere, Case, runner


def filled(recipe: dict[str, Any]) -> np.ndarray:
    """Return the array of a recipe such as {"round(255*fill.image)/255": [name, shape, salt]}, channels first."""
    ((words, (name, shape, salt)),) = recipe.items()
    values = (fill.noise if "fill.noise" in words else fill.image)(name, tuple(shape), salt)
    if "round(255" in words:
        values = np.round(255 * values)
    return values / np.float32(255) if words.endswith("/255") else values


def filled_tensor(recipe: dict[str, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(filled(recipe)))


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} not found in {text!r}"
    return float(found.group(1))


def numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} not found in {text!r}"
    return [float(group) for group in found.groups()]


def column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@runner("degradations", "augment_and_rounding")
def augment_and_rounding(case: Case) -> dict[str, Any]:
    image = case.tensor("image").permute(2, 0, 1)
    outputs: dict[str, Any] = {}
    for name in case.arrays:
        if match := re.fullmatch(r"h([01])v([01])r([01])", name):
            outputs[name] = augment(image, *(part == "1" for part in match.groups())).permute(1, 2, 0)
    floats = case.tensor("float_in").movedim(1, 0)
    outputs["tensor2uint8_range1"] = to_uint8(floats).permute(1, 2, 0)
    outputs["half_uint8_range255"] = to_uint8(case.tensor("half_in"), peak=255).permute(1, 2, 0)
    outputs["denorm"] = to_unit_range(case.tensor("denorm_in").movedim(1, 0))
    outputs["norm"] = to_signed_range(floats)
    return outputs


@runner("degradations", "bicubic_dasr")
def bicubic_dasr(case: Case) -> dict[str, Any]:
    outputs = {}
    for name, settings in case.config.items():
        image, ratio = filled_tensor(settings["input"]), settings["scale"]
        size = (int(image.shape[-2] * ratio), int(image.shape[-1] * ratio))
        outputs[name] = resize_cubic(image, size, "clamped", ratio, drop_first_pixel_zeros=True)
    return outputs


@runner("degradations", "imresize_matlab")
def imresize_matlab(case: Case) -> dict[str, Any]:
    def imresize(image: Tensor, ratio: float, antialias: bool = True) -> Tensor:
        size = (math.ceil(image.shape[-2] * ratio), math.ceil(image.shape[-1] * ratio))
        return resize_cubic(image, size, "symmetric", ratio, antialias)

    outputs = {}
    for name, settings in case.config.items():
        if isinstance(settings, dict):
            outputs[name] = imresize(filled_tensor(settings["input"]), settings["scale"], settings.get("antialiasing", True))
        else:
            prefix, scale = re.fullmatch(r"(\w+)_down(\d+)", name).groups()
            image = case.tensor(f"{prefix}_in").permute(2, 0, 1) / 255
            outputs[name] = to_uint8(imresize(image, 1 / int(scale))).permute(1, 2, 0)
    return outputs


@runner("degradations", "blur_reflect")
def blur_reflect(case: Case) -> dict[str, Any]:
    image = filled_tensor(case.spec["inputs"]["image"])
    kernels = [name for name in case.spec["inputs"] if name != "image"]
    return {f"out{name.removeprefix('k')}": blur(image, case.tensor(name)) for name in kernels}


@runner("degradations", "kernels_dasr")
def kernels_dasr(case: Case) -> dict[str, Any]:
    size = case.config["kernel_size"]
    width, second_width, degrees = column(case.config["aniso_lambda1_lambda2_theta_deg"]).unbind(1)
    even_size = case.config["even"]["kernel_size"]
    even = []
    for words in case.config["even"]["order"]:
        if words.startswith("iso"):
            even.append(isotropic_kernels(column([number(r"iso ([\d.]+)", words)]), even_size))
        else:
            first, second, angle = numbers(r"l1=([\d.]+) l2=([\d.]+) theta=([-\d.]+)deg", words)
            even.append(anisotropic_kernels(column([first]), column([second]), torch.deg2rad(column([angle])), even_size))
    return {
        "iso": isotropic_kernels(column(case.config["iso_sigma"]), size),
        "aniso": anisotropic_kernels(width, second_width, torch.deg2rad(degrees), size),
        "covariance": covariances(width, second_width, torch.deg2rad(degrees)),
        "even": torch.cat(even),
    }


@runner("degradations", "kernels_dan")
def kernels_dan(case: Case) -> dict[str, Any]:
    width, second_width, angle = (column(case.config[name]) for name in ("sigma_x", "sigma_y", "theta_rad"))
    strength = number(r"1 \+ ([\d.]+)\*field", case.config["disturb"])
    outputs = {}
    for name in case.spec["outputs"]:
        size = int(number(r"(?:an)?iso(\d+)", name))
        if name.startswith("iso"):
            outputs[name] = isotropic_kernels(column([case.config[f"{name}_sigma"]]), size, "lower")
        else:
            field = 1 + strength * case.tensor(f"{name}_field") if name.endswith("_disturbed") else None
            outputs[name] = anisotropic_kernels(width, second_width, angle, size, "lower", field)
    return outputs


@runner("degradations", "kernels_random_streams")
def kernels_random_streams(case: Case) -> dict[str, Any]:
    batch, words = case.config["batch"], case.config
    sizes = {name: int(number(r",(\d+)\)$", shape)) for name, shape in case.spec["outputs"].items() if name != "torch_draws"}

    draws = [torch.rand(batch, generator=generator) for generator in [torch.Generator().manual_seed(words["torch_seed"])] for _ in range(3)]
    high, low = numbers(r"U\*\(([\d.]+)-([\d.]+)\)", words["snf_iso"])

    def drawn(config: GaussianDegradationConfig, **uniforms: Any) -> Tensor:
        degradation = config.build()
        rows = [dict(zip(uniforms, map(float, row), strict=True)) for row in zip(*uniforms.values(), strict=True)]
        kernels = degradation.kernels([degradation.parameters(row) for row in rows])
        assert kernels is not None
        return kernels

    def aniso(name: str, angle: float) -> Tensor:
        config = GaussianDegradationConfig(
            kernel="anisotropic", kernel_size=sizes[name], width=(low, high), second_width=(low, high), angle=(0.0, angle)
        )
        return drawn(config, angle=draws[0], width=draws[1], second_width=draws[2])

    outputs: dict[str, Any] = {
        "torch_draws": torch.stack(draws),
        "snf_iso": drawn(GaussianDegradationConfig(kernel_size=sizes["snf_iso"], width=(low, high)), width=draws[0]),
        "snf_aniso": aniso("snf_aniso", math.pi / 180),
        "dasr_aniso": aniso("dasr_aniso", math.pi),
    }

    low, high = numbers(r"uniform\(([\d.]+),([\d.]+)", words["dan_iso"])
    outputs["dan_iso"] = isotropic_kernels(
        torch.from_numpy(np.random.RandomState(words["numpy_seed"]).uniform(low, high, batch)), sizes["dan_iso"], "lower"
    )
    low, high = numbers(r"in \(([\d.]+),([\d.]+)\)", words["dan_aniso_disturbed"])
    strength = number(r"uniform\(0,([\d.]+)", words["dan_aniso_disturbed"])
    for name, rate, disturbed in (
        ("dan_aniso_disturbed", 0.0, True),
        ("dan_mixed", number(r"rate_iso=([\d.]+)", words["dan_mixed"]), False),
    ):
        stream = np.random.RandomState(words["numpy_seed"])
        width, second_width = (torch.from_numpy(stream.uniform(low, high, batch)) for _ in range(2))
        angle = torch.from_numpy(stream.uniform(-math.pi, math.pi, batch))
        angle[torch.from_numpy(stream.uniform(0, 1, batch)) < rate] = 0  # the reference's masked entries keep both widths
        size = sizes[name]
        field = 1 + torch.from_numpy(stream.uniform(0, strength, (batch, size, size))) if disturbed else None
        outputs[name] = anisotropic_kernels(width, second_width, angle, size, "lower", field)
    return outputs


def decisions(
    parameters: GaussianParameters, size: tuple[int, int], noise: Tensor | None = None, views: int = 1
) -> list[GaussianDecisions]:
    fields = [None] * views if noise is None else list(noise)
    return [GaussianDecisions(parameters=parameters, lr_size=size, noise_field=field) for field in fields]


@runner("degradations", "pipeline_dasr_family")
def pipeline_dasr_family(case: Case) -> dict[str, Any]:
    hr = filled_tensor(case.spec["inputs"]["hr"]) / 255
    uniforms = case.tensor("uniforms").tolist()
    texts: dict[str, str] = case.config["cases"]
    outputs: dict[str, Any] = {}
    random_words = ""
    for name, words in texts.items():
        is_random = name.startswith("train")
        random_words = f"{words}; {random_words}" if is_random else random_words  # "same draws" refers to the case before
        degradation = dasr_family_config(case, name, random_words if is_random else words).build()
        noise = None
        if draw := re.search(r"(deg/noise\w+)(?:\[:(\d+)\])?", words if not is_random else random_words):
            recipe = next(r for r in case.spec["inputs"].values() if isinstance(r, dict) and draw.group(1) in str(r))
            noise = filled_tensor(recipe)[: int(draw.group(2)) if draw.group(2) else None]
            size = (noise.shape[-2], noise.shape[-1])
        else:
            scale = int(number(r"_x(\d+)", name))
            size = (hr.shape[-2] // scale, hr.shape[-1] // scale)
        samples, views = hr.shape[0] if is_random else 1, hr.shape[1]
        drawn: list[GaussianDecisions] = []
        for index in range(samples):
            values = {"angle": uniforms[0][index], "width": uniforms[1][index], "second_width": uniforms[2][index]}
            if degradation.config.kernel == "isotropic":
                values = {"width": uniforms[0][index]}
            values["noise"] = uniforms[3][index]
            parameters = degradation.parameters(values if is_random else {})
            drawn += decisions(parameters, size, None if noise is None else noise[index * views : (index + 1) * views], views)
        images = hr[:samples].flatten(0, 1)
        made = degradation.apply(images, drawn)
        outputs[name] = AlmostEverywhere(255 * made.lr.unflatten(0, (samples, views)), share=0.001, by=1.0, within=0.5)
        assert made.kernel is not None
        outputs[f"{name}_kernel"] = made.kernel[::views]
        unrounded = GaussianDegradation(dasr_family_config(case, name, random_words if is_random else words, rounding=False))
        outputs[f"{name}_unrounded"] = 255 * unrounded.apply(images, drawn).lr.unflatten(0, (samples, views))
    return outputs


def dasr_family_config(case: Case, name: str, words: str, rounding: bool = True) -> GaussianDegradationConfig:
    """Read the settings of one DASR-family case from its sentence; in random mode `words` holds the sentences of the cases before, too."""
    settings: dict[str, Any] = {
        "kernel": "anisotropic" if "aniso" in name else "isotropic",
        "kernel_size": case.config["kernel_size"],
        "resize": "direct" if "s-fold" in words else "clamped",
        "rounding": rounding,
        "clamp": "always" if rounding else "never",
    }
    if name.startswith("train"):
        low, span = numbers(r"lambda = ([\d.]+)\+([\d.]+)u", words)
        settings["width"] = settings["second_width"] = (low, low + span)
        settings["angle"] = (0.0, math.pi / 180 if re.search(r"theta = (\S+?)[,;]", f"{words};").group(1) == "u/180*pi" else math.pi)
        settings["noise"] = (0.0, number(r"level = ([\d.]+)(?:u|\*)", words))
        return GaussianDegradationConfig(**settings)
    noise = re.search(r"noise (?:std )?([\d.]+)", words)
    settings["noise"] = float(noise.group(1)) if noise else 0.0
    if settings["kernel"] == "isotropic":
        settings["width"] = number(r"sig ([\d.]+)", words)
    else:
        settings["width"], settings["second_width"] = numbers(r"lambda ([\d.]+)/([\d.]+)", words)
        settings["angle"] = math.radians(number(r"theta ([-\d.]+) deg", words))
    return GaussianDegradationConfig(**settings)


@runner("degradations", "pipeline_dan_family")
def pipeline_dan_family(case: Case) -> dict[str, Any]:
    hr = filled_tensor(case.spec["inputs"]["hr"])
    noise = filled_tensor(case.spec["inputs"]["noise"])
    basis = case.tensor("pca")
    size = (hr.shape[-2] // case.config["scale"], hr.shape[-1] // case.config["scale"])
    numerator, denominator = numbers(r"([\d.]+)/([\d.]+)", case.config["noisy"]["noise_high"])
    settings: dict[str, Any] = {
        "kernel_size": case.config["ksize"],
        "width": case.config["sigma"],
        "resize": "matlab",
        "clamp": "with_noise",
        "rounding": False,
    }

    def degraded(sigma_8bit: float) -> Any:
        degradation = GaussianDegradationConfig(**settings, noise=sigma_8bit).build()
        return degradation.apply(hr, decisions(degradation.parameters({}), size, noise if sigma_8bit else None, len(hr)))

    stable, noisy = degraded(0.0), degraded(255 * numerator / denominator)
    return {
        "stable_lr": stable.lr,
        "stable_code": encode_kernels(stable.kernel, basis),
        "stable_kernel": stable.kernel[:1],
        "stable_lr_bicubic_only": resize_cubic(hr, size, "symmetric"),
        "stable_lr_rounded": round_to_grey_levels(stable.lr),
        "stable_uint8": to_uint8(stable.lr[0]).flip(0).permute(1, 2, 0),
        "noisy_lr": noisy.lr,
        # The level in the code is masked to 0 (rate_cln = 1), although the noise itself is not.
        "noisy_code": encode_kernels(noisy.kernel, basis, torch.zeros(len(hr))),
    }


@runner("degradations", "gaussian8_x4")
def gaussian8(case: Case) -> dict[str, Any]:
    hr = filled_tensor(case.spec["inputs"]["hr"]) / 255
    scale = int(number(r"_x(\d+)", case.kind))
    size = (hr.shape[-2] // scale, hr.shape[-1] // scale)
    hr = hr[:, : size[0] * scale, : size[1] * scale]
    lr = []
    for width in case.config["sigmas"]:
        config = GaussianDegradationConfig(kernel_size=int(number(r"(\d+)x\d+ kernel", case.spec["what"])), width=width, resize="matlab")
        degradation = config.build()
        made = degradation.apply(hr[None], decisions(degradation.parameters({}), size))
        lr.append(to_uint8(made.lr[0]).permute(1, 2, 0))
    return {"lr": AlmostEverywhere(torch.stack(lr), share=0.001, by=1.0, within=0.5)}


@runner("degradations", "pca_kernel_basis")
def pca_kernel_basis(case: Case) -> dict[str, Any]:
    low, high, count = numbers(r"linspace\(([\d.]+),([\d.]+),(\d+)\)", case.config["sigmas"])
    size, words = case.config["kernel"], case.spec["outputs"]
    basis = kernel_basis(isotropic_kernels(torch.linspace(low, high, int(count), dtype=torch.float64), size, "lower"), case.config["k"])
    kernel = isotropic_kernels(column([number(r"sigma=([\d.]+)", words["singular_spread"])]), size, "lower")
    code = encode_kernels(kernel, basis)[0]
    first, last = numbers(r"rows (\d+)\.\.(\d+)", words["projector_rows"])
    return {
        "projector_rows": (basis @ basis.T)[int(first) : int(last)],
        "singular_spread": code.abs(),
        "reconstruction": basis @ code,
    }


@runner("degradations", "pil_bicubic_paths")
def pil_bicubic_paths(case: Case) -> dict[str, Any]:
    scale = case.config["scale"]
    ikc = filled_tensor(case.spec["inputs"]["ikc_in"])
    hr = filled_tensor(case.spec["inputs"]["hr"]) / 255
    size = (hr.shape[-2] // scale, hr.shape[-1] // scale)
    hr = hr[:, : size[0] * scale, : size[1] * scale]
    return {
        "ikc_lr": resize_pillow(ikc, (ikc.shape[-2] // scale, ikc.shape[-1] // scale), truncate=True),
        "lr": resize_pillow(hr[None], size)[0],
        "hr_shape": np.array(hr.shape),
    }


@runner("degradations", "shifted_kernels")
def shifted_kernels(case: Case) -> dict[str, Any]:
    image = filled_tensor(case.spec["inputs"]["image"]).double()
    outputs: dict[str, Any] = {}
    before = ""
    for name, words in case.config.items():
        if name.startswith("shifted"):
            before = f"{words}, {before}" if words.startswith("same") else words
            size, scale = int(number(r"size (\d+)", before)), int(number(r"sf (\d+)", before))
            first, second = numbers(r"eigenvalues ([\d.]+)(?: and|,) ([\d.]+)", before)
            covariance = covariances(column([first]).sqrt(), column([second]).sqrt(), column([number(r"theta ([-\d.]+)", before)]))
            outputs[name] = gaussian_kernels(covariance, size, shifted_mean(size, scale), dtype=torch.float64)[0]
        elif "anisotropic_Gaussian" in words:
            size, angle, first, second = numbers(r"\((\d+), theta=([-\d.]+), l1=([\d.]+), l2=([\d.]+)\)", words)
            covariance = covariances(column([first]).sqrt(), column([second]).sqrt(), column([angle]))
            outputs[name] = gaussian_kernels(covariance, int(size), peak_index(int(size), "lower"), dtype=torch.float64)[0]
        elif "bilinear sample" in words:
            outputs[name] = shift_pixels(image, number(r"at ([+-][\d.]+) px", words)).permute(1, 2, 0)
        else:
            kernel = outputs[re.search(r"with (\w+)", words).group(1)]
            step = int(number(r"\[::(\d+)", words))
            blurred = blur(image[None], kernel.flip(0, 1), border="circular")[0]
            outputs[name] = subsample(blurred, step).permute(1, 2, 0)
    return outputs
