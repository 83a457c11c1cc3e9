"""Ref-Diff: layers, network, loss, sampler, loader and snapshots."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from rsdiff.data.enlarging import enlarge_signed
from rsdiff.degradations.rounding import to_uint8
from rsdiff.diffusion.edm import Churn, EdmDenoiser, EdmLevels, EdmPreconditioning, denoising_error
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig, make_levels, sample
from rsdiff.foreign import read_checkpoint
from rsdiff.methods.refdiff import RefDiffConfig
from rsdiff.networks.refdiff_unet import ReferenceBlock, SpatialFeatureTransform
from rsdiff.networks.song_unet import SongUNetConfig
from rsdiff.training.ema import half_life
from rsdiff.training.learning_rate import ramp
from rsdiff.weights.edm_pickle import denoiser_in
from rsdiff.weights.keymaps.edm import BLOCK
from rsdiff.weights.keymaps.refdiff import build_refdiff_network
from rsdiff.weights.keymaps.renaming import ours_from_published, renamed
from tests.goldens import fill
from tests.goldens.case import Case, runner
from tests.goldens.runners.edm_networks import Observed

CONF = Path(__file__).parents[3] / "conf"
SAMPLER_NAMES = {
    "num_steps": "steps",
    "sigma_min": "sigma_min",
    "sigma_max": "sigma_max",
    "rho": "rho",
    "S_churn": "churn",
    "S_min": "churn_min",
    "S_max": "churn_max",
    "S_noise": "churn_noise",
}


@runner("refdiff", "sft_layer")
def sft_layer(case: Case) -> Mapping[str, Any]:
    config = case.config
    layer = SpatialFeatureTransform(config["nf"], config["n_condition"], config["hidden"])
    layer.load_state_dict(case.weights())
    return {"out": layer(case.tensor("features"), case.tensor("cond"))}


@runner("refdiff", "block_ref_up_attn")
def block(case: Case) -> Mapping[str, Any]:
    config, weights = case.config, case.weights()
    trunk = SongUNetConfig(dropout=config["dropout"], resample_filter=tuple(config["resample_filter"]))
    style = replace(
        trunk.block_style(),
        embedding_width=config["emb_channels"],
        skip_scale=config["skip_scale"],
        epsilon=config["eps"],
        resample_projection=config["resample_proj"],
    )
    conditions = {name: torch.cat([case.tensor(name), case.tensor("mask")], dim=1) for name in ("lr", "ref")}
    built = ReferenceBlock(
        config["in_channels"],
        config["out_channels"],
        style,
        conditions["lr"].shape[1],
        conditions["ref"].shape[1],
        weights["sft0.mul_conv1.weight"].shape[0],
        "up" if config.get("up") else "down" if config.get("down") else "none",
        config["attention"],
    )
    built.load_state_dict(ours_from_published(weights, built.state_dict(), lambda key: renamed(key, BLOCK)))
    return {"out": built.eval()(case.tensor("x"), case.tensor("emb"), conditions["lr"], conditions["ref"])}


@runner("refdiff", "net")
def network(case: Case) -> Mapping[str, Any]:
    observed = Observed(build_refdiff_network(case.config["constructor"], case.weights()))
    denoiser = denoiser_of(case, observed)
    with torch.no_grad():
        denoised = denoiser(case.tensor("x"), case.tensor("sigma").to(torch.float64))
    return {"F": observed.output, "D": denoised, "block_stats": torch.tensor(observed.statistics)}


@runner("refdiff", "tiny")
def snapshot(case: Case) -> Mapping[str, Any]:
    published = denoiser_in(read_checkpoint(case.path.parent / case.config["file"]))
    denoiser = denoiser_of(case, build_refdiff_network(published.arguments, published.state))
    with torch.no_grad():
        return {"D": denoiser(case.tensor("x"), case.tensor("sigma").to(torch.float64))}


@runner("refdiff", "loss_small")
def loss(case: Case) -> Mapping[str, Any]:
    config, hr = case.config, case.tensor("hr")
    denoiser = denoiser_of(case, build_refdiff_network(config["constructor"], case.weights()), config["sigma_data"])
    levels = EdmLevels(mean=config["P_mean"], deviation=config["P_std"], sigma_data=config["sigma_data"])
    *_, (name, salt) = named_draws(config["draws"])
    draws = ReplayNoise([case.tensor("rnd_normal").flatten(), fill.noise(name, tuple(hr.shape), salt)])
    with torch.no_grad():
        found = denoising_error(denoiser, levels, hr, draws)
    return {
        "sigma": found.sigma,
        "weight": levels.weight(found.sigma),
        "D": found.clean,
        "loss": found.error,
        "loss_sum_over_256": (found.error.double().sum() / RefDiffConfig().loss_divisor).reshape(1),
    }


@runner("refdiff", "sampler_small")
def sampler_run(case: Case) -> Mapping[str, Any]:
    denoiser = denoiser_of(case, build_refdiff_network(case.config["constructor"], case.weights()))
    calls: list[tuple[float, float, float]] = []

    class Recorded(EdmDenoiser):
        def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
            clean = super().__call__(y, sigma)
            calls.append((float(sigma), float(clean.mean()), float(clean.std())))
            return clean

    x = run_sampler(case, Recorded(denoiser.network, denoiser.preconditioning))
    return {"x": x, "image": to_uint8((x + 1) / 2), "net_calls": np.array(calls)}


@runner("refdiff", "sampler_toy_256")
def sampler_toy(case: Case) -> Mapping[str, Any]:
    m, s = case.config["toy"]["m"], case.config["toy"]["s"]

    class Toy(EdmDenoiser):
        def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
            variance = s**2 + sigma**2
            return (s**2 * y + sigma**2 * m * torch.tanh(m * y / variance)) / variance

    return {"x": run_sampler(case, Toy(lambda x, _level: x, EdmPreconditioning()))}


@runner("refdiff", "lr_ema_schedule")
def schedule_of_training(case: Case) -> Mapping[str, Any]:
    config, images = case.config, case.input("cur_nimg").tolist()
    beta = half_life(1000 * config["ema_halflife_kimg"], config["ema_rampup_ratio"])
    return {
        "lr": np.array([config["lr"] * ramp(seen, 1000 * config["lr_rampup_kimg"]) for seen in images]),
        "ema_beta": np.array([beta(seen, seen + config["batch_size"]) for seen in images]),
    }


@runner("refdiff", "sampler_schedule")
def schedule(case: Case) -> Mapping[str, Any]:
    outputs = {}
    for name in case.spec["outputs"]:
        if name.startswith("t_hat"):
            continue
        steps = int(name.removeprefix("t_"))
        options = replace(sampler_options(case), steps=steps)
        levels = make_levels(options, EdmDenoiser(lambda x, _level: x, EdmPreconditioning()))
        churn = Churn(options.churn, options.churn_min, options.churn_max, options.churn_noise)
        outputs[name] = levels
        outputs[f"t_hat_{steps}"] = np.array([level * (1 + churn.share(level, steps)) for level in levels[:-1].tolist()])
    return outputs


@runner("refdiff", "dataset_crop")
def dataset_crop(case: Case) -> Mapping[str, Any]:
    """The published loader crops the LR at int(offset / scale); ours draws multiples of the scale, where both agree."""
    side, scale = case.config["resolution"], case.config["up_scale"]
    sources = {name: case.tensor(f"src_{name}") for name in ("hr", "lr", "ref", "mask")}
    outputs: dict[str, list[Tensor]] = {f"out_{name}": [] for name in sources}
    for row, column in case.config["offsets_row_col"]:
        for name, source in sources.items():
            image = source[None] if source.ndim == 2 else source.movedim(-1, 0)
            if name != "lr":
                crop = image[:, row : row + side, column : column + side]
            else:
                small = side // scale
                crop = image[:, row // scale : row // scale + small, column // scale : column // scale + small]
                large = enlarge_signed(crop[None] / 255, (side, side), RefDiffConfig().train_enlargement, RefDiffConfig().train_eight_bit)
                crop = ((large[0] + 1) / 2 * 255).round().to(torch.uint8)
            outputs[f"out_{name}"].append(crop)
    return {name: torch.stack(crops) for name, crops in outputs.items()}


@runner("refdiff", "generate_pre_post")
def generate_pre_post(case: Case) -> Mapping[str, Any]:
    size = case.config["size"]
    up = enlarge_signed(case.tensor("lr") / 255, (size, size), RefDiffConfig().enlargement)
    (step,) = re.findall(r"every (\d+)", case.spec["outputs"]["up_sub"])
    return {"up_sub": up[..., :: int(step), :: int(step)], "image": to_uint8((case.tensor("x") + 1) / 2)}


def denoiser_of(case: Case, network: Callable[..., Tensor], sigma_data: float = 0.5) -> EdmDenoiser:
    """Return the network as a denoiser under the case's conditions."""
    lr, ref, mask = (case.tensor(name) for name in ("lr", "ref", "mask"))
    return EdmDenoiser(lambda x, level: network(x, level, lr, ref, mask), EdmPreconditioning(sigma_data))


def run_sampler(case: Case, denoiser: EdmDenoiser) -> Tensor:
    """Return the final state of Ref-Diff's sampler from the case's LR image with the case's draws, one per step."""
    options, lr = sampler_options(case), case.tensor("lr")
    ((name, salt),) = named_draws(case.config["draws"])
    draws = ReplayNoise([fill.noise(f"{name}{step}", tuple(lr.shape), salt) for step in range(options.steps)])
    with torch.no_grad():
        return sample(options, denoiser, lr.shape, draws, device="cpu", image=lr.double())


def sampler_options(case: Case) -> SamplerConfig:
    """Return conf/sampler/refdiff.yaml with the settings that the case gives, as numbers or in words."""
    shipped = yaml.safe_load((CONF / "sampler/refdiff.yaml").read_text())
    options = {name: value for name, value in shipped.items() if name not in ("defaults", "kind")}
    given = dict(re.findall(r"(\w+)=([\d.]+)", case.config.get("defaults", ""))) | case.config
    options |= {ours: float(given[name]) for name, ours in SAMPLER_NAMES.items() if name in given}
    return SamplerConfig(**options | {"steps": int(options["steps"])})


def named_draws(words: str) -> list[tuple[str, int]]:
    """Return (name, salt) of every fill.noise(...) that a case's JSON describes."""
    found = re.findall(r"fill\.noise\('([^']+)'.*?(?:salt=|\),\s*)(\d+)\)", words)
    return [(name, int(salt)) for name, salt in found]
