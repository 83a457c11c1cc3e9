"""Golden cases of SCDM: network, schedules, truncation, guidance, losses, sampling, the cascade, data and averages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsdiff.data.normalisation import Normaliser
from rsdiff.degradations.bands import BandsConfig
from rsdiff.diffusion.guidance import clamp_to_quantile, quantile_of_magnitudes
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.diffusion.solvers import ddpm, per_image
from rsdiff.methods.scdm import SCDM, ProgressiveClamp, SCDMConfig, unclamped_share
from rsdiff.networks.layers import SinusoidalEmbedding
from rsdiff.training.config import EmaConfig
from rsdiff.training.ema import Ema
from rsdiff.weights.importer import import_weights
from rsdiff.weights.keymaps.scdm import scdm_buffers, scdm_config, scdm_name, scdm_problem, stage_files

from .. import fill
from ..case import AlmostEverywhere, Case, runner

DRAW = re.compile(r"(?:([\d.]+)\*)?fill\.(image|noise)\('([\w.]+)',\s*\[([\d, ]+)\],\s*salt=(\d+)\)(?:\*([\d.]+))?(?:-([\d.]+))?")
CENTRE, SPREAD, DN_LEVELS = 3693, 7410, 65535
PUBLISHED_DN = {"centre": CENTRE / DN_LEVELS, "spread": SPREAD / DN_LEVELS, "rounded_levels": DN_LEVELS}
STRIDE = re.compile(r"spatial stride (\d+)")


def drawn(words: str, number: int | None = None) -> Tensor:
    """Return the first draw that `words` describes, with its factor and offset; `number` stands for a final k in its name."""
    match = DRAW.search(words)
    assert match, f"no draw in {words!r}"
    factor, kind, name, shape, salt, second, offset = match.groups()
    name = name if number is None else re.sub(r"k$", str(number), name)
    values = (fill.image if kind == "image" else fill.noise)(name, tuple(int(n) for n in shape.split(",")), int(salt))
    values = values * np.float32(factor or 1) * np.float32(second or 1) - np.float32(offset or 0)
    return torch.from_numpy(np.ascontiguousarray(values))


def given(case: Case, name: str) -> Tensor:
    return case.tensor(name) if name in case.arrays else drawn(case.spec["inputs"][name])


def method_of(case: Case, weights: Mapping[str, Tensor], prefix: str = "ema_model.", weight: float = 0.0) -> SCDM:
    """Return a cascade of one stage with the published weights under `prefix`, in evaluation mode."""
    chosen = {key: tensor for key, tensor in weights.items() if key.startswith(prefix)}
    files = stage_files(chosen)
    config = replace(scdm_config(files), guidance_weights=(weight,), **PUBLISHED_DN)
    if "num_groups" in case.config:
        config = replace(config, norm_groups=case.config["num_groups"])
    diffusion = case.config.get("diffusion")
    if diffusion is not None:
        config = replace(config, schedule=schedule_of(diffusion), clamp_shares=(float(diffusion.get("pdt_lower_bound", 1.0)),))
    config, state = import_weights("scdm", chosen, config)
    method = config.build(scdm_problem(files))
    method.load_state_dict(state)
    return method.eval()


def schedule_of(diffusion: Mapping[str, Any]) -> ScheduleConfig:
    steps = diffusion["T"]
    low, high = (diffusion[name] * 1000 / steps for name in ("low", "high"))
    if diffusion["schedule"] == "cosine":
        return ScheduleConfig(name="cosine", steps=steps)
    return ScheduleConfig(name=diffusion["schedule"], steps=steps, start=low, end=high)


@runner("scdm", "unet", "unet_small_stage1", "unet_small_stage2")
def unet(case: Case) -> dict[str, Any]:
    outputs = {}
    weights = case.weights()
    for name, words in case.spec["outputs"].items():
        method = method_of(case, weights, {"out_ema": "ema_model.", "out_raw": "model."}[name])
        match = STRIDE.search(words) or STRIDE.search(case.spec["outputs"]["out_ema"])
        stride = int(match[1]) if match else 1
        with torch.no_grad():
            outputs[name] = method.networks[0](given(case, "x"), given(case, "cond"), case.tensor("t"))[..., ::stride, ::stride]
    return outputs


@runner("scdm", "time_embedding")
def time_embedding(case: Case) -> dict[str, Any]:
    return {"emb": SinusoidalEmbedding(case.config["dim"])(case.tensor("t") * case.config.get("scale", 1.0))}


@runner("scdm", "schedule_linear", "schedule_cosine", "schedule_cosine_100", "schedule_linear_1000", "schedule_linear_25")
def schedule(case: Case) -> dict[str, Any]:
    config = case.config
    made = schedule_of(
        {"schedule": config["schedule"], "T": config["num_timesteps"], "low": config["schedule_low"], "high": config["schedule_high"]}
    )
    return scdm_buffers(made.build())


@runner("scdm", "pdt")
def truncation(case: Case) -> dict[str, Any]:
    config, scales = case.config, case.input("scale")
    outputs: dict[str, list[Tensor]] = {"quantile": [], "threshold": [], "clamped": []}
    for t, scale in zip(case.input("t").tolist(), scales, strict=True):
        x = given(case, "x") * torch.tensor(scale)
        share = unclamped_share(t, config["pdt_lower_bound"], config["table_length"])
        outputs["quantile"].append(quantile_of_magnitudes(x, share)[0])
        outputs["threshold"].append(quantile_of_magnitudes(x, share)[0].clamp(min=1))
        outputs["clamped"].append(clamp_to_quantile(x, share)[0])
    return {name: torch.stack(values) for name, values in outputs.items()}


@runner("scdm", "reverse_step")
def reverse_step(case: Case) -> dict[str, Any]:
    weights, x, condition = case.weights(), given(case, "x"), given(case, "cond")
    outputs = {}
    for name in case.spec["outputs"]:
        match = re.search(r"icmg([\d.]+)", name)
        method = method_of(case, weights, weight=float(match[1]) if match else 0.0)
        outputs[name] = torch.stack([step_mean(method, x, condition, t)[0] for t in case.input("t").tolist()])
    return outputs


@torch.no_grad()
def step_mean(method: SCDM, x: Tensor, condition: Tensor, t: int) -> Tensor:
    """Return the mean of x_{t-1}: one ancestral step of the sampler layer without its noise."""
    levels = torch.cat([torch.zeros(1, dtype=torch.float64), method.schedule.sigmas])[[t + 1, t]]
    scales = (1 + levels.square()).sqrt().tolist()
    clamp = ProgressiveClamp(method.schedule, method.options.clamp_shares[0], method.options.clamp_table)
    silence = ReplayNoise([torch.zeros_like(x)])
    y = clamp(x.double() * scales[0], float(levels[0]))
    return ddpm(method.denoiser(0, condition), levels, y, silence, variance="beta") / scales[1]


@runner("scdm", "losses")
def losses(case: Case) -> dict[str, Any]:
    method = method_of(case, case.weights(), "model.")
    hsi, noise, mask = given(case, "hsi"), given(case, "eps"), case.tensor("mask")
    condition = given(case, "cond") * per_image(mask, hsi)
    found = method.objective(0, hsi, condition, case.tensor("t"), noise)
    squared = replace(method.options, loss="l2")
    method.options, published = squared, method.options
    loss_l2 = method.objective(0, hsi, condition, case.tensor("t"), noise).error
    method.options = published
    total = found.error + published.angle_weight * found.angle
    total.backward()
    name = scdm_name(len(published.multipliers), published.blocks)
    gradients = {name(key): parameter.grad for key, parameter in method.networks[0].named_parameters()}
    norms = {f"gradnorm.{key}": gradient.norm() for key, gradient in gradients.items() if gradient is not None}
    return {
        "loss_l1": found.error,
        "loss_l2": loss_l2,
        "loss_sam": found.angle,
        "total": total,
        "perturbed_x": found.x,
        "x0_hat": found.clean,
        **{f"grad.{key}": gradient for key, gradient in gradients.items()},
        **norms,
    }


def full_run(method: SCDM, condition: Tensor, words: str) -> Tensor:
    """Return the sample of the method's only stage with the draws that `words` name: x_T, then one per step but the last."""
    steps = len(method.schedule)
    draws = ReplayNoise([drawn(words, number) for number in range(steps)])
    with torch.no_grad():
        return method.sample_stage(0, condition, SamplerConfig(solver="ddpm", variance="beta", steps=steps), draws)


@runner("scdm", "sample_stage1", "sample_stage2", "sample")
def sampling(case: Case) -> dict[str, Any]:
    diffusion = case.config["diffusion"]
    weight = float(diffusion.get("icmg_scale", 2.5)) if diffusion["use_icmg"] else 0.0
    method = method_of(case, case.weights(), weight=weight)
    return {"sample": full_run(method, given(case, "cond"), case.spec["inputs"]["draws"])}


@runner("scdm", "cascade_ours")
def cascade(case: Case) -> dict[str, Any]:
    """The stages run one after the other; the second is fed the stored condition, as the case asks."""
    config, words = case.config, case.spec["inputs"]["draws"].split(";")
    outputs: dict[str, Any] = {}
    within = case.spec["tolerance"].get("dn_atol", 1)
    for stage, condition in enumerate([given(case, "cond"), torch.from_numpy(case.arrays["cond2"])], 1):
        keys = case.spec.get(f"keys_stage{stage}", case.spec.get("keys"))
        weights = {
            key: torch.from_numpy(fill.fill_array(key, tuple(shape), config[f"fill_salt_stage{stage}"])) for key, shape in keys.items()
        }
        method = method_of(case, weights, weight=float(config[f"icmg_scale_stage{stage}"]) if config["diffusion"]["use_icmg"] else 0.0)
        sampled = full_run(method, condition, words[stage - 1])
        stored = (method.handed_on(sampled).double() * DN_LEVELS).round()
        outputs[f"x{stage}"] = sampled
        outputs[f"dn{stage}"] = AlmostEverywhere(stored, share=1.0, by=within)
        if stage == 1:
            outputs["cond2"] = method.normalise(method.handed_on(sampled))
    return outputs


@runner("scdm", "dataset_modes")
def dataset_modes(case: Case) -> dict[str, Any]:
    side, (row, column) = case.config["cropsize"], case.input("offset").tolist()
    scene = case.input("scene").transpose(2, 0, 1)[:, row : row + side, column : column + side]
    stored = torch.from_numpy(Normaliser((0.0,), (float(DN_LEVELS),)).normalise(scene))[None]
    cascade_options = SCDMConfig(**PUBLISHED_DN)
    hr, stride = stored[:, :48], cascade_options.strides[0]
    bands = BandsConfig(bands=(5, 12, 23)).build()
    generator = torch.Generator()
    lr = bands.apply(hr, bands.draw(generator, (48, side, side), (side, side))).lr
    normalise = SCDM.normalise

    class Options:
        options = cascade_options

    def made(image: Tensor) -> Tensor:
        return normalise(Options, image)[0]  # type: ignore[arg-type]

    return {
        "stage1_target": made(hr[:, ::stride]),
        "stage1_cond": made(lr),
        "all_bands_stride7": made(hr)[::7],
        "stage2_target_stride7": made(hr)[::7],
        "stage2_cond": made(hr[:, ::stride]),
        "predicted_cond": made(stored[:, :12]),
    }


@runner("scdm", "ema_rate1", "ema")
def averages(case: Case) -> dict[str, Any]:
    config, words = case.config, case.spec["inputs"]["weights"]
    shapes = {name: tuple(int(n) for n in size.split(",") if n) for name, size in re.findall(r"'(\w)\.k',\[([\d,]+)\]", words)}
    module = nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})
    options = EmaConfig(
        rule="constant", decays=(config["ema_decay"],), start_step=config["ema_start"], every_steps=config["ema_update_rate"]
    )
    ema, traces = Ema(options, module), []
    for step in range(1, config["steps"] + 1):
        for name, parameter in module.items():
            parameter.data = torch.from_numpy(fill.noise(f"{name}.{step}", shapes[name], config.get("fill_salt", 0)))
        if step % options.every_steps == 0:
            ema.update(module, step - 1, step)
        traces.append(torch.cat([ema.weights(module)[0][name].flatten() for name in shapes]).clone())
    return {"ema": torch.stack(traces)}
