"""Runs the cases of `continuous_methods` that come from SADN: its networks, sizes and figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.methods.base import Problem
from rsdiff.methods.sadn import SADN
from rsdiff.metrics.colour import crop, luma
from rsdiff.metrics.psnr import psnr
from rsdiff.metrics.ssim import ssim
from rsdiff.networks.sadn import ScaleAwareConv
from rsdiff.weights import import_weights
from rsdiff.weights.keymaps.renaming import ours_from_published, renamed
from rsdiff.weights.keymaps.sadn import BODY_RULES

from ..case import Case, runner
from .drawn import drawn, drawn_array


def load(case: Case) -> SADN:
    """Return the method of the case's weights, stored as Lightning stores them: settings beside the state dict."""
    tensors = {f"sr_net.{key}": value for key, value in case.weights().items()}
    config, state = import_weights("sadn", {"state_dict": tensors, "hyper_parameters": case.config["args"]})
    method = config.build(Problem(scale=4, bands=3, lr_bands=3))
    method.load_state_dict(state)
    return method.eval()


@runner("continuous_methods", "sadn", "csum_edsr", "csum_rdn")
@torch.no_grad()
def networks(case: Case) -> dict[str, Any]:
    method, lr = load(case), drawn(case, "lr")
    return {f"sr_{H}x{W}": method.predict(lr, (H, W)) for H, W in case.config["sizes"]}


@runner("continuous_methods", "sadn_self_ensemble")
@torch.no_grad()
def self_ensemble(case: Case) -> dict[str, Any]:
    H, W = case.config["out_size"]
    return {"sr": load(case).predict_ensemble(drawn(case, "lr"), (H, W))}


@runner("continuous_methods", "sadn_dynamic_conv")
@torch.no_grad()
def dynamic_conv(case: Case) -> dict[str, Any]:
    network = ScaleAwareConv(case.config["in_channels"], case.config["out_channels"], case.config["K"])

    def name(key: str) -> str:
        return renamed(f".aware.{key}", BODY_RULES).removeprefix(".d_conv.")

    network.load_state_dict(ours_from_published(case.weights(), network.state_dict(), name))
    x, made = drawn(case, "x"), dict[str, Tensor]()
    for scale in sorted({output.partition("_")[2] for output in case.spec["outputs"]}):
        made |= {f"out_{scale}": network(x, float(scale), 1.0), f"att_{scale}": network.shares(x, float(scale), 1.0)}
    return made


@runner("continuous_methods", "sadn_sizes")
def sizes(case: Case) -> dict[str, Any]:
    """SADN's rounding, which nothing here uses: LR sides int(H // s), cropped targets int(LR side * s)."""
    scales, heights = case.arrays["scales"], case.arrays["heights"]
    rows = [[(H, int(H // s), int(int(H // s) * s)) for s in scales.tolist()] for H in heights.tolist()]
    return {"scales": scales, "heights": heights, "rows": np.array(rows)}


@runner("continuous_methods", "sadn_metrics")
def metrics(case: Case) -> dict[str, Any]:
    a, b = (drawn_array(case, name)[0].astype(np.float64) for name in ("a", "b"))
    first, mixed = (torch.from_numpy(np.round(255 * image)) for image in (a, 0.8 * a + 0.2 * b))
    values = []
    for border in (0, 3):
        for space in ("bands", "y_studio"):
            pair = [crop(image if space == "bands" else luma(image, "y_studio"), border) for image in (first, mixed)]
            values.append([psnr(*pair), ssim(*pair)])
    return {"values": values}
