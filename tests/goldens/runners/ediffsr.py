"""EDiffSR: the network through the importer, its process in the sampler layer, the published steps, loss, optimiser and metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.diffusion.mean_reverting import EulerDenoiser, MeanRevertingConfig, ReverseMeans, Rule
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig, make_levels, start_state
from rsdiff.diffusion.solvers import Observers, StepRecord, ddpm, native
from rsdiff.methods.base import Problem
from rsdiff.methods.ediffsr import EDiffSR, EDiffSRConfig
from rsdiff.metrics.psnr import psnr
from rsdiff.metrics.ssim import ssim
from rsdiff.training.config import OptimiserConfig
from rsdiff.training.optimisers import build_optimiser
from rsdiff.weights.importer import import_weights

from .. import fill
from ..case import Case, runner
from .spectral_baselines import batch_of


def schedule_of(sde: dict[str, Any]) -> MeanRevertingConfig:
    strength = sde["max_sigma"]
    return MeanRevertingConfig(
        shape=sde["schedule"], steps=sde["T"], strength=strength / 255 if strength >= 1 else strength, remainder=sde["eps"]
    )


def load(case: Case, network: dict[str, Any], schedule: MeanRevertingConfig | None = None) -> EDiffSR:
    """Return the method with the case's weights. From the file alone, the importer must tell the sizes of the network."""
    sizes = EDiffSRConfig(
        width=network["width"],
        encoders=tuple(network["enc_blk_nums"]),
        middle=network["middle_blk_num"],
        decoders=tuple(network["dec_blk_nums"]),
    )
    weights = case.weights()
    inferred, _ = import_weights("ediffsr", weights)
    assert inferred == sizes
    config, state = import_weights("ediffsr", weights, sizes if schedule is None else replace(sizes, schedule=schedule))
    method = config.build(Problem(scale=4, bands=network["img_channel"], lr_bands=network["img_channel"]))
    method.load_state_dict(state)
    return method.eval()


def drawn(case: Case, name: str) -> list[Tensor]:
    """Return the draws that an input lists by their names."""
    spec = case.spec["inputs"][name]
    maker = fill.image if spec["fill"] == "image" else fill.noise
    return [torch.from_numpy(maker(each, tuple(spec["shape"]), spec.get("salt", 0))) for each in spec["names"]]


@runner("ediffsr", "nafnet")
@torch.no_grad()
def nafnet(case: Case) -> dict[str, Any]:
    method = load(case, case.config)
    mean, noise = case.tensor("cond"), case.tensor("noise")
    time = torch.tensor(case.spec["inputs"]["time"]["value"])
    return {"y": method.network(mean + np.float32(0.2) * noise, mean, time.expand(len(mean)))}


@runner("ediffsr", "irsde_schedule")
def schedules(case: Case) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for number, sde in enumerate(case.config["cases"]):
        config = schedule_of(sde)
        thetas, schedule = config.thetas(), config.build()
        decay = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alphas_bar.sqrt()])
        tables = {
            "thetas": thetas,
            "thetas_cumsum": -decay.log() / config.interval(),
            "sigmas": config.strength * (2 * thetas.double()).sqrt(),
            "sigma_bars": config.strength * (1 - decay.square()).sqrt(),
            "dt": config.interval(),
            "decay": decay,
        }
        outputs |= {f"{name}_{number}": values for name, values in tables.items()}
    return outputs


def y_levels(config: MeanRevertingConfig) -> Tensor:
    """Return sigma (T+1,) from 0 on, in units of the residual."""
    return torch.cat([torch.zeros(1, dtype=torch.float64), config.build().sigmas])


@runner("ediffsr", "oracle_reverse")
def oracle_reverse(case: Case) -> dict[str, Any]:
    """The solvers of the sampler layer with a network that knows the residual; states are mapped back to x."""
    config = schedule_of(case.config)
    schedule, mean = config.build(), case.tensor("mu").double()
    residual = (case.tensor("x0").double() - mean) / config.strength

    def true_noise(state: Tensor, time: Tensor) -> Tensor:
        signal = schedule.alphas_bar.sqrt()[time.round().long() - 1].reshape(-1, 1, 1, 1)
        return (state - signal * residual) / (1 - signal.square()).sqrt()

    def denoiser(rule: Rule) -> EulerDenoiser:
        return EulerDenoiser(true_noise, schedule, rule=rule, last_noise=True, dtype=torch.float64)

    levels = make_levels(SamplerConfig(steps=config.steps), denoiser("sde"))
    start = start_state(SamplerConfig(), float(levels[0]), mean.shape, ReplayNoise([case.tensor("noise")]), "cpu", None)
    outputs: dict[str, Any] = {}
    for name, solver, rule, draws in (
        ("optimal", ddpm, "sde", [torch.zeros_like(mean)] * config.steps),
        ("ode", native, "ode", []),
        ("sde", native, "sde", drawn(case, "draws")),
    ):
        states: list[Tensor] = []

        def keep(record: StepRecord, states: list[Tensor] = states) -> None:
            states.append(mean + config.strength * record.state / (1 + record.sigma_next**2) ** 0.5)

        solver(denoiser(rule), levels, start, ReplayNoise(draws), observers=Observers(callback=keep))
        outputs[name] = torch.cat(states)
    return outputs


@runner("ediffsr", "matching_loss")
def matching_loss(case: Case) -> dict[str, Any]:
    config = schedule_of(case.config["sde"])
    method = load(case, case.config["network"], config)
    hr = case.tensor("gt")
    mean = np.float32(0.7) * hr + np.float32(0.3) * case.tensor("mu_part")
    t = torch.tensor(case.config["timesteps"])
    step = method.step(hr, mean, t, case.tensor("noise"))
    losses = {}
    for name, loss, decayed in (("loss_l1", "l1", False), ("loss_l2", "l2", False), ("loss_l1_weighted", "l1", True)):
        method.options = replace(method.options, loss=loss, decayed_loss=decayed)
        losses[name] = method.error(step, t)
    losses["loss_l1"].backward()
    return {
        "x_t": mean + config.strength * step.state,
        "eps": step.predicted,
        "expectation": mean + config.strength * step.made,
        "optimum": mean + config.strength * step.right,
        "grad_norm_intro": method.network.enter.weight.grad.norm(),
        "grad_norm_ending": method.network.leave.weight.grad.norm(),
        **losses,
    }


@runner("ediffsr", "sample_sde", "sample_ode")
@torch.no_grad()
def sampling(case: Case) -> dict[str, Any]:
    config, draws = schedule_of(case.config["sde"]), drawn(case, "draws")
    method = load(case, case.config["network"], config)
    method.options = replace(method.options, native_rule=case.kind.removeprefix("sample_"))
    batch = batch_of(case.tensor("lr"), case.config["scale"])
    mean, sampler = method.mean(batch), SamplerConfig(solver="native", steps=config.steps)
    levels = make_levels(sampler, method.denoiser(mean))
    start = start_state(sampler, float(levels[0]), mean.shape, ReplayNoise(draws[:1]), "cpu", None)
    return {
        "mu": mean,
        "xT": mean + config.strength * start / (1 + float(levels[0]) ** 2) ** 0.5,
        "out": method.restore(batch, sampler, ReplayNoise(draws)),
    }


@runner("ediffsr", "y_sigma")
def y_sigma(case: Case) -> dict[str, Any]:
    config = schedule_of(case.config)
    strength, levels = config.strength, y_levels(config)
    signal = (1 + levels.square()).rsqrt()
    before, after = levels[1:], levels[:-1]
    means = {rule: ReverseMeans.between(before, after, rule) for rule in ("sde", "ode")}
    # Of the step in y: e^-tau (1 + tau) y less the part of the predicted noise (y - D) / sigma, both over a'.
    parts = {
        rule: (steps.euler_state * signal[1:] / signal[:-1], steps.euler_noise / before / signal[:-1]) for rule, steps in means.items()
    }
    sde = means["sde"]
    # The loss, |euler - posterior|, as an error of the noise: w |e - kn n - kr (x0 - mu)|.
    noise_part = (sde.euler_state - sde.posterior_state) * (1 - signal[1:].square()).sqrt() / sde.euler_noise
    clean_part = ((sde.euler_state - sde.posterior_state) * signal[1:] - sde.posterior_clean) / sde.euler_noise
    outputs: dict[str, Any] = {
        "a": signal,
        "sigma": strength * levels,
        "tau": config.drifts(),
        "sde_A": parts["sde"][0] - parts["sde"][1],
        "sde_B": parts["sde"][1],
        "sde_C": strength * (2 * sde.drift).sqrt() / signal[:-1],
        "ode_A": parts["ode"][0] - parts["ode"][1],
        "ode_B": parts["ode"][1],
        "loss_w": strength * sde.euler_noise,
        "loss_kn": noise_part,
        "loss_kr": clean_part / strength,
    }
    return outputs | listed_steps(case, config, levels)


def listed_steps(case: Case, config: MeanRevertingConfig, levels: Tensor) -> dict[str, Tensor]:
    """Return single steps of the sampler layer at the listed levels, mapped to Y = mu + lambda y."""
    mean, strength, eps = case.tensor("mu").double(), config.strength, case.tensor("eps").double()
    residual = (case.tensor("x0").double() - mean) / strength
    outputs: dict[str, list[Tensor]] = {name: [] for name in ("y", "D", "y_sde", "y_ode", "y_posterior")}
    for t in case.config["t_listed"]:
        pair, y = levels[[t, t - 1]], residual + levels[t] * case.tensor("noise").double()
        silence = [torch.zeros_like(y)]

        def denoiser(rule: Rule) -> EulerDenoiser:
            return EulerDenoiser(lambda state, time: eps, config.build(), rule=rule, last_noise=True, dtype=torch.float64)

        found = {
            "y": y,
            "D": denoiser("sde")(y, pair[0]),
            "y_sde": native(denoiser("sde"), pair, y, ReplayNoise(silence)),
            "y_ode": native(denoiser("ode"), pair, y, ReplayNoise([])),
            "y_posterior": ddpm(denoiser("sde"), pair, y, ReplayNoise(silence)),
        }
        for name, value in found.items():
            outputs[name].append(mean + strength * value)
    return {name: torch.cat(values) for name, values in outputs.items()}


@runner("ediffsr", "lion")
def lion(case: Case) -> dict[str, Any]:
    config = case.config
    parameter = torch.nn.Parameter(case.tensor("p"))
    settings = OptimiserConfig(algorithm="lion", lr=config["lr"], betas=tuple(config["betas"]), weight_decay=config["weight_decay"])
    optimiser, states = build_optimiser(settings, [parameter]), []
    for gradient in drawn(case, "grads")[: config["steps"]]:
        parameter.grad = gradient
        optimiser.step()
        states.append(parameter.detach().clone())
    return {"params": torch.stack(states)}


@runner("ediffsr", "metrics")
def metrics(case: Case) -> dict[str, Any]:
    first = np.round(255 * case.input("a"))
    second = np.clip(np.round(first + 6 * case.input("n")), 0, 255)
    images = torch.from_numpy(first), torch.from_numpy(second)
    return {"psnr": psnr(*images), "ssim": ssim(*images)}
