"""Inputs that a case's JSON names as draws: {"draw": {"fn", "name", "shape", "salt"}, "transform": ...}."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import fill
from ..case import Case


def drawn_array(case: Case, name: str) -> np.ndarray:
    """Return input `name` after its transform: the draw itself, 2*x-1, round(255*x), or that as uint8 with channels last."""
    if name in case.arrays:
        return case.input(name)
    spec = case.spec["inputs"][name]
    draw = spec["draw"]
    maker = fill.image if draw["fn"] == "image" else fill.noise
    x = maker(draw["name"], tuple(draw["shape"]), draw.get("salt", 0))
    match spec.get("transform"):
        case None:
            return x
        case "2*x-1":
            return 2 * x - 1
        case "round(255*x)":
            return np.round(255 * x)
        case "round(255*x) as uint8, channels last":
            return np.round(255 * x).astype(np.uint8).transpose(1, 2, 0)
        case other:
            raise ValueError(f"unknown transform {other!r}")


def drawn(case: Case, name: str) -> Tensor:
    """Return `drawn_array` as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(drawn_array(case, name)))


def pixels(image: np.ndarray) -> Tensor:
    """Return uint8 (H, W, C) as (1, C, H, W) in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def label(number: float) -> str:
    """Return how array names write a number: 2.6 -> '2p6'."""
    return str(float(number)).replace(".", "p")
