"""EDM's formulas, samplers and losses on an analytic denoiser, and the one sampler layer against SR3's and diffusers' own code."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.order import windowed_shuffle
from rsdiff.diffusion import edm, preconditioning
from rsdiff.diffusion import solvers as levels
from rsdiff.diffusion.edm import Churn, EdmPreconditioning, Trajectory, euler, heun
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.preconditioning import IddpmPreconditioning, VePreconditioning, VpPreconditioning
from rsdiff.diffusion.schedules import DiscreteDenoiser, DiscreteSchedule, make_betas, variance_preserving_scale
from rsdiff.diffusion.solvers import Clamped, ddim, ddpm, dpmpp_2m
from rsdiff.networks.edm_unet import sine_first
from rsdiff.networks.layers import positional_embedding
from rsdiff.training.ema import half_life
from rsdiff.training.learning_rate import ramp

from .. import fill
from .. import relay_diffusion as blurring
from ..case import Case, runner


class Toy:
    """The analytic denoiser of the cases: a mixture of two points +-mean blurred by `deviation`, per pixel."""

    table = None
    data_range = None

    def __init__(self, mean: float, deviation: float, sigma_min: float = 0.0, sigma_max: float = math.inf) -> None:
        self.mean, self.deviation, self.sigma_min, self.sigma_max = mean, deviation, sigma_min, sigma_max

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.to(y.dtype).reshape(-1, *[1] * (y.ndim - 1)) ** 2
        variance = self.deviation**2 + level
        return (self.deviation**2 * y + level * self.mean * torch.tanh(self.mean * y / variance)) / variance

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma


class RoundingToy(Toy):
    """The toy behind iDDPM's levels, to which EDM rounds in float32."""

    def __init__(self, mean: float, deviation: float) -> None:
        self._levels = IddpmPreconditioning()
        super().__init__(mean, deviation, self._levels.sigma_min, self._levels.sigma_max)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self._levels.round_sigma(sigma)


def toy_of(case: Case) -> Toy:
    return Toy(float(case.config["toy"]["m"]), float(case.config["toy"]["s"]))


def draws(pattern: str, count: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    return [fill.noise(f"{pattern}{i}", shape) for i in range(count)]


NUMBER = r"(-?[\d.]+(?:e-?\d+)?)"


def stated(text: str) -> dict[str, float]:
    """Return the numbers that a case states in words: 'beta_d=19.9', and 'VE sigma 0.02..100' as ve_min and ve_max."""
    values = {name: float(value) for name, value in re.findall(rf"(\w+)=(?=[\d.-]){NUMBER}", text)}
    for name, low, high in re.findall(rf"(\w+):?(?: sigma)? {NUMBER}\.\.{NUMBER}", text):
        values |= {f"{name.lower()}_min": float(low), f"{name.lower()}_max": float(high)}
    return values


@runner("edm", "precond_coefficients")
def precond_coefficients(case: Case) -> dict[str, Any]:
    sigma, time = case.tensor("sigma"), case.tensor("vp_t")
    words = stated(case.config["defaults"])
    steps = int(words["M"])
    vp = VpPreconditioning(words["beta_d"], words["beta_min"], steps, words["epsilon_t"])
    iddpm = IddpmPreconditioning(steps, words["C_1"], words["C_2"])
    kinds = {
        "vp": vp,
        "ve": VePreconditioning(words["ve_min"], words["ve_max"]),
        "iddpm": iddpm,
        "edm": EdmPreconditioning(words["sigma_data"]),
    }
    outputs: dict[str, Any] = {}
    for name, kind in kinds.items():
        assert np.allclose([kind.sigma_min, kind.sigma_max], case.config["sigma_range"][name], rtol=1e-6), name
        for part, values in zip(("c_skip", "c_out", "c_in", "c_noise"), kind.coefficients(sigma), strict=True):
            outputs[f"{name}_{part}"] = values
    return outputs | {
        "vp_sigma_of_t": vp.sigma(time),
        "vp_sigma_inv": vp.time(sigma),
        "iddpm_u": iddpm.levels,
        "iddpm_round": iddpm.round_sigma(sigma),
        "iddpm_index": iddpm.index(sigma),
    }


VP_ENDS = torch.tensor([levels.VP_SHORTEST_TIME, 1.0], dtype=torch.float64)
DEFAULT_RANGES = {
    "vp": tuple(levels.vp_sigma(VP_ENDS, 19.9, 0.1).tolist()),
    "ve": (0.02, 100.0),
    "iddpm": (0.002, 81.0),
    "edm": (0.002, 80.0),
}


def grid(name: str, steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    if name == "edm":
        return levels.edm_levels(steps, sigma_min, sigma_max, rho)
    return {"vp": levels.vp_levels, "ve": levels.ve_levels, "iddpm": levels.iddpm_grid}[name](steps, sigma_min, sigma_max)


@runner("edm", "sigma_steps")
def sigma_steps(case: Case) -> dict[str, Any]:
    words, outputs = stated(case.config["defaults"]), {}
    rho = re.search(rf"rho {NUMBER}", case.config["defaults"])
    for name in case.arrays:
        kind, steps = name.split("_")
        low, high = DEFAULT_RANGES[kind]
        ends = words.get(f"{kind}_min", low), words.get(f"{kind}_max", high)
        outputs[name] = grid(kind, int(steps), *ends, float(rho[1]) if rho else 7.0)
    return outputs


@runner("edm", "noise_embedding")
def noise_embedding(case: Case) -> dict[str, Any]:
    noise, channels = case.tensor("c_noise"), case.config["num_channels"]
    endpoint = positional_embedding(noise, channels, endpoint=True)
    no_endpoint = positional_embedding(noise, channels, endpoint=False)
    return {"endpoint": endpoint, "no_endpoint": no_endpoint, "swapped": sine_first(endpoint)}


@runner("edm", "lr_ema_schedule")
def lr_ema_schedule(case: Case) -> dict[str, Any]:
    config = case.config
    batch, half = config["batch"], config["ema_halflife_kimg"] * 1000
    images = case.input("cur_nimg")
    ramped_up = half_life(half, config["ema_rampup_ratio"])
    plain = half_life(half, None)
    return {
        "lr": [config["lr"] * ramp(float(n), config["lr_rampup_kimg"] * 1000) for n in images],
        "ema_beta": [ramped_up(float(n), float(n) + batch) for n in images],
        "ema_beta_no_rampup": [plain(float(n), float(n) + batch) for n in images],
    }


@runner("edm", "infinite_sampler")
def infinite_sampler(case: Case) -> dict[str, Any]:
    outputs = {}
    for name, stored in case.arrays.items():
        length, replicas, rank, seed = (int(number) for number in re.findall(r"\d+", name))
        order = windowed_shuffle(length, rank, replicas, seed, case.config["window_size"], case.config["shuffle"])
        outputs[name] = [next(order) for _ in range(len(stored))]
    return outputs


def toy_run(case: Case, name: str, run: dict[str, Any]) -> Tensor:
    latents = case.tensor("latents").to(torch.float64)
    toy: Toy = toy_of(case)
    if "iDDPM" in str(case.config.get(name, "")):
        toy = RoundingToy(toy.mean, toy.deviation)
    limits = re.search(r"sigma_min=([\d.]+) sigma_max=([\d.]+)", str(case.config.get(name, "")))
    if limits:
        toy = Toy(toy.mean, toy.deviation, float(limits[1]), float(limits[2]))
    ablation = run["sampler"] == "ablation_sampler"
    discretization = run.get("discretization", "edm")
    low, high = DEFAULT_RANGES[discretization]
    low, high = max(run.get("sigma_min", low), toy.sigma_min), min(run.get("sigma_max", high), toy.sigma_max)
    steps = toy.round_sigma(grid(discretization, run.get("num_steps", 18), low, high, run.get("rho", 7)))
    churn = Churn(run.get("S_churn", 0), run.get("S_min", 0), float(run.get("S_max", "inf")), run.get("S_noise", 1))
    trajectory = Trajectory()
    if ablation:
        trajectory = Trajectory(run.get("schedule", "linear"), run.get("scaling", "none"), *levels.vp_betas(low, high))
    count, pattern = re.fullmatch(r"(\d+) draws fill\.noise\('(.*)'\+str\(i\)\)", run["draws"]).groups()  # type: ignore[union-attr]
    noise = ReplayNoise(draws(pattern, int(count), tuple(latents.shape)))
    options: dict[str, Any] = {"churn": churn, "trajectory": trajectory, "draw_unused": True}
    start = latents * steps[0]
    if run.get("solver", "heun") == "euler":
        return euler(toy, levels.to_zero(steps), start, noise, **options)
    return heun(toy, levels.to_zero(steps), start, noise, alpha=run.get("alpha", 1.0), **options)


@runner("edm", "samplers_toy")
def samplers_toy(case: Case) -> dict[str, Any]:
    return {name: toy_run(case, name, run) for name, run in case.config["runs"].items()}


@runner("edm", "losses_toy")
def losses_toy(case: Case) -> dict[str, Any]:
    toy = toy_of(case)
    y, u, g, n = (case.tensor(name) for name in ("y", "u", "g", "n"))
    words = stated(case.config["defaults"])
    levels_of = {
        "vp": (preconditioning.VpLevels(beta_d=words["beta_d"], beta_min=words["beta_min"], epsilon_t=words["epsilon_t"]), u),
        "ve": (preconditioning.VeLevels(sigma_min=words["ve_min"], sigma_max=words["ve_max"]), u),
        "edm": (edm.EdmLevels(mean=words["P_mean"], deviation=words["P_std"], sigma_data=words["sigma_data"]), g),
    }
    outputs: dict[str, Any] = {}
    for name, (law, draw) in levels_of.items():
        sigma = law.sigma(draw.flatten())
        clean = toy(y + sigma.reshape(-1, 1, 1, 1) * n, sigma)
        outputs |= {f"{name}_sigma": sigma, f"{name}_loss": edm.weighted_square(clean, y, law.weight(sigma))}
    return outputs


@runner("edm", "eps_wrap_sr3_table")
def eps_wrap_sr3_table(case: Case) -> dict[str, Any]:
    schedule = sr3_schedule(case)
    index = case.tensor("index")
    assert np.isclose(float(schedule.sigmas[0]), case.config["sigma_min"], rtol=1e-9)
    assert np.isclose(float(schedule.sigmas[-1]), case.config["sigma_max"], rtol=1e-9)
    sigmas = schedule.sigmas[index]
    return {"sigma": sigmas, "level": variance_preserving_scale(sigmas), "alpha_bar": schedule.alphas_bar[index]}


def sr3_schedule(case: Case) -> DiscreteSchedule:
    """The case's schedule; cases that only say "the SR3 schedule" mean linear 1e-6..1e-2, T = 2000."""
    config = case.config
    shape = (config.get("n_timestep", 2000), config.get("linear_start", 1e-6), config.get("linear_end", 1e-2))
    return DiscreteSchedule(make_betas(config.get("schedule", "linear"), *shape))


def conditional_eps(case: Case, dtype: torch.dtype = torch.float64, levels_seen: list[Tensor] | None = None) -> DiscreteDenoiser:
    """The analytic eps-model of the cases: the toy about 0.3 cond, told the continuous level l."""
    parameters = re.search(r"m=([\d.]+), s=([\d.]+)", case.config["eps_model"])
    share = re.search(r"D = ([\d.]+)\*c", case.config["eps_model"])
    if parameters is None or share is None:
        raise ValueError(f"the eps-model '{case.config['eps_model']}' is stated in words that this runner does not know")
    toy = Toy(float(parameters[1]), float(parameters[2]))
    shift = float(share[1]) * case.tensor("cond").to(dtype)

    def network(x: Tensor, level: Tensor) -> Tensor:
        if levels_seen is not None:
            levels_seen.append(level[0])
        scale = level.reshape(-1, 1, 1, 1)
        sigma = (1 - scale**2).sqrt() / scale
        y = x / scale
        return (y - shift - toy(y - shift, sigma.flatten())) / sigma

    return DiscreteDenoiser(network, sr3_schedule(case), dtype=dtype)


@runner("edm", "eps_wrap_ancestral")
def eps_wrap_ancestral(case: Case) -> dict[str, Any]:
    seen: list[Tensor] = []
    denoiser = conditional_eps(case, levels_seen=seen)
    pattern = re.search(r"fill\.noise\('(.*)'\+str\(i\)", case.config["draws"])
    assert pattern
    shape = tuple(case.tensor("cond").shape)
    noise = ReplayNoise(draws(pattern[1], case.config["n_timestep"], shape))
    table = denoiser.table
    assert table is not None
    start = noise.normal(shape, dtype=torch.float64) * (1 + table[-1] ** 2).sqrt()
    clipped = Clamped(denoiser, -1, 1) if case.config["clip_denoised"] else denoiser
    x = ddpm(clipped, levels.to_zero(table.flip(0)), start, noise)
    return {"x": x, "levels": torch.stack(seen)}


def table_levels(denoiser: DiscreteDenoiser, timesteps: list[int]) -> Tensor:
    assert denoiser.table is not None
    return levels.to_zero(denoiser.table[timesteps])


def eps_wrap_runs(case: Case) -> Iterator[tuple[str, Any, DiscreteDenoiser, Tensor, Tensor]]:
    """Yield name, settings, denoiser, levels and start of every run of a case."""
    denoiser = conditional_eps(case)
    latents = case.tensor("latents").to(torch.float64)
    for name, run in case.config["runs"].items():
        walked = table_levels(denoiser, run["timesteps"])
        yield name, run, denoiser, walked, latents * (1 + walked[0] ** 2).sqrt()


@runner("edm", "eps_wrap_ddim")
def eps_wrap_ddim(case: Case) -> dict[str, Any]:
    outputs = {}
    for name, run, denoiser, walked, start in eps_wrap_runs(case):
        pattern = re.search(r"fill\.noise\('(.*)'\+str\(i\)", run.get("draws", ""))
        noise = ReplayNoise(draws(pattern[1] if pattern else "", run["steps"] if pattern else 0, tuple(start.shape)))
        clipped = Clamped(denoiser, -1, 1) if run["clip_x0"] else denoiser
        outputs[name] = ddim(clipped, walked, start, noise, eta=run["eta"])
    return outputs


@runner("edm", "eps_wrap_dpmpp2m")
def eps_wrap_dpmpp2m(case: Case) -> dict[str, Any]:
    outputs = {}
    for name, run, denoiser, walked, start in eps_wrap_runs(case):
        solve = {1: ddim, 2: dpmpp_2m}[run["order"]]  # DPM-Solver++(1) is DDIM
        outputs[name] = solve(denoiser, walked, start, ReplayNoise([]))
    return outputs


@runner("edm", "relay_dct_blur")
def relay_dct_blur(case: Case) -> dict[str, Any]:
    config, x = case.config, case.tensor("x")
    patch = config["patch_size"]
    law = blurring.BlurLaw(patch, config["blur_sigma_max"], config["prob_length"], config["min_scale"])
    outputs: dict[str, Any] = {"alpha_t": law.coefficients(law.tau(case.tensor("t")))}
    g = case.tensor("g")
    for name in set(case.arrays) - case.read:
        operation, size = re.fullmatch(r"(\w+?)(\d+|_t)", name).groups()  # type: ignore[union-attr]
        match operation:
            case "dct":
                outputs[name] = blurring.patch_dct(x, int(size))
            case "idct_of_dct":
                outputs[name] = blurring.patch_dct(blurring.patch_dct(x, int(size)), int(size), inverse=True)
            case "blur":
                outputs[name] = blurring.patch_blur(x, torch.tensor(config["blur_sigmas"]), int(size), config["min_scale"])
            case "block_noise":
                outputs[name] = blurring.block_noise(g, int(size))
    return outputs


@runner("edm", "relay_blur_loss")
def relay_blur_loss(case: Case) -> dict[str, Any]:
    config, toy = case.config, toy_of(case)
    law = blurring.BlurLaw(config["up_scale"], config["blur_sigma_max"], config["prob_length"], config["min_scale"])
    y, u, n = (case.tensor(name).to(torch.float64) for name in ("y", "u", "n"))
    share, sigma = law.training_level(u.flatten(), config["truncate_sigma"])
    noisy = law.blur(y, share) + sigma.reshape(-1, 1, 1, 1) * n
    loss = edm.weighted_square(toy(noisy, sigma), y, edm.EdmLevels().weight(sigma).clamp(max=blurring.LARGEST_WEIGHT))
    return {"x_noisy": noisy, "sigma": sigma, "loss": loss}


@runner("edm", "relay_blur_sampler")
def relay_blur_sampler(case: Case) -> dict[str, Any]:
    config, outputs = case.config, {}
    words = stated(config["defaults"])
    law = blurring.BlurLaw(config["up_scale"], words["blur_sigma_max"], words["truncation_t"])
    image = case.tensor("lat").to(torch.float64)
    for name, run in config["runs"].items():
        count, pattern = re.match(r"(\d+) draws fill\.noise\('(.*)'\+str\(i\)", run["draws"]).groups()  # type: ignore[union-attr]
        noise = ReplayNoise(draws(pattern, int(count), tuple(image.shape)))
        span = (words["sigma_min"], words["sigma_max"], words["rho"], words["truncation_sigma"])
        walked = levels.to_zero(blurring.relay_levels(run["num_steps"], *span))
        shares = {"noise_share": words["s_noise"], "block_share": run["s_block"]}
        outputs[name] = blurring.relay_sampler(toy_of(case), walked, image, noise, law, **shares)
    return outputs
