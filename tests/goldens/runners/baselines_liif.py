"""Runs the LIIF cases of `baselines`."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
import torch

from rsdiff.networks.continuous_upsampling import pixel_centres

from .. import fill
from ..case import Case, runner
from .continuous import liif_psnr, load


def call_in(words: str) -> np.ndarray:
    """Return the array of the fill.image or fill.noise call that stands in the words of an input."""
    found = re.search(r"fill\.(image|noise)\('([^']+)',\s*(\([^)]*\))(?:,\s*salt=(\d+))?\)", words)
    assert found, words
    maker = fill.image if found[1] == "image" else fill.noise
    return maker(found[2], ast.literal_eval(found[3]), int(found[4] or 0))


@runner("baselines", "liif")
@torch.no_grad()
def liif(case: Case) -> dict[str, Any]:
    method = load(case, case.config["model"]["args"])
    inp = torch.from_numpy(2 * call_in(case.spec["inputs"]["inp"]) - 1)
    H, W = case.config["output_grid"]
    coordinates = pixel_centres((H, W)).flatten(0, 1)[:: case.config["query_stride"]].expand(len(inp), -1, -1)
    cell = torch.tensor([2 / H, 2 / W]).expand(len(inp), -1)
    return {"rgb": method.network(method.network.prepare(method.encoder(inp), cell), coordinates, cell)}


@runner("baselines", "liif_metrics")
def liif_metrics(case: Case) -> dict[str, Any]:
    hr, error = call_in(case.spec["inputs"]["hr"]), call_in(case.spec["inputs"]["sr"])
    deviation = re.search(r"hr\+([\d.]+)\*", case.spec["inputs"]["sr"])
    assert deviation
    sr = np.clip(hr + np.float32(deviation[1]) * error, 0, 1)
    images = torch.from_numpy(sr), torch.from_numpy(hr)
    made: dict[str, Any] = {name: liif_psnr(*images, name, case.config["scale"]) for name in ("plain", "benchmark", "div2k")}
    for name in case.spec["outputs"]:
        if found := re.fullmatch(r"coord_(\d+)x(\d+)", name):
            made[name] = pixel_centres((int(found[1]), int(found[2]))).flatten(0, 1)
    return made
