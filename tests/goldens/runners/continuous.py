"""Runs the cases of `continuous`: LIIF, MetaSR, their coordinates, data and evaluation."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.augmentation import augment
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.scales import crop_sides, lr_sides, target_sides
from rsdiff.degradations.resizing import resize
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.continuous import ContinuousRegression, cell_of
from rsdiff.metrics.colour import LIIF, crop
from rsdiff.metrics.psnr import psnr
from rsdiff.networks.continuous_upsampling import pixel_centres
from rsdiff.weights import import_weights

from ..case import Case, runner
from .drawn import drawn, drawn_array, label

KINDS = ("liif_small", "liif_small_no_ensemble", "liif_small_no_unfold", "liif_small_no_cell")
PUBLISHED = ("liif_edsr_full_published", "liif_rdn_full_published")


def load(case: Case, arguments: dict[str, Any], model: str = "liif", chunk: int = 30_000) -> ContinuousRegression:
    """Return the method with the case's filled weights, read as a released file that stores its constructor's arguments."""
    content = {"model": {"name": model, "args": arguments, "sd": case.weights()}}
    config, state = import_weights(model, content)
    encoder = config.encoder
    lr_bands = state["encoder.head.weight" if encoder == "edsr" else "encoder.shallow1.weight"].shape[1]
    method = type(config)(**{**vars(config), "chunk": chunk}).build(Problem(scale=4, bands=3, lr_bands=lr_bands))
    method.load_state_dict(state)
    return method.eval()


@runner("continuous", *KINDS, *PUBLISHED, "metasr_small")
@torch.no_grad()
def networks(case: Case) -> dict[str, Any]:
    method = load(case, case.config, "metasr" if case.kind.startswith("metasr") else "liif")
    lr = 2 * drawn(case, "lr") - 1
    return {f"rgb_{H}x{W}": method.predict(lr, (H, W)).permute(0, 2, 3, 1) for H, W in case.config["sizes"]}


@runner("continuous", "make_coord")
def coordinates(case: Case) -> dict[str, Any]:
    made: dict[str, Any] = {f"c{i}": pixel_centres(shape).flatten(0, 1) for i, shape in enumerate(case.config["shapes"])}
    return made | {f"r{i}": pixel_centres(shape, ranges) for i, (shape, ranges) in enumerate(case.config["ranges"])}


def liif_psnr(sr: Tensor, hr: Tensor, protocol: str, scale: int) -> float:
    """PSNR of LIIF's evaluation on [0, 1], not rounded: plain, div2k (border scale + 6), benchmark (luma, border scale)."""
    border = {"plain": 0, "div2k": scale + 6, "benchmark": scale}[protocol]
    if protocol == "benchmark":
        weights = torch.tensor(LIIF, dtype=torch.float64)[:, None, None] / 256
        sr, hr = ((image.double() * weights).sum(-3, keepdim=True) for image in (sr, hr))
    return psnr(crop(sr[0], border), crop(hr[0], border), peak=1.0)


@runner("continuous", "liif_eval")
@torch.no_grad()
def evaluation(case: Case) -> dict[str, Any]:
    hr, lr = drawn(case, "hr"), drawn(case, "lr")
    method = load(case, case.config, chunk=case.config["eval_bsize"])
    size = tuple(case.config["hr_size"])
    batch = Batch(metas=[SampleMeta("0")], size=size, lr_size=(lr.shape[-2], lr.shape[-1]), lr=lr)
    sr = method.restore(batch, SamplerConfig(), ReplayNoise([])).clamp(0, 1)
    scale = size[0] // lr.shape[-2]
    made: dict[str, Any] = {"sr": sr, "psnr_plain": liif_psnr(sr, hr, "plain", scale)}
    return made | {f"psnr_{name}_x{scale}": liif_psnr(sr, hr, name, scale) for name in ("div2k", "benchmark")}


def grey_levels(image: Tensor) -> Tensor:
    """Return (1, C, h, w) in [0, 1] as uint8 (C, h, w)."""
    return (image[0] * 255).round().to(torch.uint8)


@runner("continuous", "implicit_downsampled")
def pairs(case: Case) -> dict[str, Any]:
    hr = torch.from_numpy(drawn_array(case, "hr"))[None]
    made: dict[str, Any] = {}
    for scale in case.config["scales"]:
        small = lr_sides((hr.shape[-2], hr.shape[-1]), scale)
        H, W = target_sides((hr.shape[-2], hr.shape[-1]), scale, "crop")
        target, name = hr[..., :H, :W], label(scale)
        colours, centres = target[0].flatten(1).mT, pixel_centres((H, W)).flatten(0, 1)
        made |= {
            f"inp_{name}": grey_levels(resize(target, small, "pillow_truncated")),
            f"coord_ends_{name}": centres[[0, 1, -1]],
            f"cell_{name}": cell_of((H, W)),
            f"n_{name}": H * W,
            f"gt_ends_{name}": colours[[0, 1, -1]],
        }
    return made | training_pair(hr, case.config["train"])


def training_pair(hr: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    """Replay the published order of draws: scale, top, left, flips of rows, columns and axes; then the queries from numpy."""
    random.seed(options["python_seed"])
    np.random.seed(options["numpy_seed"])
    scale = random.uniform(options["scale_min"], options["scale_max"])
    side, lr_side = crop_sides(scale, options["inp_size"], "lr", "nearest")
    top, left = random.randint(0, hr.shape[-2] - side), random.randint(0, hr.shape[-1] - side)
    crop = hr[..., top : top + side, left : left + side]
    small = resize(crop, (lr_side, lr_side), "pillow_truncated")
    flips = [random.random() < 0.5 for _ in range(3)] if options["augment"] else [False] * 3
    rows, columns, swap = flips
    crop, small = (augment(image, columns, rows, swap) for image in (crop, small))
    chosen = np.random.choice(side * side, options["sample_q"], replace=False)
    cell = cell_of((side, side))
    return {
        "train_inp": grey_levels(small),
        "train_coord": pixel_centres((side, side)).flatten(0, 1)[chosen],
        "train_cell": cell[None],
        "train_gt": crop[0].flatten(1).mT[chosen],
        "train_scale": scale,
    }
