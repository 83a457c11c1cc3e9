"""SR3 and its DDPM twin: networks, condition, loss, samplers. Weights pass through the importer of released checkpoints."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.diffusion.solvers import Observers, StepRecord
from rsdiff.methods.base import Problem
from rsdiff.methods.sr3 import SR3, enlarge
from rsdiff.weights import import_weights
from rsdiff.weights.keymaps.sr3 import config_from_arguments
from tests.method_losses import losses_of

from .. import fill
from ..case import Case, runner

Time = Literal["continuous", "discrete"]


def load(case: Case, time: Time = "continuous", **options: Any) -> SR3:
    """Return the method with the case's filled published weights, in evaluation mode."""
    unet = case.config["unet"]
    if "schedule" in case.config:
        given = case.config["schedule"]
        names = {"schedule": "name", "n_timestep": "steps", "linear_start": "start", "linear_end": "end", "cosine_s": "offset"}
        options["schedule"] = ScheduleConfig(**{names[key]: value for key, value in given.items()})
    if unet["in_channel"] == unet["out_channel"]:
        options["condition"] = "none"
    config, state_dict = import_weights("sr3", case.weights(), config_from_arguments(unet, time, **options))
    bands = unet["out_channel"]
    method = config.build(Problem(scale=case.config.get("scale", 4), bands=bands, lr_bands=max(unet["in_channel"] - bands, 1)))
    method.load_state_dict(state_dict)
    return method.eval()


def draws(case: Case) -> list[np.ndarray]:
    """Return the case's noise draws: stored, or named in its JSON."""
    if "draws" in case.arrays:
        return list(case.input("draws"))
    spec = case.spec["inputs"]["draws"]
    return [fill.noise(name, tuple(spec["shape"]), spec.get("salt", 0)) for name in spec["names"]]


def centred(case: Case, name: str) -> Tensor:
    return 2 * case.tensor(name) - 1


@runner("sr3", "unet", "ddpm_unet")
@torch.no_grad()
def unet(case: Case) -> dict[str, Any]:
    time: Time = "discrete" if case.kind == "ddpm_unet" else "continuous"
    config, state_dict = import_weights("sr3", case.weights(), config_from_arguments(case.config, time))
    with torch.device("meta"):  # the published sizes take half a minute to initialise
        network = config.build_network(case.config["in_channel"], case.config["out_channel"])
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in state_dict.items()}, assign=True)
    return {"y": network.eval()(case.tensor("x"), torch.tensor(case.spec["inputs"]["time"]["value"]))}


@runner("sr3", "condition_bicubic")
def condition_bicubic(case: Case) -> dict[str, Any]:
    lr = (case.tensor("lr") * 255).round() / 255
    mean, std = (torch.tensor(case.config[name])[:, None, None] for name in ("mean", "std"))
    size = tuple(round(length * case.config["scale"]) for length in lr.shape[-2:])
    condition = (enlarge(lr, size, "bicubic") + 1) / 2
    antialiased = F.interpolate((lr - mean) / std, size, mode="bicubic", align_corners=False, antialias=True)
    return {"up": (condition - mean) / std, "up_antialias": antialiased}


def batch_of(hr: Tensor | None, lr: Tensor | None, size: tuple[int, int], count: int) -> Batch:
    metas = [SampleMeta(name=str(index)) for index in range(count)]
    return Batch(metas=metas, size=size, lr_size=size if lr is None else (lr.shape[-2], lr.shape[-1]), hr=hr, lr=lr)


def size_of(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


@runner("sr3", "loss", "ddpm_loss")
@torch.no_grad()
def loss(case: Case) -> dict[str, Any]:
    """The condition is given at the size of the target, where enlarging it changes nothing."""
    hr, condition, eps = case.tensor("HR"), case.tensor("SR"), case.tensor("eps")
    batch = batch_of(hr, condition, size_of(hr), len(hr))
    if case.kind == "ddpm_loss":
        method = load(case, "discrete", steps_drawn="image")
        given = [case.config["t"], eps]
        total = losses_of(method, batch, ReplayNoise(given)).total
        return {"loss": total, "x_noisy": method.noised(2 * hr - 1, ReplayNoise(given)).x}
    methods = {name: load(case, loss=name) for name in ("l1", "l2")}
    made: dict[str, Any] = {}
    for name, drawn in case.config["cases"].items():
        given = [drawn["t"], drawn["u"], eps]
        noised = methods["l1"].noised(2 * hr - 1, ReplayNoise(given))
        made |= {f"level_{name}": noised.time, f"x_noisy_{name}": noised.x}
        for kind, method in methods.items():
            made[f"loss_{kind}_{name}"] = losses_of(method, batch, ReplayNoise(given)).total
    return made


def restored(case: Case, method: SR3, sampler: SamplerConfig) -> Tensor:
    """Return the final sample in [-1, 1] through the method's own restoration; the condition is given at the size of the target."""
    drawn = draws(case)
    shape = drawn[0].shape
    lr = case.tensor("condition") if method.options.condition != "none" else None
    return 2 * method.restore(batch_of(None, lr, shape[-2:], shape[0]), sampler, ReplayNoise(drawn)) - 1


@runner("sr3", "sample_ancestral_T8", "ddpm_sample_T8")
@torch.no_grad()
def sample_ancestral(case: Case) -> dict[str, Any]:
    twin = case.kind == "ddpm_sample_T8"
    method = load(case, "discrete" if twin else "continuous")
    length = len(method.schedule)
    sampler = SamplerConfig(solver="ddpm", steps=length, clip=True, draw_unused=twin)
    condition = centred(case, "condition") if method.options.condition != "none" else None
    drawn = draws(case)
    kept = [torch.from_numpy(drawn[0]) if condition is None else condition]

    def keep(record: StepRecord) -> None:
        if (length - 1 - record.index) % (1 | length // 10) == 0:
            kept.append(record.state / (1 + record.sigma_next**2) ** 0.5)

    sample(sampler, method.denoiser(condition), drawn[0].shape, ReplayNoise(drawn), device="cpu", observers=Observers(callback=keep))
    return {"trajectory": torch.cat([x.float() for x in kept]), "sr": restored(case, method, sampler)}


def strided(case: Case) -> SamplerConfig:
    """VANILLA's sampler; its last evaluation changes nothing and is left out."""
    stride = case.config["skip"]
    return SamplerConfig(
        solver="ddim", eta=case.config["eta"], spacing="strided", stride=stride, steps=1, end="lowest_vp", clip=True, draw_unused=True
    )


@runner("sr3", "sample_fast")
def sample_fast(case: Case) -> dict[str, Any]:
    return {"sr": restored(case, load(case), strided(case))}


@runner("sr3", "pipeline_lr_only")
def pipeline_lr_only(case: Case) -> dict[str, Any]:
    lr = (case.tensor("lr") * 255).round() / 255
    height, width = (round(length * case.config["scale"]) for length in lr.shape[-2:])
    image = load(case).restore(batch_of(None, lr, (height, width), len(lr)), strided(case), ReplayNoise(draws(case)))
    eight_bit = (image[0] * 255).clamp(0, 255).round().to(torch.uint8)
    return {"sr": 2 * image - 1, "sr_uint8": eight_bit.permute(1, 2, 0)}
