"""Runs the cases of `idm`: networks, objective, samplers, schedule. Weights pass through the importer of released checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig, make_betas
from rsdiff.diffusion.solvers import Observers, StepRecord
from rsdiff.methods.base import Problem
from rsdiff.methods.idm import IDM, IDMConfig, shrunk
from rsdiff.methods.noise_prediction import noised_at
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.idm_unet import ConditionEncoder, ImplicitUpsample
from rsdiff.weights import import_weights
from rsdiff.weights.keymaps.idm import dead_of, encoder_naming, unet_name, unused_buffer
from rsdiff.weights.keymaps.renaming import ours_from_published
from rsdiff.weights.keymaps.sr3 import config_from_arguments, unet_options

from ..case import Case, runner
from .sr3 import centred, draws

MEAN_SHIFTS = (r"(sub|add)_mean\.(weight|bias)",)


def config_of(case: Case, loss: Any = "l1") -> IDMConfig:
    """Return the config of a case's constructor arguments."""
    unet = config_from_arguments(case.config["unet"], "continuous")
    given, encoder = case.config.get("schedule"), case.config.get("encoder", {})
    names = {"schedule": "name", "n_timestep": "steps", "linear_start": "start", "linear_end": "end"}
    return IDMConfig(
        **unet_options(unet),
        encoder=EDSRConfig(width=encoder.get("n_feats", 64), blocks=encoder.get("n_resblocks", 16)),
        schedule=ScheduleConfig(**{names[key]: value for key, value in given.items()}) if given else ScheduleConfig(),
        loss=loss,
    )


def load(case: Case, loss: str = "l1") -> IDM:
    """Return the method with the case's filled published weights, in evaluation mode."""
    config, state = import_weights("idm", case.weights(), config_of(case, loss))
    method = config.build(Problem(scale=4, bands=3, lr_bands=3))
    method.load_state_dict(state)
    return method.eval()


def scaler(case: Case) -> Tensor:
    return torch.tensor([[float(case.config["scaler"])]])


@runner("idm", "unet")
@torch.no_grad()
def unet(case: Case) -> dict[str, Any]:
    config = config_of(case)
    with torch.device("meta"):  # the published size takes half a minute to initialise
        network = config.build_network(3)
    own = network.state_dict()
    weights = ours_from_published(case.weights(), own, unet_name(config), dead_of(config))
    network.load_state_dict(weights, assign=True)
    network.eval()
    condition, told, level = centred(case, "condition"), case.tensor("scaler"), case.tensor("level")
    rows = told.reshape(-1, 1)
    gates = network.style(condition, rows)
    made: dict[str, Any] = {"y": network(case.tensor("x"), condition, rows, level.flatten().expand(len(condition)))}
    for i, (first, second, shift) in enumerate(gates, 1):
        shape = (*told.shape[:-1], -1)  # a scaler [1] has weights [w], one [B, 1] has [B, w]
        made |= {f"scale1_{i}": first.reshape(shape), f"scale2_{i}": second.reshape(shape), f"shift_{i}": shift}
    return made


@runner("idm", "encoder")
@torch.no_grad()
def encoder(case: Case) -> dict[str, Any]:
    network = ConditionEncoder(EDSRConfig(width=case.config["n_feats"], blocks=case.config["n_resblocks"]), 3, 3)
    name = encoder_naming(case.config["n_resblocks"])
    network.load_state_dict(ours_from_published(case.weights(), network.state_dict(), name, MEAN_SHIFTS))
    return {"y": network(centred(case, "x"), tuple(case.config["target"]))}


@runner("idm", "implicit_upsample")
@torch.no_grad()
def implicit_upsample(case: Case) -> dict[str, Any]:
    network = ImplicitUpsample(case.config["dim"])
    names = {"activate.bias": "style.activate.bias"}
    names |= {f"linear.{i}.{kind}": f"imnet.{i}.{kind}" for i in range(2) for kind in ("weight", "bias")}
    ignored = (r"style\.(weight|modulated_conv\..*)",)
    network.load_state_dict(ours_from_published(case.weights(), network.state_dict(), names.__getitem__, ignored))
    gate = (case.tensor("scale1"), case.tensor("scale2"), case.tensor("shift"))
    x = case.tensor("x")
    return {"styled": network.mixed(x, gate), "y": network(x, gate, tuple(case.config["target"]))}


@runner("idm", "loss")
@torch.no_grad()
def loss(case: Case) -> dict[str, Any]:
    methods = {name: load(case, name) for name in ("l1", "l2")}
    lr, hr = centred(case, "lr"), centred(case, "hr")
    noised = noised_at(hr, case.tensor("level").flatten(), ReplayNoise([case.tensor("eps")]))
    made: dict[str, Any] = {name: method.objective(lr, noised, scaler(case), noised.noise) for name, method in methods.items()}
    return made | {"condition": methods["l1"].encoder(lr, (hr.shape[-2], hr.shape[-1])), "x_noisy": noised.x}


def trajectory(case: Case, sampler: SamplerConfig, every: int) -> tuple[Tensor, list[Tensor]]:
    """Return (condition, states of a run after every step whose level's number is a multiple of `every`), in [-1, 1]."""
    method, drawn = load(case), draws(case)
    size = (case.config["target"], case.config["target"])
    condition = method.encoder(centred(case, "lr"), size)
    length, kept = len(method.schedule), []

    def keep(record: StepRecord) -> None:
        if (length - 1 - record.index) % every == 0:
            kept.append((record.state / (1 + record.sigma_next**2) ** 0.5).float())

    denoiser = method.denoiser(condition, scaler(case), torch.zeros_like(condition))
    sample(sampler, denoiser, drawn[0].shape, ReplayNoise(drawn), device="cpu", observers=Observers(callback=keep))
    return condition, kept


@runner("idm", "sample_ancestral")
@torch.no_grad()
def sample_ancestral(case: Case) -> dict[str, Any]:
    length = case.config["schedule"]["n_timestep"]
    condition, kept = trajectory(case, SamplerConfig(solver="ddpm", steps=length, clip=True), 1 | length // 10)
    return {"condition": condition, "trajectory": torch.cat([condition, *kept])}


@runner("idm", "sample_ddim")
@torch.no_grad()
def sample_ddim(case: Case) -> dict[str, Any]:
    sampler = SamplerConfig(solver="ddim", spacing="strided", stride=case.config["skip"], steps=1, end="lowest_vp", draw_unused=True)
    condition, kept = trajectory(case, sampler, 1)
    return {"condition": condition, "trajectory": torch.cat([torch.from_numpy(draws(case)[0]), *kept])}


@runner("idm", "schedule")
def schedule(case: Case) -> dict[str, Any]:
    config = case.config
    indices = np.array(config["indices"])
    betas = make_betas(config["schedule"], config["n_timestep"], config["linear_start"], config["linear_end"])
    made = DiscreteSchedule(betas)
    rows = {name: values[indices] for name, values in (made.buffers() | {"ddim_c1": unused_buffer(made)}).items()}
    product = torch.cumprod(1 - torch.cat([torch.zeros(1), betas.float()]), dim=0)  # a variant that nothing here uses
    return rows | {"s": made.signal_levels[np.append(indices, len(made))], "ddim_alpha_f32": product[np.append(0, indices + 1)]}


@runner("idm", "random_scale_target")
def random_scale_target(case: Case) -> dict[str, Any]:
    low = case.config["lr_size"]
    target = shrunk(centred(case, "hr"), (low, low), case.config["p"])
    assert target.shape[-1] == case.config["width"]
    return {"target": target}
