"""DCLS: the network through the importer, deconvolution, collapse of linear filters, the kernel's truth, a training step."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from rsdiff.degradations.resizing import resize
from rsdiff.degradations.transfer import apply_transfer, least_squares_inverse, transfer_function
from rsdiff.losses.kernel_target import drop_small_taps, lr_kernel, spectral_kernels
from rsdiff.methods.base import Problem
from rsdiff.methods.dcls import DCLSConfig, DCLSMethod
from rsdiff.networks.dcls import DeepConstrainedLeastSquares, DualPathAttentionBlock, collapse_filters, normalise_kernels
from rsdiff.networks.layers import DualPathGroup
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps.dcls import RULES
from rsdiff.weights.keymaps.renaming import renamed
from tests.method_losses import losses_of

from ..case import Case, runner
from .danv2 import NO_NOISE, batch_of, gradient_norms
from .diffbsr import load_network
from .words import given

published_name = partial(renamed, rules=RULES)


def load_method(case: Case) -> DCLSMethod:
    """Return the method with the case's weights, imported as a released file is: the file's shapes tell the network."""
    settings, published = case.config, case.weights()
    config, state = import_weights("dcls", published)
    assert config == DCLSConfig(
        width=settings["nf"],
        groups=settings["ng"],
        blocks=settings["nb"],
        reduction=settings["reduction"],
        latent=settings["input_para"],
        kernel_size=settings["kernel_size"],
    )
    method = config.build(Problem(scale=settings["upscale"], bands=settings["in_nc"], lr_bands=settings["in_nc"]))
    method.load_state_dict(state)
    exported = export_weights("dcls", config, state)
    assert exported.keys() == published.keys()
    assert all(torch.equal(exported[key], value) for key, value in published.items())
    return method.eval()


def both_halves(spectrum: Tensor, width: int) -> Tensor:
    """Return the whole spectrum (.., H, W, 2) of a real signal from its half (.., H, W // 2 + 1): the rest is conjugate and mirrored."""
    mirrored = spectrum.conj().flip(-2).roll(1, -2).flip(-1)
    start = 1 if width % 2 == 0 else 0
    stop = spectrum.shape[-1] - 1
    return torch.view_as_real(torch.cat([spectrum, mirrored[..., start:stop]], dim=-1).resolve_conj())


@runner("dcls", "dcls")
@torch.no_grad()
def dcls(case: Case) -> dict[str, Any]:
    image, kernel = load_method(case).network(given(case, "lr"))
    return {"sr": image.clamp(0, 1), "sr_unclamped": image, "kernel": kernel[:, None]}


@runner("dcls", "cls_deconvolution")
def cls_deconvolution(case: Case) -> dict[str, Any]:
    feature, kernel, smoother = (given(case, name) for name in ("feat", "kernel", "P"))
    size = (int(feature.shape[-2]), int(feature.shape[-1]))
    blur = transfer_function(kernel, size)
    inverse = least_squares_inverse(blur, transfer_function(smoother, size))
    return {
        "otf_kernel": both_halves(blur, size[1]),
        "inverse": both_halves(inverse, size[1]),
        "deblurred": apply_transfer(feature, inverse),
    }


@runner("dcls", "cls_module")
@torch.no_grad()
def cls_module(case: Case) -> dict[str, Any]:
    layer = DeepConstrainedLeastSquares(case.config["nf"], case.config["reduction"])
    load_network(layer, case.weights(), published_name)
    feature, kernel = given(case, "feat"), given(case, "kernel")
    # In two halves, each within the case's tolerance: without epsilon in the deconvolution the last bit of P (6e-8) moves `out` by 3e-5,
    # more than the tolerance of its small values, so that the same layer in float64 would fail as a whole.
    reduced = layer.reduce(feature)
    return {"P": layer.smoothing_filters(reduced), "out": layer.deconvolve(reduced, kernel[:, 0], case.published("P"))}


@runner("dcls", "kernel_composition", "kernel_composition_31")
def kernel_composition(case: Case) -> dict[str, Any]:
    batch = case.config["batch"]
    filters = [given(case, name).unflatten(0, (batch, -1)) for name in sorted(case.spec["inputs"])]
    per_band = collapse_filters(filters)
    total = per_band.mean(1, keepdim=True).sum(dim=(-2, -1), keepdim=True)
    return {"per_channel": per_band, "kernel": normalise_kernels(per_band, "sum")[:, None], "sum": total}


@runner("dcls", "dpcag")
@torch.no_grad()
def dpcag(case: Case) -> dict[str, Any]:
    settings, weights = case.config, case.weights()
    assert settings["ksize1"] == settings["ksize2"] == 3, "the published network has no other kernels"
    squeezed = weights["body.0.CA_body1.2.conv_du.0.weight"].shape[0]
    reduction = settings["nf1"] // squeezed
    group = DualPathGroup(DualPathAttentionBlock(settings["nf1"], settings["nf2"], reduction) for _ in range(settings["nb"]))
    load_network(group, weights, published_name)
    first, second = group(given(case, "x0"), given(case, "x1"))
    return {"y0": first, "y1": second}


@runner("dcls", "kernel_correction")
def kernel_correction(case: Case) -> dict[str, Any]:
    taps = case.config["kernel_size"]
    blurred, sharp, predicted = (given(case, name) for name in ("lr_blured", "lr", "k_pred"))
    target = lr_kernel(blurred, sharp, taps)[:, None]
    return {
        "raw_kernel": spectral_kernels(blurred, sharp, taps),
        "target": target,
        "loss": (predicted - target).abs().mean(),
        "zeroized_pred": drop_small_taps(predicted, case.config["n"]),
    }


@runner("dcls", "train_step")
def train_step(case: Case) -> dict[str, Any]:
    method = load_method(case).train()
    lr, blurred, hr = (given(case, name) for name in ("lr_input", "lr_blured", "hr"))
    batch = batch_of(method, lr, hr=hr, lr_clean=blurred)
    losses = losses_of(method, batch, NO_NOISE)
    losses.total.backward()
    norms = gradient_norms(method, lambda key: published_name(key.removeprefix("network.")), case.spec["grad_keys"])
    return {
        "lr": resize(hr, batch.lr_size, method.sharp_resize),
        "l_pix": losses.terms["image"],
        "l_ker": losses.terms["kernel"],
        "total": losses.total,
        "grad_norm": norms,
    }
