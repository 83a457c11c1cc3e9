"""DANv2: the unrolled network through the importer, one group, a training step, self-ensemble, kernel basis, metrics, learning rate."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.degradations.kernels import peak_index
from rsdiff.degradations.pca import KernelBasisConfig, encode_kernels, kernel_basis
from rsdiff.degradations.rounding import to_uint8
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import combined
from rsdiff.methods.base import Problem
from rsdiff.methods.danv2 import DANv2Config, DANv2Method
from rsdiff.metrics.colour import crop, luma, quantise
from rsdiff.metrics.psnr import ergas_diffbsr, mse, psnr
from rsdiff.metrics.ssim import ssim
from rsdiff.networks.danv2 import DualPathBlock
from rsdiff.networks.layers import DualPathGroup
from rsdiff.training.config import LearningRateConfig
from rsdiff.training.learning_rate import learning_rate_factor
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps.danv2 import RULES
from rsdiff.weights.keymaps.renaming import renamed
from tests.method_losses import losses_of

from .. import fill
from ..case import Case, runner
from .diffbsr import load_network
from .words import given

published_name = partial(renamed, rules=RULES)

NO_NOISE = ReplayNoise([])


def load_method(case: Case) -> DANv2Method:
    """Return the method with the case's weights, imported as a released file is."""
    settings = case.config
    bands = settings.get("in_nc", 3)
    config = DANv2Config(
        width=settings["nf"],
        groups=settings["ng"],
        blocks=settings["nb"],
        loops=settings["loop"],
        basis=KernelBasisConfig(kernel_size=settings["kernel_size"], code_length=settings["input_para"]),
    )
    published = case.weights() | {"encoder": case.tensor("encoder")}
    # The file's names and shapes must tell the same network as the case's arguments.
    made, _ = import_weights("danv2", published)
    assert (made.width, made.groups, made.blocks, made.basis) == (config.width, config.groups, config.blocks, config.basis)
    config, state = import_weights("danv2", published, config)
    method = config.build(Problem(scale=settings["upscale"], bands=bands, lr_bands=bands))
    method.load_state_dict(state)
    exported = export_weights("danv2", config, state)
    assert all(torch.equal(exported[key], value) for key, value in published.items())
    return method.eval()


def batch_of(method: Any, lr: Tensor, **fields: Tensor) -> Batch:
    """Return a batch of images in [0, 1] for a method of one scale."""
    h, w = int(lr.shape[-2]), int(lr.shape[-1])
    metas = [SampleMeta(name=str(index)) for index in range(len(lr))]
    return Batch(metas=metas, size=(h * method.scale, w * method.scale), lr_size=(h, w), lr=lr, **fields)


def gradient_norms(method: torch.nn.Module, name: Any, keys: list[str]) -> list[float]:
    """Return the norms of the gradients of parameters given by their published names."""
    parameters = {name(key): parameter for key, parameter in method.named_parameters()}
    return [0.0 if parameters[key].grad is None else float(parameters[key].grad.double().norm()) for key in keys]


@runner("danv2", "dan", "dan_x4_small", "dan_x4_full")
@torch.no_grad()
def dan(case: Case) -> dict[str, Any]:
    results = load_method(case).network.unroll(given(case, "lr"))
    outputs: dict[str, Any] = {"codes": torch.stack(results.codes), "kernels": torch.stack(results.kernels)}
    for loop, (image, kernel, code) in enumerate(zip(results.images, results.kernels, results.codes, strict=True)):
        outputs |= {f"sr_{loop}": image, f"kernel_{loop}": kernel, f"code_{loop}": code}
    return outputs


@runner("danv2", "dpcg")
@torch.no_grad()
def dpcg(case: Case) -> dict[str, Any]:
    settings = case.config
    assert settings["nf1"] == settings["nf2"], "chained blocks need streams of equal width"
    group = DualPathGroup(DualPathBlock(settings["nf1"], settings["ksize1"], settings["ksize2"]) for _ in range(settings["nb"]))
    load_network(group, case.weights(), published_name)
    first, second = group(given(case, "x0"), given(case, "x1"))
    return {"y0": first, "y1": second, "block_out0": first / 2}


@runner("danv2", "train_step")
def train_step(case: Case) -> dict[str, Any]:
    method = load_method(case).train()
    lr, hr, true = (given(case, name) for name in ("lr", "hr", "kernel"))
    losses = losses_of(method, batch_of(method, lr, hr=hr, kernel=true), NO_NOISE)
    losses.total.backward()
    with torch.no_grad():
        results = method.network.unroll(lr)
    pixel = [float((image - hr).abs().mean()) for image in results.images]
    kernel = [float((taps.view_as(true) - true).abs().mean()) for taps in results.kernels]
    assert np.allclose([float(losses.terms["image"]), float(losses.terms["kernel"])], [pixel[-1], kernel[-1]], rtol=1e-5)
    norms = gradient_norms(method, lambda key: published_name(key.removeprefix("network.")), case.spec["grad_keys"])
    return {"l_pix": pixel, "l_ker": kernel, "total": losses.total, "grad_norm": norms}


@runner("danv2", "lr_schedule")
def lr_schedule(case: Case) -> dict[str, Any]:
    settings = case.config
    config = LearningRateConfig(shape="multistep", milestones=tuple(settings["milestones"]), gamma=settings["gamma"])
    count = len(case.arrays["lr"])
    return {"lr": [settings["base_lr"] * learning_rate_factor(config, step, 0, count) for step in range(count)]}


@runner("danv2", "self_ensemble")
@torch.no_grad()
def self_ensemble(case: Case) -> dict[str, Any]:
    method = load_method(case)
    batch = batch_of(method, given(case, "lr"))
    sampler = SamplerConfig()
    together = combined(lambda variant, _: method.restore(variant, sampler, NO_NOISE), batch, "mean")
    return {"x8": together, "single": method.restore(batch, sampler, NO_NOISE)}


@runner("danv2", "pca_encoder")
def pca_encoder(case: Case) -> dict[str, Any]:
    kernels, words = case.tensor("kernels"), case.spec["outputs"]
    size, length = case.config["l"], case.config["k"]
    basis = kernel_basis(kernels, length)
    chosen = [int(n) for n in re.findall(r"\d+", words["abs_code"])]
    even = int(re.search(r"l=(\d+)", words["axis_even"])[1])
    axes = {name: np.arange(n) - peak_index(n, "lower") for name, n in (("axis", size), ("axis_even", even))}
    wide = basis.double()
    return {"projector": wide @ wide.T, "abs_code": encode_kernels(kernels[chosen].float(), basis).abs(), **axes}


@runner("danv2", "metrics")
def metrics(case: Case) -> dict[str, Any]:
    border, words = case.config["crop_border"], case.spec["inputs"]["sr"]
    hr = given(case, "hr").numpy()
    low, high = (float(n) for n in re.search(r",(-?[\d.]+),(-?[\d.]+)\) float32", words).groups())
    amplitude = np.float32(re.search(r"hr\+([\d.]+)\*", words)[1])
    name, shape, salt = re.search(r"fill\.noise\('(\w+)',\(([\d, ]+)\),(\d+)\)", words).groups()
    error = fill.noise(name, tuple(int(n) for n in shape.split(",")), int(salt))
    sr = torch.from_numpy(np.clip(hr + amplitude * error, low, high).astype(np.float32))
    full = quantise(sr), quantise(torch.from_numpy(hr))
    inner = tuple(crop(image, border) for image in full)
    lumas = tuple(crop(luma(image, "y_studio"), border) for image in full)
    return {
        "sr_uint8_bgr": to_uint8(sr).flip(0).permute(1, 2, 0),
        "psnr_rgb": psnr(*inner),
        "ssim_rgb": ssim(*inner),
        "psnr_y": psnr(*lumas),
        "ssim_y": ssim(*lumas),
        "psnr_full": psnr(*full),
        "ssim_full": ssim(*full),
        "mse_full": mse(*full),
        "ergas_full": ergas_diffbsr(*full, case.config["ergas_scale"]),
    }
