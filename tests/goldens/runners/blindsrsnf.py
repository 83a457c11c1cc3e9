"""BlindSRSNF: networks, momentum contrast, schedules, objective, its two samplers, whole evaluations of one image."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.ranges import to_unit_range
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.degradations.gaussian import GaussianDecisions, GaussianDegradation, GaussianDegradationConfig
from rsdiff.degradations.rounding import to_uint8
from rsdiff.diffusion.fastdpm import fastdpm_betas
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import BETAS, DiscreteSchedule, ScheduleConfig, make_betas
from rsdiff.diffusion.solvers import table_indices
from rsdiff.methods.base import Problem
from rsdiff.methods.blindsrsnf import BlindSRSNFConfig, draw
from rsdiff.methods.joint_blind import JointBlind, noisy
from rsdiff.metrics.colour import border_width, crop, luma
from rsdiff.metrics.psnr import psnr
from rsdiff.metrics.ssim import ssim
from rsdiff.networks.blindsrsnf_unet import BlindSRSNFUNetConfig
from rsdiff.networks.degradation_aware import ContrastConfig, DegradationEncoder, contrastive_loss
from rsdiff.networks.rrdb import RRDBConfig, RRDBNet, rrdb_stages
from rsdiff.training.config import EmaConfig
from rsdiff.training.ema import Ema
from rsdiff.weights import import_weights
from rsdiff.weights.keymaps.blindsrsnf import BlindSRSNFKeyMap
from rsdiff.weights.keymaps.contrast import contrast_name, encoder_name
from rsdiff.weights.keymaps.degradation_aware import unet_name
from rsdiff.weights.keymaps.rrdb import rrdb_name
from tests.method_losses import losses_of

from .. import fill
from ..case import Case, runner
from .diffbsr import gaussian_parameters, grad_norm, load_network

PUBLISHED_GROUPS = 32
"""Groups of the normalisations where a case leaves them to the published default."""


def filled(recipe: Mapping[str, Any]) -> Tensor:
    """Return the array of a recipe such as {"2*fill.image-1": [name, shape, salt]}, channels first."""
    ((words, (name, shape, salt)),) = recipe.items()
    values = (fill.noise if "fill.noise" in words else fill.image)(name, tuple(shape), salt)
    if "round(255" in words:
        values = np.round(255 * values) / np.float32(255)
    if words.startswith("2*"):
        values = 2 * values - 1
    if words.startswith("columns normalised"):
        values = values / np.linalg.norm(values, axis=0, keepdims=True)
    return torch.from_numpy(np.ascontiguousarray(values))


def given(case: Case, name: str) -> Tensor:
    """Return an input: stored, or a recipe in the JSON."""
    return case.tensor(name) if name in case.arrays else filled(case.spec["inputs"][name])


def sampling_draws(case: Case) -> list[Tensor]:
    """Return x_T and one draw per step, of x_T's shape unless a step's words name another."""
    start = given(case, "x_T")
    drawn = [start]
    for words in case.spec["inputs"]["step_noise"]:
        name = words.split()[1]
        shape = re.search(r"shape \[([\d, ]+)\]", words)
        salt = re.search(r"salt (\d+)", words)
        size = tuple(int(n) for n in shape[1].split(",")) if shape else tuple(start.shape)
        drawn.append(torch.from_numpy(fill.noise(name, size, int(salt[1]) if salt else 0)))
    return drawn


def unet_config(arguments: Mapping[str, Any]) -> BlindSRSNFUNetConfig:
    multipliers = tuple(arguments["channel_mults"])
    return BlindSRSNFUNetConfig(
        width=arguments["inner_channel"],
        multipliers=multipliers,
        blocks=arguments["res_blocks"],
        norm_groups=arguments.get("norm_groups", PUBLISHED_GROUPS),
        attention_levels=tuple(level for level in range(len(multipliers)) if 2**level in arguments["attn_strides"]),
        fold=arguments["fold"],
    )


def load_method(case: Case, weights: Mapping[str, Tensor]) -> JointBlind:
    """Return the method with the case's networks, through the importer of released checkpoints."""
    settings = case.config
    encoder = settings["encoder"]
    diffusion = settings.get("diffusion", {"beta_type": "cosine", "n_timestep": 1000})
    config = BlindSRSNFConfig(
        restorer=RRDBConfig(width=encoder["num_feat"], blocks=encoder["num_block"], growth=encoder["num_grow_ch"]),
        unet=unet_config(settings["unet"]),
        contrast=ContrastConfig(
            queue_size=settings["moco_K"] if "moco_K" in settings else settings["moco"]["K"],
            weight=settings.get("contrast_loss_weight", 0.05),
        ),
        schedule=ScheduleConfig(name=diffusion["beta_type"], steps=diffusion["n_timestep"]),
    )
    made, state = import_weights("blindsrsnf", weights, config)
    bands = settings["unet"]["in_channel"]
    method = made.build(Problem(scale=encoder["scale"], bands=bands, lr_bands=bands))
    method.load_state_dict(state)
    return method.eval()


def sampler_of(mode: str, schedule: str | None, skip: int, eta: float, length: int) -> SamplerConfig:
    """Return our sampler of a published one: STEP on the model's table, or VAR on a bisected chain of length // skip steps."""
    if mode == "STEP":
        return SamplerConfig(solver="ddim", grid="table", spacing="strided", stride=skip, eta=eta, clip=True, end="lowest_vp")
    assert mode == "VAR"
    assert schedule in ("quadratic", "linear")
    return SamplerConfig(solver="ddim", grid=f"fastdpm_{schedule}", steps=length // skip, eta=eta, clip=True)


@runner("blindsrsnf", "unet", "unet_full")
@torch.no_grad()
def unet(case: Case) -> dict[str, Any]:
    arguments, weights = case.config, case.weights()
    channels = (weights[name].shape[1] for name in ("first_conv_ctx.weight", "compress.0.weight"))
    network = unet_config(arguments).build(arguments["in_channel"], *channels)
    load_network(network, weights, unet_name(len(arguments["channel_mults"]), arguments["res_blocks"]))
    level = case.tensor("time")
    out = network(given(case, "x"), level, given(case, "ctx"), given(case, "k_v"))
    return {"out": out, "noise_embedding": network.level[0](level)}


@runner("blindsrsnf", "rrdb_full", "rrdb_small")
@torch.no_grad()
def rrdb(case: Case) -> dict[str, Any]:
    weights, settings = case.weights(), case.config
    unshuffle, enlargements = rrdb_stages(settings["scale"])
    growth = weights["body.0.rdb1.conv1.weight"].shape[0]
    options = RRDBConfig(width=settings["num_feat"], blocks=settings["num_block"], growth=growth)
    network = RRDBNet(options, settings["num_in_ch"], settings["num_out_ch"], unshuffle, enlargements)
    feature = load_network(network, weights, rrdb_name("basicsr")).trunk(given(case, "x"))[-1]
    return {"sr": network.head(feature), "features": feature}


@runner("blindsrsnf", "degradation_encoder")
@torch.no_grad()
def degradation_encoder(case: Case) -> dict[str, Any]:
    network, x = load_network(DegradationEncoder(3, 64), case.weights(), encoder_name), given(case, "x")
    feature, projection = network(x)
    feature_train, projection_train = network.train()(x)
    return {
        "feature": feature,
        "projection": projection,
        "feature_train": feature_train,
        "projection_train": projection_train,
        "bn1_running_mean": network.trunk[1].running_mean,
    }


@runner("blindsrsnf", "moco_step")
def moco_step(case: Case) -> dict[str, Any]:
    settings = case.config
    options = ContrastConfig(width=settings["dim"] // 4, queue_size=settings["K"], momentum=settings["m"], temperature=settings["T"])
    contrast = options.build(3)
    load_network(contrast, case.weights() | {"queue": given(case, "queue")}, contrast_name).train()
    contrast.queue_position.fill_(case.spec["inputs"]["queue_ptr"])
    code, logits = contrast.contrast(given(case, "im_q"), given(case, "im_k"))
    contrast.after_step()
    return {
        "embedding": code,
        "logits": logits,
        "loss": contrastive_loss(logits)[None],
        "queue_after": contrast.queue,
        "queue_ptr_after": contrast.queue_position,
        "key_conv0_after": contrast.state_dict()["key_encoder.trunk.0.weight"],
    }


@runner("blindsrsnf", "q_sample")
def q_sample(case: Case) -> dict[str, Any]:
    settings = ScheduleConfig(name="cosine", steps=1000)
    schedule = settings.build()
    steps, length = case.config["t"], len(schedule)
    x0, eps = given(case, "x0"), given(case, "noise")
    drawn = draw(schedule, x0, ReplayNoise([[(t + 0.5) / length for t in steps], eps, case.config["u"]]))
    x, _, _ = noisy(x0, drawn)
    buffers = BlindSRSNFKeyMap().schedule_buffers(settings)
    at = {name: values[steps][:, None, None, None] for name, values in buffers.items()}
    return {
        "x_t": x,
        "level": drawn.level,
        "x_t_discrete": at["sqrt_alphas_cumprod"] * x0 + at["sqrt_one_minus_alphas_cumprod"] * eps,
        "posterior_mean": at["posterior_mean_coef1"] * x0 + at["posterior_mean_coef2"] * x,
        "posterior_variance": at["posterior_variance"].flatten(),
        "posterior_log_variance": at["posterior_log_variance_clipped"].flatten(),
    }


@runner("blindsrsnf", "schedule_cosine1000")
def schedule_cosine(case: Case) -> dict[str, Any]:
    settings = case.config
    schedule = ScheduleConfig(name=settings["beta_type"], steps=settings["n_timestep"], offset=settings["cosine_s"])
    buffers = BlindSRSNFKeyMap().schedule_buffers(schedule)
    index = case.tensor("index")
    full = torch.stack([buffers["betas"], buffers["alphas_cumprod"]])
    return {name: values[index] for name, values in buffers.items()} | {"betas_and_alphas_cumprod_full": full}


@runner("blindsrsnf", "schedules_other")
def schedules_other(case: Case) -> dict[str, Any]:
    steps, chain = case.config["n_timestep"], case.config["var"]
    start, end, length = chain["beta_0"], chain["beta_T"], chain["T"]
    outputs: dict[str, Any] = {name: make_betas(name, steps, start, end) for name in BETAS}
    outputs[f"linear{length}_alphas_cumprod_last"] = (1 - make_betas("linear", length, start, end)).prod()[None]
    for name in case.arrays:
        if match := re.fullmatch(r"(var|step)_(linear|quadratic)_(\d+)", name):
            kind, shape, count = match[1], match[2], int(match[3])
            if kind == "var":
                outputs[name] = fastdpm_betas(count, shape, start, end, length)
            else:
                outputs[name] = np.array(table_indices(length, count, f"fastdpm_{shape}")[::-1])
    return outputs


@runner("blindsrsnf", "psnr_ssim")
def psnr_ssim(case: Case) -> dict[str, Any]:
    images = [case.tensor(name).movedim(-1, 0).double() for name in ("a", "b")]
    planes: dict[str, Callable[[Tensor], Tensor]] = {"rgb": lambda image: image, "y": lambda image: luma(image, "y_studio")}
    outputs: dict[str, Any] = {}
    for name in case.arrays:
        if match := re.fullmatch(r"(rgb|y)_crop(\d+)", name):
            pair = [crop(planes[match[1]](image), int(match[2])) for image in images]
            outputs[name] = [psnr(*pair), ssim(*pair)]
    return outputs


@runner("blindsrsnf", "training_step")
def training_step(case: Case) -> dict[str, Any]:
    settings, weights = case.config, case.weights()
    name, *shape = re.search(r"(snf/\S+) \((\d+),(\d+)\)", settings["queue"]).groups()
    weights["E.queue"] = filled({"columns normalised of fill.noise": [name, [int(n) for n in shape], 0]})
    raw = {key: value for key, value in weights.items() if not key.startswith("ema.")}
    averaged = {key.replace("ema.", "model.", 1): value for key, value in weights.items() if key.startswith("ema.")}
    method = load_method(case, raw).train()
    hr, lr, key_lr = (to_unit_range(given(case, name)) for name in ("hr", "lr_query", "lr_key"))
    batch = Batch(
        metas=[SampleMeta(name=str(index)) for index in range(len(hr))],
        size=(hr.shape[-2], hr.shape[-1]),
        lr_size=(lr.shape[-2], lr.shape[-1]),
        hr=hr,
        lr=lr,
        lr_views=key_lr[:, None],
    )
    steps = [float(number) for number in re.search(r"\[([\d., ]+)\]", settings["t"])[1].split(",")]
    losses = losses_of(method, batch, ReplayNoise([steps, given(case, "noise"), settings["level_uniforms"]]))
    losses.total.backward()
    published = unet_name(len(settings["unet"]["channel_mults"]), settings["unet"]["res_blocks"])
    idle = {published(key) for key, parameter in method.unet.named_parameters() if parameter.grad is None}
    assert idle == set(case.spec["unet_parameters_without_gradient"])
    decay = float(re.search(r"decay ([\d.]+)", settings["ema"])[1])
    average_of = load_method(case, raw | averaged).unet
    average = Ema(EmaConfig(rule="constant", decays=(decay,)), average_of)
    average.update(method.unet, 0, 1)
    return {
        "loss": losses.total[None],
        "loss_consis": losses.terms["restorer"][None],
        "loss_elbo": losses.terms["diffusion"][None],
        "loss_contrast": losses.terms["contrast"][None],
        "grad_norm_encoder": grad_norm(method.restorer.parameters())[None],
        "grad_norm_unet": grad_norm(method.unet.parameters())[None],
        "grad_norm_encoder_q": grad_norm(method.contrast.query_encoder.parameters())[None],
        "ema_final_conv_bias": average.weights(method.unet)[0]["conv_out.bias"],
    }


def last_step(schedule: DiscreteSchedule, x: Tensor, clean: Tensor) -> Tensor:
    """Return what the published last step, from level 0 to itself, makes of x: x and a rounding error.

    1 / sqrt(abar) and sqrt(1/abar - 1) are cast from float64, 1 - abar is formed from the float32 abar, which differs by 2.6e-4 (relative).
    """
    buffers = schedule.buffers()
    direction = (x * buffers["sqrt_recip_alphas_cumprod"][0] - clean) / buffers["sqrt_recipm1_alphas_cumprod"][0]
    alpha_bar = buffers["alphas_cumprod"][0]
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * direction


@runner("blindsrsnf", "sample_step_eta0", "sample_step_eta1", "sample_var_linear_eta0", "sample_var_quadratic")
@torch.no_grad()
def sampling(case: Case) -> dict[str, Any]:
    """STEP's last evaluation leaves x unchanged but for rounding, so our sampler does without it; `last_step` makes it here."""
    settings, drawn, lr = case.config, sampling_draws(case), given(case, "lr")
    method = load_method(case, case.weights())
    code, estimate = method.contrast.code(lr), method.estimate(lr)
    denoiser = method.denoiser(estimate, code)
    network, levels, predictions = denoiser.network, [], []

    def traced(x: Tensor, level: Tensor) -> Tensor:
        levels.append(level)
        predictions.append(network(x, level))
        return predictions[-1]

    denoiser.network = traced
    length = len(method.schedule)
    sampler = sampler_of(settings["mode"], settings["schedule"], settings["skip"], settings["eta"], length)
    made = sample(sampler, denoiser, drawn[0].shape, ReplayNoise(drawn), device="cpu").float()
    if settings["mode"] == "STEP":
        clean = traced(made, method.schedule.signal_levels[1].float().expand(len(made))).clamp(-1, 1)
        made = last_step(method.schedule, made, clean)
    return {
        "sample": made,
        "noise_levels": torch.cat([level[:1] for level in levels]),
        "first_prediction": predictions[0],
        "degradation_code": code,
        "x0_predictions": torch.cat(predictions).clamp(-1, 1),
        "image_uint8": to_uint8(to_unit_range(made))[0].permute(1, 2, 0),
    }


@runner("blindsrsnf", "end_to_end")
@torch.no_grad()
def end_to_end(case: Case) -> dict[str, Any]:
    settings = case.config
    valid, hr = settings["valid"], given(case, "hr")
    scale = valid["scale"]
    size, lr_size = (hr.shape[-2], hr.shape[-1]), (hr.shape[-2] // scale, hr.shape[-1] // scale)
    is_isotropic = valid["blur_type"] == "iso_gaussian"
    kernel = "isotropic" if is_isotropic else "anisotropic"
    degradation = GaussianDegradation(GaussianDegradationConfig(kernel=kernel, kernel_size=valid["blur_kernel"], noise=valid["noise"]))
    parameters = gaussian_parameters(valid)
    field = given(case, "degradation_noise")[0] if valid["noise"] else None
    lr = degradation.apply(hr, [GaussianDecisions(parameters=parameters, lr_size=lr_size, noise_field=field)]).lr
    method = load_method(case, case.weights())
    sampler = sampler_of(settings["approxdiff"], settings["schedule"], valid["skip"], valid["eta"], len(method.schedule))
    batch = Batch(metas=[SampleMeta(name="image")], size=size, lr_size=lr_size, lr=lr)
    image = method.restore(batch, sampler, ReplayNoise(sampling_draws(case)))
    sr = to_uint8(image)[0]
    border = 0 if valid["no_crop_border"] else border_width("ceil_scale", scale)
    pair = [crop(luma(i, "y_studio") if valid["test_Y"] else i, border) for i in (sr.double(), 255 * hr[0].double())]
    return {"sr": sr.permute(1, 2, 0), "lr": to_uint8(lr)[0].permute(1, 2, 0), "psnr": [psnr(*pair)], "ssim": [ssim(*pair)]}
