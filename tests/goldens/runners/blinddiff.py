"""BlindDiff: network, schedule, losses, guided sampling, degradation, scores. Weights pass through the importer of released checkpoints."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.degradations.blur import blur
from rsdiff.degradations.gaussian import GaussianDecisions, GaussianDegradationConfig, GaussianParameters
from rsdiff.degradations.kernels import isotropic_kernels
from rsdiff.degradations.resizing import resize_cubic
from rsdiff.diffusion.guidance import GuidedSteps
from rsdiff.diffusion.learned_variance import ReverseSteps
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.diffusion.schedules import DiscreteSchedule, make_betas, respaced
from rsdiff.diffusion.solvers import Observers, Step, StepRecord
from rsdiff.methods.base import Problem
from rsdiff.methods.blinddiff import BlindDiff, BlindDiffConfig, GuidedReverse, energy, reblurred
from rsdiff.metrics.colour import crop, luma, quantise
from rsdiff.metrics.psnr import psnr
from rsdiff.metrics.ssim import ssim
from rsdiff.networks.layers import SinusoidalEmbedding
from rsdiff.networks.mcformer import MCFormerConfig
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps.blinddiff import mcformer_rules
from rsdiff.weights.keymaps.renaming import renamed
from tests.method_losses import losses_of

from ..case import AlmostEverywhere, Case, runner


def network_config(arguments: dict[str, Any]) -> MCFormerConfig:
    """Return our config of the published constructor's arguments."""
    return MCFormerConfig(
        width=arguments["dim"],
        blocks=tuple(arguments["num_blocks"]),
        refinement=arguments["num_refinement_blocks"],
        heads=tuple(arguments["heads"]),
        expansion=arguments["ffn_expansion_factor"],
        kernel_size=arguments["kernel_size"],
    )


def load(case: Case, **options: Any) -> BlindDiff:
    """Return the method with the case's filled weights; what the file tells must be what the case's arguments say."""
    arguments = case.config.get("network", case.config)
    published = case.weights()
    config, state = import_weights("blinddiff", {"params_ema": published})
    expected = network_config(arguments)
    assert config.network.build(Problem(4, 1, 1)).state_dict().keys() == expected.build(Problem(4, 1, 1)).state_dict().keys()
    exported = export_weights("blinddiff", config, state)
    assert exported.keys() == published.keys()
    assert all(torch.equal(exported[key], value) for key, value in published.items())
    bands = arguments["inp_channels"]
    method = BlindDiffConfig(network=expected, **options).build(Problem(arguments["scale"], bands, bands))
    method.load_state_dict(state)
    return method.eval()


def kept_steps(case: Case) -> int:
    return int(case.config["respacing"])


@runner("blinddiff", "schedule")
def schedule(case: Case) -> dict[str, Any]:
    settings = case.config
    steps = settings["diffusion_steps"]
    scale = 1000 / steps
    whole = DiscreteSchedule(make_betas(settings["noise_schedule"], steps, scale * 1e-4, scale * 2e-2))
    outputs: dict[str, Any] = {}
    for count in map(int, settings["respacing"]):
        kept = whole.kept(respaced(steps, count))
        label = "base" if count == steps else f"s{count}"
        buffers = kept.buffers(torch.float64) | {"posterior_log_variance_clipped": ReverseSteps.of_schedule(kept).log_posterior}
        outputs[f"{label}_map"] = kept.indices
        for name, values in buffers.items():
            every = 37 if "every 37th" in case.spec["outputs"].get(f"{label}_{name}", "") else 1
            outputs[f"{label}_{name}"] = values[::every]
    return outputs


@runner("blinddiff", "time_encoding")
def time_encoding(case: Case) -> dict[str, Any]:
    return {"enc": SinusoidalEmbedding(case.config["dim"])(case.tensor("t"))}


@runner("blinddiff", "net")
@torch.no_grad()
def net(case: Case) -> dict[str, Any]:
    method = load(case)
    network = method.network
    outputs: dict[str, Any] = {}
    parts = {
        "time_code": network.time,
        "kernel_code": network.kernel_code,
        "block0": network.encoders[0][0],
        "latent": network.encoders[-1][-1],
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.update({name: output}))
    lr = case.tensor("lr")
    out, kernel = network(case.tensor("x_t"), case.tensor("t"), lr)
    assert sum(p.numel() for p in network.parameters()) == case.config.get("parameters", sum(p.numel() for p in network.parameters()))
    return outputs | {"out": out, "kernel": kernel.flatten(1), "cond_up": network.enlarge(lr)}


@runner("blinddiff", "p_mean_variance")
@torch.no_grad()
def p_mean_variance(case: Case) -> dict[str, Any]:
    method = load(case, kept_steps=kept_steps(case))
    state, index = case.tensor("x_t"), case.tensor("t")
    output, _ = method.network(state, method.schedule.indices[index], case.tensor("lr"))
    predicted, channels = output.chunk(2, dim=1)
    clean = method.clean(state, predicted, index)
    steps = method.reverse_steps.at(index)
    return {"mean": steps.mean(clean, state), "log_variance": steps.log_variance(channels), "pred_xstart": clean}


@runner("blinddiff", "training_losses")
def training_losses(case: Case) -> dict[str, Any]:
    method = load(case, kept_steps=kept_steps(case))
    hr, lr, index, noise = case.tensor("x0"), case.tensor("lr"), case.tensor("t"), case.tensor("noise")
    terms, kernel = method.terms(hr, lr, index, noise)
    true = case.tensor("kernel_gt").unflatten(1, kernel.shape[1:])
    # the same draws through what the trainer calls, with the term that is commented out switched off
    released = load(case, kept_steps=kept_steps(case), kernel_weight=0.0)
    batch = Batch(metas=metas(len(hr)), size=tuple(hr.shape[-2:]), lr_size=tuple(lr.shape[-2:]), hr=hr, lr=lr)
    losses_of(released, batch, ReplayNoise([index, noise])).total.backward()
    rules = mcformer_rules(len(method.options.network.blocks))
    parameters = {renamed(key, rules): parameter for key, parameter in released.network.named_parameters()}
    return {
        "x_t": method.noised(hr, index, noise),
        "mse": terms["noise"],
        "vb": terms["bound"],
        "loss": terms["noise"] + terms["bound"],
        "kernel": kernel.flatten(1),
        "kernel_mse": method.kernel_error(kernel, true),
        "grad_norms": [float(parameters[key].grad.norm()) for key in case.config["gradient_names"]],
    }


def metas(count: int) -> list[SampleMeta]:
    return [SampleMeta(name=str(index)) for index in range(count)]


@runner("blinddiff", "sample_10")
@torch.no_grad()
def guided_sample(case: Case) -> dict[str, Any]:
    count = kept_steps(case)
    method = load(case, kept_steps=count)
    lr = case.tensor("lr")
    reverse = GuidedReverse(method, lr)
    guidance = GuidedSteps(reverse.energy, method.options.guidance.weight)
    draws = [case.tensor(name) for name in ("z", *(f"n{index}" for index in range(count)))]
    kept: dict[str, list[Tensor]] = {"samples": [], "pred_xstart": [], "kernels": [], "gradients": []}
    unguided: list[Tensor] = []

    def around(step: Step) -> Step:
        def remember(y: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
            following, clean = step(y, sigma, sigma_next)
            unguided.append(following.detach())
            return following, clean

        return guidance(remember)

    def keep(record: StepRecord) -> None:
        level = math.sqrt(1 + record.sigma_next**2)
        kept["samples"].append(record.state / level)
        kept["pred_xstart"].append(record.clean)
        kept["kernels"].append(reverse.kernel.detach().flatten(1))
        kept["gradients"].append((unguided[-1] - record.state) / level)

    sampler = SamplerConfig(solver="native", steps=count, spacing="linspace")
    final = reverse.sample(sampler, ReplayNoise(draws), Observers(callback=keep, around_step=around))
    batch = Batch(metas=metas(len(lr)), size=tuple(final.shape[-2:]), lr_size=tuple(lr.shape[-2:]), lr=lr)
    torch.testing.assert_close(method.restore(batch, sampler, ReplayNoise(draws)), final.float(), rtol=1e-5, atol=1e-5)
    return {name: torch.cat(values).float() for name, values in kept.items()}


@runner("blinddiff", "guidance")
def guidance(case: Case) -> dict[str, Any]:
    size = case.config["kernel_size"]
    sr, kernel, lr = case.tensor("sr").requires_grad_(), case.tensor("kernel").requires_grad_(), case.tensor("lr")
    kernels = kernel.unflatten(1, (size, size))
    value = energy(sr, kernels, lr, case.config["prior_weight"]).sum()
    grad_sr, grad_kernel = torch.autograd.grad(value, (sr, kernel))
    return {
        "reblurred": blur(sr, kernels),
        "low": reblurred(sr, kernels, tuple(lr.shape[-2:])),
        "energy": value,
        "grad_sr": grad_sr,
        "grad_kernel": grad_kernel,
    }


@runner("blinddiff", "imresize")
def imresize(case: Case) -> dict[str, Any]:
    outputs = {}
    for index, ratio in enumerate(case.config["scales"]):
        images = case.tensor(f"in{index}")
        size = (math.ceil(images.shape[-2] * ratio), math.ceil(images.shape[-1] * ratio))
        outputs[f"out{index}"] = resize_cubic(images, size, "symmetric", ratio)
    return outputs


@runner("blinddiff", "kernels_fixed")
def kernels_fixed(case: Case) -> dict[str, Any]:
    return {"kernels": isotropic_kernels(case.tensor("sigma"), case.config["l"], "lower")}


def parameters_of(run: dict[str, Any], draws: list[Tensor]) -> list[GaussianParameters]:
    """Return the parameters of each image. Masked images of mixed runs keep both widths and get angle 0, see the card's quirks."""
    if run["rate_iso"] == 1:
        return [GaussianParameters(width=width, second_width=width) for width in draws[0].flatten().tolist()]
    widths, second_widths, angles, mask = (draw.flatten() for draw in draws[:4])
    angles = torch.where(mask < run["rate_iso"], 0.0, angles)
    rows = zip(widths.tolist(), second_widths.tolist(), angles.tolist(), strict=True)
    return [GaussianParameters(width=width, second_width=second, angle=angle) for width, second, angle in rows]


@runner("blinddiff", "degradation")
def degradation(case: Case) -> dict[str, Any]:
    hr, scale = case.tensor("hr"), case.config["scale"]
    size = (math.ceil(hr.shape[-2] / scale), math.ceil(hr.shape[-1] / scale))
    strength = 0.25
    outputs: dict[str, Any] = {}
    for name, run in case.config["runs"].items():
        draws = [case.tensor(f"{name}_draw{index}") for index in range(5) if f"{name}_draw{index}" in case.arrays]
        config = GaussianDegradationConfig(
            kernel="isotropic" if run["rate_iso"] == 1 else "anisotropic",
            kernel_size=run["ksize"],
            disturbance=strength if run["random_disturb"] else 0.0,
            resize="matlab",
            clamp="with_noise",
        )
        fields = draws[-1] / strength
        decisions = [
            GaussianDecisions(parameters=parameters, lr_size=size, disturbance_field=fields[index] if run["random_disturb"] else None)
            for index, parameters in enumerate(parameters_of(run, draws))
        ]
        made = config.build().apply(hr, decisions)
        assert made.kernel is not None
        outputs |= {
            f"{name}_kernel": made.kernel,
            f"{name}_lr": made.lr_clean,
            f"{name}_lr_rounded": AlmostEverywhere(made.lr, share=0.01, by=1.01 / 255),
            f"{name}_hr_blur": blur(hr, made.kernel)[..., ::3, ::3],
        }
    return outputs


@runner("blinddiff", "metrics")
def metrics(case: Case) -> dict[str, Any]:
    border = case.config["crop_border"]
    sr, hr = (quantise(case.tensor(name)) for name in ("sr", "gt"))
    inner_sr, inner_hr = crop(sr, border), crop(hr, border)
    luma_sr, luma_hr = luma(inner_sr, "y_studio"), luma(inner_hr, "y_studio")
    return {
        "sr_u8": sr.flip(0).permute(1, 2, 0),
        "gt_u8": hr.flip(0).permute(1, 2, 0),
        "y": luma(hr, "y_studio")[0],
        "psnr_y": psnr(luma_sr, luma_hr),
        "ssim_y": ssim(luma_sr, luma_hr),
        "psnr_rgb": psnr(inner_sr, inner_hr),
        "ssim_rgb": ssim(inner_sr, inner_hr),
    }
