"""DRSR and its base DASR: networks through the importer, contrastive losses, recipe, degradation, metrics."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.degradations.gaussian import GaussianDecisions, GaussianDegradationConfig
from rsdiff.degradations.kernels import anisotropic_kernels, isotropic_kernels
from rsdiff.degradations.resizing import resize_cubic
from rsdiff.methods.base import Problem
from rsdiff.methods.dasr import DASRConfig
from rsdiff.methods.drsr import DRSRConfig
from rsdiff.metrics.psnr import ergas_diffbsr, mse, psnr
from rsdiff.networks.degradation_aware import ContrastConfig, contrastive_loss, nt_xent
from rsdiff.networks.modulated import PEAK, SLOPE
from rsdiff.training.config import LearningRateConfig
from rsdiff.training.learning_rate import learning_rate_factor
from rsdiff.training.step import stage_ends
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps.contrast import contrast_name
from tests.method_losses import losses_of

from ..case import AlmostEverywhere, Case, runner
from .danv2 import NO_NOISE, batch_of, gradient_norms
from .diffbsr import load_network


def load_method(case: Case, kind: str, config: Any) -> Any:
    """Return the method with the case's weights, imported as the released file of a DataParallel wrapper is."""
    weights = case.weights()
    made, state = import_weights(kind, {f"module.{key}": value for key, value in weights.items()}, config)
    if kind == "drsr":
        assert import_weights(kind, weights)[0] == DRSRConfig()
    prefix = "GE" if kind == "drsr" else "G"
    bands = weights[f"{prefix}.head.0.weight"].shape[1]
    method = made.build(Problem(scale=int(case.config["scale"]), bands=bands, lr_bands=bands))
    method.load_state_dict(state)
    exported = export_weights(kind, made, state)
    assert all(torch.equal(exported[key], value) for key, value in weights.items())
    return method.eval()


def every_eighth(feature: Tensor) -> Tensor:
    return feature[:, ::8]


def activated(feature: Tensor) -> Tensor:
    """What the cases store of a modulated layer: its output after the block's activation, which works in place."""
    return every_eighth(F.leaky_relu(feature, SLOPE))


@runner("drsr", "net", "net_x4_published")
@torch.no_grad()
def net(case: Case) -> dict[str, Any]:
    method, lr = load_method(case, "drsr", DRSRConfig()), case.tensor("lr")
    network = method.network
    embedding, projection = method.encoder(lr)
    code, head = network.compressed(embedding), network.head(lr)
    layer = network.groups[0].blocks[0].modulation1
    return {
        "sr": PEAK * method.restore(batch_of(method, lr / PEAK), None, NO_NOISE),
        "embedding": embedding,
        "projection": projection,
        "code": code,
        "head": every_eighth(head),
        "attention": layer.gate.weights(code).flatten(1),
        "da_conv": activated(layer(head, code)),
        "group0": every_eighth(network.groups[0](head, code)),
    }


@runner("drsr", "train_step")
def train_step(case: Case) -> dict[str, Any]:
    config = DRSRConfig(temperature=case.config["temperature"])
    method = load_method(case, "drsr", config).train()
    lr, other, hr = (case.tensor(name) for name in ("lr_i", "lr_j", "gt_i"))
    keys = re.findall(r"(?:E|GE)\.[\w.]+weight", case.spec["outputs"]["grad_norms"])
    seen: dict[str, list[Tensor]] = {"network": [], "encoder": []}
    method.network.register_forward_hook(lambda _module, _inputs, output: seen["network"].append(output))
    method.encoder.register_forward_hook(lambda _module, _inputs, output: seen["encoder"].append(output[1]))
    losses = losses_of(method, batch_of(method, lr / PEAK, hr=hr / PEAK, lr_views=other[:, None] / PEAK), NO_NOISE)
    losses.total.backward()
    state = export_weights("drsr", config, method.state_dict())
    published = dict(zip(method.state_dict(), state, strict=True))
    restored = seen["network"][0].detach()
    if words := re.search(r"sr_i: atol (\S+) of its std", case.spec["tolerance"].get("note", "")):
        restored = AlmostEverywhere(restored, share=1.0, by=float(words[1]) * float(restored.std()))
    return {
        "sr_i": restored,
        "mlp_i": seen["encoder"][0],
        "mlp_j": seen["encoder"][1],
        "l1": losses.terms["image"],
        "nt_xent": losses.terms["contrast"],
        "total": losses.total,
        "grad_norms": gradient_norms(method, published.__getitem__, keys),
        **{
            f"bn{layer}_running_{part}": state[f"E.encoder.E.{layer}.running_{part}"]
            for layer in (1, 4, 7, 10, 13, 16)
            for part in ("mean", "var")
        },
    }


@runner("drsr", "dasr_x4")
@torch.no_grad()
def dasr(case: Case) -> dict[str, Any]:
    method, lr = load_method(case, "dasr", DASRConfig(contrast=ContrastConfig(queue_size=8, weight=1.0))), case.tensor("lr")
    network = method.network
    embedding = method.contrast.code(lr)
    code, head = network.compressed(embedding), network.head(network.subtract_mean(lr))
    return {
        "sr": network(lr, embedding),
        "embedding": embedding,
        "da_conv": activated(network.groups[0].blocks[0].modulation1(head, code)),
    }


@runner("drsr", "dasr_moco")
def dasr_moco(case: Case) -> dict[str, Any]:
    settings = case.config
    options = ContrastConfig(width=settings["dim"] // 4, queue_size=settings["K"], momentum=settings["m"], temperature=settings["T"])
    contrast = options.build(3)
    load_network(contrast, case.weights() | {"queue": case.tensor("queue_before")}, contrast_name).train()
    code, logits = contrast.contrast(case.tensor("im_q"), case.tensor("im_k"))
    contrast.after_step()
    return {
        "embedding": code,
        "logits": logits,
        "loss": contrastive_loss(logits),
        "queue_after": contrast.queue,
        "ptr": contrast.queue_position,
        "k_first_weight": contrast.state_dict()["key_encoder.trunk.0.weight"][:4],
    }


@runner("drsr", "nt_xent")
def contrast_of_views(case: Case) -> dict[str, Any]:
    first, second = case.tensor("z_i"), case.tensor("z_j")
    losses = {temperature: nt_xent(first, second, temperature) for temperature in case.config["temperatures"]}
    return {f"{code}_t{temperature}": loss for temperature, loss in losses.items() for code in ("ce", "exp")}


@runner("drsr", "schedule")
def schedule(case: Case) -> dict[str, Any]:
    """The recipe in epochs: one step stands for an epoch."""
    settings = case.config
    encoder, total = settings["epochs_encoder"], settings["epochs_encoder"] + settings["epochs_sr"] + 1
    decay_encoder, decay_sr = settings["lr_decay_encoder"], settings["lr_decay_sr"]
    gammas = dict.fromkeys(range(decay_encoder, encoder + 1, decay_encoder), settings["gamma_encoder"])
    reached = settings["lr_encoder"] * math.prod(gammas.values())
    gammas[encoder + 1] = settings["lr_sr"] / reached
    for epoch in range(encoder + decay_sr, total, decay_sr):
        gammas[epoch] = gammas.get(epoch, 1.0) * settings["gamma_sr"]
    config = LearningRateConfig(shape="multistep", milestones=tuple(gammas), gammas=tuple(gammas.values()))
    method = DRSRConfig(hr_contrast_steps=encoder // 2, lr_contrast_steps=encoder - encoder // 2).build(Problem(4, 3, 3))
    ends = [end for end, _ in stage_ends(method.stages(), total)]
    epochs = case.input("epoch").tolist()
    return {
        "lr": [settings["lr_encoder"] * learning_rate_factor(config, epoch, 0, total) for epoch in epochs],
        "stage": [next(number for number, end in enumerate(ends) if epoch < end) for epoch in epochs],
    }


@runner("drsr", "kernels")
def kernels(case: Case) -> dict[str, Any]:
    size = case.config["kernel_size"]
    first, second, degrees = case.tensor("lambda1_lambda2_thetadeg").unbind(1)
    return {
        "iso": isotropic_kernels(case.tensor("sigma"), size),
        "aniso": anisotropic_kernels(first, second, torch.deg2rad(degrees), size),
    }


@runner("drsr", "kernels_random")
def kernels_random(case: Case) -> dict[str, Any]:
    settings, size = case.config, case.config["kernel_size"]
    draws = {name: case.input(f"u_{name}").tolist() for name in ("theta", "lambda1", "lambda2", "sigma")}
    widths, sigma = (settings["lambda_min"], settings["lambda_max"]), (settings["sig_min"], settings["sig_max"])
    aniso = GaussianDegradationConfig(kernel="anisotropic", kernel_size=size, width=widths, second_width=widths).build()
    iso = GaussianDegradationConfig(kernel_size=size, width=sigma).build()
    rows = zip(draws["theta"], draws["lambda1"], draws["lambda2"], strict=True)
    return {
        "aniso": aniso.kernels([aniso.parameters({"angle": t, "width": a, "second_width": b}) for t, a, b in rows]),
        "iso": iso.kernels([iso.parameters({"width": u}) for u in draws["sigma"]]),
    }


@runner("drsr", "bicubic")
def bicubic(case: Case) -> dict[str, Any]:
    outputs = {}
    for index, factor in enumerate(case.config["factors"]):
        image = case.tensor(f"in{index}")
        size = (int(image.shape[-2] / factor), int(image.shape[-1] / factor))
        outputs[f"out{index}"] = resize_cubic(image, size, "clamped", 1 / factor)
    return outputs


@runner("drsr", "degrade_eval", "degrade_train")
def degrade(case: Case) -> dict[str, Any]:
    hr = case.tensor("hr") / PEAK
    samples, views = hr.shape[:2]
    scale = case.config["scale"]
    size = (hr.shape[-2] // scale, hr.shape[-1] // scale)
    outputs: dict[str, Any] = {}
    for index, run in enumerate(case.config["runs"]):
        settings = degradation_options(run, case.config["kernel_size"])
        degradation = GaussianDegradationConfig(**settings).build()
        names = degradation.random_names()
        drawn = case.tensor(f"uniform{index}").reshape(len(names), samples) if names else torch.zeros(0, samples)
        noise = case.tensor(f"noise{index}") if f"noise{index}" in case.arrays else None
        decisions = []
        for sample in range(samples):
            parameters = degradation.parameters(dict(zip(names, drawn[:, sample].tolist(), strict=True)))
            fields = [None] * views if noise is None else noise[sample * views : (sample + 1) * views]
            decisions += [GaussianDecisions(parameters=parameters, lr_size=size, noise_field=field) for field in fields]
        images = hr.flatten(0, 1)
        unrounded = GaussianDegradationConfig(**settings, rounding=False, clamp="never").build().apply(images, decisions)
        made, before = degradation.apply(images, decisions), PEAK * unrounded.lr.unflatten(0, (samples, views))
        ties = ((before - before.floor() - 0.5).abs() < 2e-3).float().mean()
        rounded = PEAK * made.lr.unflatten(0, (samples, views))
        outputs[f"lr{index}"] = AlmostEverywhere(rounded, share=float(ties), by=1.0) if ties else rounded
        outputs[f"pre_round{index}"] = before
        if made.kernel is not None:
            outputs[f"kernel{index}"] = made.kernel[::views]
    return outputs


def degradation_options(run: dict[str, Any], size: int) -> dict[str, Any]:
    """Return our options of the published ones of one run."""
    noise = float(run.get("noise", 0.0))
    options: dict[str, Any] = {
        "kernel": "isotropic" if run["blur_type"] == "iso_gaussian" else "anisotropic",
        "kernel_size": size,
        "noise": (0.0, noise) if run["random"] and noise else noise,
    }
    if options["kernel"] == "isotropic":
        return options | {"width": (run["sig_min"], run["sig_max"]) if run["random"] else run["sig"]}
    if run["random"]:
        widths = (run["lambda_min"], run["lambda_max"])
        return options | {"width": widths, "second_width": widths, "angle": (0.0, math.pi)}
    return options | {"width": run["lambda_1"], "second_width": run["lambda_2"], "angle": math.radians(run["theta"])}


@runner("drsr", "metrics")
def metrics(case: Case) -> dict[str, Any]:
    sr, gt = case.tensor("sr"), case.tensor("gt")
    return {
        "psnr_drsr": psnr(sr, gt, identical=100.0),
        "mse": mse(sr, gt),
        "psnr": psnr(sr, gt),
        "ssim_copy": misaligned_ssim(sr, gt),
        "ergas_copy": ergas_diffbsr(sr, gt, 4),
    }


def misaligned_ssim(sr: Tensor, gt: Tensor) -> Tensor:
    """DiffBSR's copy takes the columns for bands: 3x3 windows over (band, row), range 2, sample moments. A near miss, so only here."""
    x, y = (image.double().movedim(-1, 0)[None] for image in (sr, gt))

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, 3, stride=1)

    unbiased = 9 / 8
    mean_x, mean_y = mean(x), mean(y)
    variances = unbiased * (mean(x * x) - mean_x.square() + mean(y * y) - mean_y.square())
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x.square() + mean_y.square() + c1) * (variances + c2))).mean()
