"""Runs the cases of `continuous_methods` but those of SADN: LTE, LMF, CMSR, CiaoSR, their attention and SwinIR."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rsdiff.methods.base import Problem
from rsdiff.methods.cmsr import CMSRConfig, build_row, network_of
from rsdiff.methods.continuous import ContinuousRegression, cell_of
from rsdiff.networks.cross_scale_attention import CrossScaleAttention
from rsdiff.weights import import_weights
from rsdiff.weights.keymaps.encoders import DEAD, encoder_options, swinir_name
from rsdiff.weights.keymaps.implicit import ATTENTION, LOWEST_NORM_KEY
from rsdiff.weights.keymaps.renaming import ours_from_published, renamed

from ..case import Case, runner
from .drawn import drawn

OURS = {"lte": "lte", "lte-fast": "lte", "lmlte": "lmf_lte", "lmliif": "lmf_liif", "lmciaosr": "lmf_ciaosr", "ciaosr": "ciaosr"}


def built(kind: str, content: Mapping[str, Any], **changes: Any) -> ContinuousRegression:
    """Return the method of a file's content, in evaluation mode; `changes` are options of restoration."""
    config, state = import_weights(kind, content)
    method = dataclasses.replace(config, **changes).build(Problem(scale=4, bands=3, lr_bands=3))
    method.load_state_dict(state)
    return method.eval()


def load(case: Case, **changes: Any) -> ContinuousRegression:
    """Return the method of a case whose config is a constructor's name and arguments, as released files store them."""
    spec = {"name": case.config["name"], "args": case.config["args"], "sd": case.weights()}
    return built(OURS[spec["name"]], {"model": spec}, **changes)


def load_ciaosr(case: Case) -> ContinuousRegression:
    """Return CiaoSR in its own form; its released files store no arguments."""
    given = {"local_size": "neighbourhood", "softmax_scale": "temperature", "eval_bsize": "chunk"}
    changes = {ours: case.config[key] for key, ours in given.items() if key in case.config}
    if "tile" in case.config:
        changes |= {"tile": case.config["tile"], "tile_overlap": case.config["tile_overlap"]}
    return built("ciaosr", {"state_dict": {f"generator.{key}": value for key, value in case.weights().items()}}, **changes)


def outputs(method: ContinuousRegression, lr: Tensor, sizes: list[tuple[int, int, float]]) -> dict[str, Tensor]:
    """Return {rgb_HxW: (B, C, H, W)} in normalised units."""
    normalised = method.normalised(lr)
    return {f"rgb_{H}x{W}": method.predict(normalised, (H, W), cell_of((H, W)) * factor) for H, W, factor in sizes}


@runner("continuous_methods", "lte", "lte_fast", "lmf_lte", "lmf_liif", "lmf_ciaosr", "ciaosr_lmf")
@torch.no_grad()
def networks(case: Case) -> dict[str, Any]:
    """Images are as large as the features: what surrounds an image in evaluation has a case of its own."""
    method = load(case)
    method.options = dataclasses.replace(method.options, swinir=dataclasses.replace(method.options.swinir, mirror=False))
    made = outputs(method, drawn(case, "lr"), case.config["sizes"])
    return made if case.kind == "lte_fast" else {name: rgb.movedim(1, -1) for name, rgb in made.items()}


@runner("continuous_methods", "lte_window_eval")
@torch.no_grad()
def lte_window(case: Case) -> dict[str, Any]:
    method = load(case, largest_told=float(case.config["scale_max"]))
    lr = method.normalised(drawn(case, "lr"))
    size = (lr.shape[-2] * case.config["scale"], lr.shape[-1] * case.config["scale"])
    return {"padded": method.extended(lr), "sr": ((method.predict(lr, size) + 1) / 2).clamp(0, 1)}


@runner("continuous_methods", "swinir_encoder")
@torch.no_grad()
def swinir_encoder(case: Case) -> dict[str, Any]:
    published = case.weights()
    encoder = encoder_options(published, lambda config: swinir_name, prefix="")["swinir"].build(3)
    encoder.load_state_dict(ours_from_published(published, encoder.state_dict(), swinir_name, DEAD))
    return {"feat": encoder.eval().extended(2 * drawn(case, "lr") - 1)}


@runner("continuous_methods", "ciaosr")
@torch.no_grad()
def ciaosr(case: Case) -> dict[str, Any]:
    made = outputs(load_ciaosr(case), drawn(case, "lr"), case.config["sizes"])
    return {name: rgb.movedim(1, -1) for name, rgb in made.items()}


@runner("continuous_methods", "ciaosr_tiled")
@torch.no_grad()
def ciaosr_tiled(case: Case) -> dict[str, Any]:
    method, lr = load_ciaosr(case), drawn(case, "lr")
    size = (lr.shape[-2] * case.config["scale"], lr.shape[-1] * case.config["scale"])
    return {"rgb": method.restored(method.normalised(lr), size).movedim(1, -1)}


@runner("continuous_methods", "ciaosr_lmf_tiles")
@torch.no_grad()
def ciaosr_tiles(case: Case) -> dict[str, Any]:
    method, lr = load(case), drawn(case, "lr")
    features = method.encoder(method.normalised(lr))
    found = method.network.prepare(features, torch.ones(len(lr), 2))[:, 9 * features.shape[1] :]
    return {"rows_around_seam": found[:, :, 44:52], "last_rows": found[:, :, -3:]}


@runner("continuous_methods", "cross_scale_attention")
@torch.no_grad()
def attention(case: Case) -> dict[str, Any]:
    network = CrossScaleAttention(case.config["channel"], case.config["scale"])

    def name(key: str) -> str:
        return renamed(f"attention.{key}", ATTENTION).removeprefix("cs_attn.")

    ignored = [LOWEST_NORM_KEY.removeprefix("cs_attn.")]
    network.load_state_dict(ours_from_published(case.weights(), network.state_dict(), name, ignored))
    return {"out": network(drawn(case, "feat"))}


def load_cmsr(case: Case, **options: Any) -> ContinuousRegression:
    return load(case, cmsr=CMSRConfig(**options))


@runner("continuous_methods", "cmsr")
@torch.no_grad()
def cmsr(case: Case) -> dict[str, Any]:
    """Pixels that a case says float rounding decides (`stable` is 0, see its notes) are left out."""
    tables = case.config["cmsr_spec"]["s2m_tables"]
    rows = tuple((float(s), *(float(x) for pair in row.items() for x in pair)) for s, row in tables.items())
    method = load_cmsr(case, table=rows, clamp=True)
    lr = method.normalised(drawn(case, "lr"))
    made: dict[str, Any] = {}
    for H, W, factor in case.config["sizes"]:
        name = f"rgb_{H}x{W}"
        made[f"{name}_stable"] = stable = case.published(f"{name}_stable")
        rgb = method.restored(lr, (H, W)).movedim(1, -1)
        made[name] = torch.where(stable[..., None] == 1, rgb, case.published(name))
        told = (cell_of((H, W)) * factor).expand(len(lr), -1)
        made["mod_mean"] = network_of(method).difficulty(method.network.prepare(method.encoder(lr), told))
    return made


@runner("continuous_methods", "cmsr_table")
@torch.no_grad()
def cmsr_table(case: Case) -> dict[str, Any]:
    """LMF-CiaoSR's table was made without the enlarged input on either side."""
    method = load_cmsr(case)
    method.base = "none" if case.config["name"] == "lmciaosr" else method.base
    images = method.normalised(drawn(case, "lr")).split(1)
    scales = [float(s) for s in case.config["decode_scales"]]
    row = build_row(method, images, case.config["target_scale"], case.config["mse_threshold"], scales)
    return {"scales": list(row), "thresholds": list(row.values())}
