"""DiffBSR and its SRDiff ablation: networks, schedule, objective, sampling. Weights pass through the importer's key maps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsdiff.data.ranges import to_signed_range
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.degradations.gaussian import GaussianDecisions, GaussianDegradation, GaussianDegradationConfig, GaussianParameters
from rsdiff.degradations.rounding import to_uint8
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.diffbsr import DiffBSRConfig
from rsdiff.methods.diffbsr_ablations import DiffBSRSRDiffConfig
from rsdiff.methods.joint_blind import Estimate, JointBlind, add_residual, residual
from rsdiff.metrics.colour import crop, luma
from rsdiff.metrics.lpips import Lpips
from rsdiff.metrics.psnr import ergas_diffbsr, mse, psnr
from rsdiff.metrics.ssim import ssim
from rsdiff.networks.degradation_aware import (
    ContrastConfig,
    DegradationEncoder,
    DiffSRUNet,
    DiffSRUNetConfig,
    contrastive_loss,
)
from rsdiff.networks.rrdb import RRDBConfig
from rsdiff.networks.srdiff_unet import SRDiffUNetConfig
from rsdiff.networks.srdsran import SRDSRAN, SRDSRANConfig
from rsdiff.training.config import EmaConfig
from rsdiff.training.ema import Ema
from rsdiff.weights import import_weights
from rsdiff.weights.keymaps.contrast import contrast_name, encoder_name
from rsdiff.weights.keymaps.degradation_aware import unet_name
from rsdiff.weights.keymaps.renaming import COUNTERS, Name
from rsdiff.weights.keymaps.rrdb import rrdb_name
from rsdiff.weights.keymaps.srdiff import srdiff_unet_name
from rsdiff.weights.keymaps.srdsran import drop_repeated_stages, srdsran_name
from rsdiff.weights.state_dicts import rename_strictly
from tests.method_losses import losses_of

from .. import fill
from ..case import Case, runner

RGB = Problem(scale=4, bands=3, lr_bands=3)
ANCESTRAL = SamplerConfig(solver="ddpm", clip=True, steps=20)
"""The published sampler; cases with another T replace `steps`."""


def load_network(network: nn.Module, published: Mapping[str, Tensor], name: Name, ignored: tuple[str, ...] = ()) -> Any:
    """Load a bare published state dict through the network's names, strictly but for integer counters, which cases leave out."""
    own = network.state_dict()
    names = {name(key): key for key in own if not key.endswith(COUNTERS)}
    shapes = {key: own[key].shape for key in names.values()}
    network.load_state_dict(own | rename_strictly(published, names, shapes, ignored))
    return network.eval()


def schedule_of(config: Mapping[str, Any], steps: int | None = None) -> ScheduleConfig:
    return ScheduleConfig(
        name=config["schedule"], steps=steps or config["n_timestep"], start=config["linear_start"], end=config["linear_end"]
    )


def unet_config(arguments: Mapping[str, Any]) -> DiffSRUNetConfig:
    return DiffSRUNetConfig(
        width=arguments["inner_channel"],
        multipliers=tuple(arguments["channel_mults"]),
        blocks=arguments["res_blocks"],
        norm_groups=arguments["norm_groups"],
        dropout=arguments["dropout"],
        keep_unused=True,
    )


def restorer_config(arguments: Mapping[str, Any]) -> SRDSRANConfig:
    return SRDSRANConfig(
        groups=arguments["n_residual_blocks"],
        blocks=arguments["n_basic_blocks"],
        group_gates=arguments["rla_mode"],
        block_gates=arguments["bla_mode"],
        global_gates=arguments["ga_mode"],
        pooling=arguments["pool_mode"],
        mix=arguments["addconv"],
    )


def gaussian_parameters(setting: Mapping[str, Any]) -> GaussianParameters:
    """Return our parameters of a published validation setting."""
    is_isotropic = setting["blur_type"] == "iso_gaussian"
    width = setting["sig"] if is_isotropic else setting["lambda_1"]
    return GaussianParameters(
        width=width,
        second_width=width if is_isotropic else setting["lambda_2"],
        angle=0.0 if is_isotropic else float(np.deg2rad(setting["theta"])),
        noise=setting["noise"],
    )


def load_unet(arguments: Mapping[str, Any], published: Mapping[str, Tensor]) -> DiffSRUNet:
    assert arguments["in_channel"] == 2 * arguments["out_channel"]
    network = unet_config(arguments).build(arguments["out_channel"], published["compress.0.weight"].shape[1])
    return load_network(network, published, unet_name(len(arguments["channel_mults"]), arguments["res_blocks"]))


def method_around(case: Case) -> JointBlind:
    """Return DiffBSR with the case's U-Net and schedule; its other networks are not used."""
    config = DiffBSRConfig(
        restorer=SRDSRANConfig(width=16, groups=1, blocks=1),
        unet=unet_config(case.config["unet"]),
        contrast=ContrastConfig(queue_size=8),
        schedule=schedule_of(case.config["schedule"]),
    )
    method = config.build(RGB)
    method.unet = load_unet(case.config["unet"], case.weights())
    return method


def with_copies(case: Case) -> dict[str, Tensor]:
    """Return the filled weights after the copy that the case states in words ("encoder.a.3.* is a copy of a.0.*")."""
    weights = case.weights()
    match = re.search(r"(\S+)\.\* is a copy of (\S+)\.\*", case.spec.get("prefix_note", ""))
    if match:
        copy, source = match.groups()
        parent = copy.removesuffix(source.rpartition(".")[0] + "." + copy.rpartition(".")[2])
        for key in weights:
            if key.startswith(f"{copy}."):
                weights[key] = weights[parent + source + key.removeprefix(copy)]
    return weights


def method_from_checkpoint(case: Case) -> JointBlind:
    """Return DiffBSR with all networks of the case, through the importer of released checkpoints."""
    settings = case.config
    config = DiffBSRConfig(
        restorer=restorer_config(settings["encoder"]),
        unet=unet_config(settings["unet"]),
        contrast=ContrastConfig(queue_size=settings["K"], weight=settings.get("contrast_loss_weight", 0.05)),
        schedule=schedule_of(settings["schedule"]),
    )
    made, state = import_weights("diffbsr", with_copies(case), config)
    scale = settings["encoder"]["upscale_factor"]
    method = made.build(Problem(scale=scale, bands=settings["encoder"]["out_channels"], lr_bands=settings["encoder"]["in_channels"]))
    method.load_state_dict(state)
    return method


def signed(case: Case, name: str) -> Tensor:
    return to_signed_range(case.tensor(name))


def draws(case: Case) -> list[np.ndarray]:
    spec = case.spec["inputs"]["draws"]
    return [fill.noise(name, tuple(spec["shape"]), spec.get("salt", 0)) for name in spec["names"]]


def grad_norm(parameters: Any) -> Tensor:
    return torch.stack([p.grad.square().sum() for p in parameters if p.grad is not None]).sum().sqrt()


def batch_of(hr: Tensor | None, lr: Tensor, size: tuple[int, int], lr_views: Tensor | None = None) -> Batch:
    metas = [SampleMeta(name=str(index)) for index in range(len(lr))]
    return Batch(metas=metas, size=size, lr_size=(lr.shape[-2], lr.shape[-1]), hr=hr, lr=lr, lr_views=lr_views)


@runner("diffbsr", "diffsr_unet")
@torch.no_grad()
def diffsr_unet(case: Case) -> dict[str, Any]:
    time = torch.tensor(case.spec["inputs"]["time"]["value"])
    return {"y": load_unet(case.config, case.weights())(case.tensor("x"), time, case.tensor("k_v"))}


@runner("diffbsr", "srdsran")
@torch.no_grad()
def srdsran(case: Case) -> dict[str, Any]:
    settings = case.config
    problem = Problem(scale=settings["upscale_factor"], bands=settings["out_channels"], lr_bands=settings["in_channels"])
    network: SRDSRAN = restorer_config(settings).build(problem)
    load_network(network, drop_repeated_stages(case.weights()), srdsran_name)
    return {"sr": network(signed(case, "lr"))}


@runner("diffbsr", "degradation_encoder")
@torch.no_grad()
def degradation_encoder(case: Case) -> dict[str, Any]:
    code, projection = load_network(DegradationEncoder(3, 64), case.weights(), encoder_name)(signed(case, "lr"))
    return {"fea": code, "out": projection}


@runner("diffbsr", "moco_train_forward")
def moco_train_forward(case: Case) -> dict[str, Any]:
    settings = case.config
    options = ContrastConfig(width=settings["dim"] // 4, queue_size=settings["K"], momentum=settings["m"], temperature=settings["T"])
    contrast = options.build(3)
    load_network(contrast, case.weights(), contrast_name).train()
    contrast.queue_position.fill_(settings["queue_ptr"])
    code, logits = contrast.contrast(signed(case, "im_q"), signed(case, "im_k"))
    contrast.after_step()
    outputs: dict[str, Any] = {
        "fea": code,
        "logits": logits,
        "labels": torch.zeros(len(logits), dtype=torch.int64),
        "cross_entropy": contrastive_loss(logits),
        "queue_after": contrast.queue,
        "queue_ptr_after": contrast.queue_position,
    }
    for key, value in contrast.state_dict().items():
        published = contrast_name(key).replace(".", "_")
        outputs[published] = value.flatten()[:64] if published.startswith("encoder_k") else value
        outputs[published.removeprefix("encoder_")] = value
    return outputs


@runner("diffbsr", "residual_maps")
def residual_maps(case: Case) -> dict[str, Any]:
    up = signed(case, "up")
    return {"res": residual(signed(case, "hr"), up), "img": add_residual(case.tensor("z"), up)}


@runner("diffbsr", "schedule_linear_cosine_20")
def schedule(case: Case) -> dict[str, Any]:
    built = schedule_of(case.config).build()
    return built.buffers() | {"sqrt_alphas_cumprod_prev_f64": built.signal_levels, "betas_f64": built.betas}


@runner("diffbsr", "loss_elbo")
def loss_elbo(case: Case) -> dict[str, Any]:
    method = method_around(case).train()
    hr, eps = signed(case, "HR"), case.tensor("eps")
    outputs: dict[str, Any] = {}
    for name, drawn in case.config["cases"].items():
        method.zero_grad()
        image = (hr + 0.2 * case.tensor("dup")).requires_grad_()
        code = case.tensor("k_v").requires_grad_()
        noise = ReplayNoise([drawn["t"], drawn["u"], eps])
        loss = method.diffusion_loss(hr, Estimate(image, image), code, noise)
        loss.backward()
        outputs |= {f"loss_{name}": loss, f"grad_sr_{name}": image.grad, f"grad_kv_{name}": code.grad}
        outputs[f"grad_norm_unet_{name}"] = grad_norm(method.unet.parameters())
    return outputs


@runner("diffbsr", "training_step")
def training_step(case: Case) -> dict[str, Any]:
    method = method_from_checkpoint(case).train()
    hr = case.tensor("HR")
    batch = batch_of(hr, case.tensor("im_q"), (hr.shape[-2], hr.shape[-1]), case.tensor("im_k")[:, None])
    losses = losses_of(method, batch, ReplayNoise([case.config["t"], case.config["u"], case.tensor("eps")]))
    losses.total.backward()
    return {
        "loss": losses.total,
        "loss_contrast": losses.terms["contrast"],
        "loss_consis": losses.terms["restorer"],
        "loss_elbo": losses.terms["diffusion"],
        "grad_norm_encoder": grad_norm(method.restorer.parameters()),
        "grad_norm_E": grad_norm(method.contrast.query_encoder.parameters()),
        "grad_norm_unet": grad_norm(method.unet.parameters()),
    }


@runner("diffbsr", "ema_accumulate")
def ema_accumulate(case: Case) -> dict[str, Any]:
    """The averages of the trainer, started from the case's average instead of the weights."""
    settings = case.config

    def filled(salt: int) -> dict[str, Tensor]:
        return {key: torch.from_numpy(fill.fill_array(key, tuple(shape), salt)) for key, shape in case.spec["keys"].items()}

    name = unet_name(len(settings["unet"]["channel_mults"]), settings["unet"]["res_blocks"])
    unet = load_unet(settings["unet"], filled(settings["ema_salt"]))
    average = Ema(EmaConfig(rule="constant", decays=(settings["decay"],)), unet)
    load_network(unet, filled(settings["model_salt"]), name)
    for step in range(settings["updates"]):
        average.update(unet, step, step + 1)
    return {name(key).replace(".", "_"): value.flatten()[:128] for key, value in average.weights(unet)[0].items()}


@runner("diffbsr", "sample_T20")
@torch.no_grad()
def sample_residual(case: Case) -> dict[str, Any]:
    method, drawn = method_around(case), draws(case)
    up = signed(case, "up")
    sampler = SamplerConfig(solver="ddpm", clip=True, steps=case.config["schedule"]["n_timestep"])
    made = sample(sampler, method.denoiser(Estimate(up, up), case.tensor("k_v")), up.shape, ReplayNoise(drawn), device="cpu")
    return {"residual": made, "sr": method.compose(made.to(up.dtype), Estimate(up, up))}


@runner("diffbsr", "pipeline_tiny")
@torch.no_grad()
def pipeline(case: Case) -> dict[str, Any]:
    method = method_from_checkpoint(case).eval()
    lr = (case.tensor("lr") * 255).round() / 255
    estimate = method.estimate(to_signed_range(lr))
    batch = batch_of(None, lr, (estimate.image.shape[-2], estimate.image.shape[-1]))
    sampler = SamplerConfig(solver="ddpm", clip=True, steps=case.config["schedule"]["n_timestep"])
    image = method.restore(batch, sampler, ReplayNoise(draws(case)))
    return {
        "fea": method.contrast.code(to_signed_range(lr)),
        "condition": estimate.image,
        "sr": to_signed_range(image),
        "sr_uint8": to_uint8(image)[0].permute(1, 2, 0),
    }


@runner("diffbsr", "ablation_srdiff")
@torch.no_grad()
def ablation_srdiff(case: Case) -> dict[str, Any]:
    unet, rrdb, drawn = case.config["unet"], case.config["rrdb"], draws(case)
    steps = len(drawn) - 1
    config = DiffBSRSRDiffConfig(
        restorer=RRDBConfig(width=8, blocks=1, growth=4),
        unet=SRDiffUNetConfig(
            multipliers=tuple(unet["channel_mults"]), condition_width=rrdb["nf"], condition_blocks=rrdb["nb"], condition_growth=rrdb["gc"]
        ),
        contrast=ContrastConfig(width=1, queue_size=8),
        schedule=schedule_of(case.config["schedule"], steps),
    )
    method = config.build(Problem(scale=rrdb["scale"], bands=unet["out_channel"], lr_bands=rrdb["in_nc"]))
    load_network(method.unet, case.weights(), srdiff_unet_name)
    load_network(method.condition, case.weights("keys_rrdb"), rrdb_name("esrgan"))
    method.eval()
    lr, up = signed(case, "lr"), signed(case, "up")
    estimate = Estimate(up, method.estimate(lr).feature)
    features = method.condition.trunk((lr + 1) / 2)
    full = schedule_of(case.config["schedule"]).build().buffers()
    length = len(full["betas"])
    sampler = SamplerConfig(solver="ddpm", clip=True, steps=steps, draw_unused=True)
    made = sample(sampler, method.denoiser(estimate, up), up.shape, ReplayNoise(drawn), device="cpu")
    return {
        "y": method.unet(case.tensor("x"), torch.tensor([case.config["t"]]), estimate.feature),
        "rrdb_out": to_signed_range(method.condition.head(features[-1]).clamp(0, 1)),
        "fea_last": features[-1],
        f"betas{length}": full["betas"],
        f"alphas_cumprod{length}": full["alphas_cumprod"],
        f"sr_T{steps}": method.compose(made.to(up.dtype), estimate),
    }


@runner("diffbsr", "bicubic_baseline")
def bicubic_baseline(case: Case) -> dict[str, Any]:
    """The published "Bicubic" row, which is not the project's: corners aligned, no MATLAB convention."""
    lr, scale = (case.tensor("lr") * 255).round(), case.config["scale"]
    size = [scale * length for length in lr.shape[-2:]]
    enlarged = nn.functional.interpolate(lr, size, mode="bicubic", align_corners=case.config["align_corners"])
    return {"bic": enlarged, "bic_uint8": to_uint8(enlarged, peak=255)[0].permute(1, 2, 0)}


@runner("diffbsr", "metrics")
def metrics(case: Case) -> dict[str, Any]:
    hr = np.round(255 * case.input("hr"))
    (key,) = (name for name in case.spec["inputs"] if name != "hr")
    spec = case.spec["inputs"][key]
    amplitudes = {name: float(value) for value, name in re.findall(r"(\d+(?:\.\d+)?) for (?:case )?(\w+)", spec["meaning"])}
    outputs: dict[str, Any] = {}
    for name, amplitude in amplitudes.items():
        drawn = fill.noise(spec["name"].replace("<case>", name), tuple(spec["shape"]), spec.get("salt", 0))
        sr = np.clip(np.round(hr + np.float32(amplitude) * drawn), 0, 255)
        images = torch.from_numpy(sr), torch.from_numpy(hr)
        inner = tuple(crop(image, 4) for image in images)
        lumas = tuple(crop(luma(image, "y_studio"), 4) for image in images)
        outputs[name] = [mse(*images), psnr(*images), ssim(*images), ergas_diffbsr(*images, 4)]
        outputs[name] += [measure(*pair) for pair in (inner, lumas) for measure in (psnr, ssim)]
    return outputs


@runner("diffbsr", "lpips_alex_filled")
@torch.no_grad()
def lpips_alex(case: Case) -> dict[str, Any]:
    trunk = {f"features.{key.split('.', 2)[2]}": value for key, value in case.weights().items()}
    distance = Lpips(case.config["net"], trunk)
    hr = np.round(255 * case.input("hr"))
    sr = np.clip(np.round(hr + np.float32(20) * case.input("n")), 0, 255)
    images = [torch.from_numpy(image)[None] / 255 for image in (hr, sr)]
    return {"lpips_0_1": distance(*images, scaled=False)[0], "lpips_minus1_1": distance(*images, scaled=True)[0]}


@runner("diffbsr", "test_degradations")
def test_degradations(case: Case) -> dict[str, Any]:
    hr = torch.from_numpy(np.round(255 * case.input("hr")))[0] / 255
    scale = case.config["scale"]
    size = (hr.shape[-2] // scale, hr.shape[-1] // scale)
    spec = case.spec["inputs"]["draws"]
    fields = {name.split("/")[2]: torch.from_numpy(fill.noise(name, tuple(shape), spec["salt"])) for name, shape in spec["names"]}
    outputs: dict[str, Any] = {}
    for setting in case.config["settings"]:
        name, is_isotropic = setting["name"], setting["blur_type"] == "iso_gaussian"
        degradation = GaussianDegradation(
            GaussianDegradationConfig(
                kernel="isotropic" if is_isotropic else "anisotropic", kernel_size=case.config["kernel_size"], noise=setting["noise"]
            )
        )
        parameters = gaussian_parameters(setting)
        field = fields[name][0] if setting["noise"] else None
        made = degradation.apply(hr, [GaussianDecisions(parameters=parameters, lr_size=size, noise_field=field)])
        assert made.kernel is not None
        assert made.lr_clean is not None
        outputs |= {f"kernel_{name}": made.kernel[0], f"clean_{name}": 255 * made.lr_clean[0], f"lr_{name}": to_uint8(made.lr)[0]}
    return outputs
