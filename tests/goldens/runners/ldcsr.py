"""Runs the cases of `ldcsr`: networks, first and second stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from rsdiff.data.enlarging import enlarge
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.consistency import boundary_weights
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig, sample
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.diffusion.solvers import Observers, StepRecord, native
from rsdiff.methods.base import Problem
from rsdiff.methods.ldcsr import Consistency, LatentDiffusion, LCMSRConfig, LDCSRConfig, Told
from rsdiff.methods.ldcsr_vae import DiscriminatorConfig, LDCSRVae, LDCSRVaeConfig, hinge_loss
from rsdiff.metrics.lpips import Lpips
from rsdiff.networks.continuous_upsampling import CSUM, CSUMConfig, NearestMLP
from rsdiff.networks.kl_autoencoder import (
    AutoencoderConfig,
    ContrastAttention,
    DiagonalGaussian,
    Distillation,
    GAPBlock,
    GAPDecoder,
    GAPDecoderConfig,
    GAPEncoder,
    GAPEncoderConfig,
    Halve,
    KLAutoencoder,
    RefinementUnit,
    modulate,
)
from rsdiff.networks.latent_unet import LatentUNetConfig
from rsdiff.networks.layers import positional_embedding
from rsdiff.networks.rrdb import RRDBConfig, RRDBNet
from rsdiff.training.config import EmaConfig
from rsdiff.training.ema import Ema
from rsdiff.weights import import_weights
from rsdiff.weights.keymaps.ldcsr import EMA, UNET, ema_names, unet_name
from rsdiff.weights.keymaps.ldcsr_autoencoder import DEAD, decoder_config, decoder_name, encoder_name
from rsdiff.weights.keymaps.renaming import Name, ours_from_published
from rsdiff.weights.keymaps.rrdb import rrdb_name, rrdb_options
from rsdiff.weights.keymaps.unet_atom import unet_atom_name
from tests.method_losses import losses_of

from ..case import Case, runner
from .drawn import drawn


def under(prefix: str, name: Name) -> Name:
    """Return the naming of a network that sits under `prefix` in the published state dict."""
    return lambda key: prefix + name(key)


PROBLEM = Problem(scale=4, bands=3, lr_bands=3)


def fill_network(network: nn.Module, weights: dict[str, Tensor], name: Name, ignored: tuple[str, ...] = ()) -> None:
    """Load filled published weights through the project's names, strictly."""
    network.load_state_dict(ours_from_published(weights, network.state_dict(), name, ignored))
    network.eval()


def encoder_options(given: dict[str, Any]) -> GAPEncoderConfig:
    return GAPEncoderConfig(width=given["ch"], multipliers=tuple(given["ch_mult"]), blocks=given["num_res_blocks"])


def decoder_options(given: dict[str, Any]) -> GAPDecoderConfig:
    return GAPDecoderConfig(
        width=given["ch"],
        multipliers=tuple(given["ch_mult"]),
        blocks=given["num_res_blocks"],
        refinements=tuple(given["num_sr_modules"]),
    )


def autoencoder_options(given: dict[str, Any]) -> AutoencoderConfig:
    return AutoencoderConfig(
        encoder=encoder_options(given["encoder"]),
        decoder=decoder_options(given["decoder"]),
        encoder_channels=given["encoder"]["z_channels"],
        latent_channels=given["embed_dim"],
    )


def unet_options(given: dict[str, Any]) -> LatentUNetConfig:
    return LatentUNetConfig(
        width=given["model_channels"],
        multipliers=tuple(given["channel_mult"]),
        blocks=given["num_res_blocks"],
        attention_levels=tuple(rate.bit_length() - 1 for rate in given["attention_resolutions"]),
        head_channels=given["num_head_channels"],
    )


def schedule_options(given: dict[str, Any]) -> ScheduleConfig:
    return ScheduleConfig(name="quad", steps=given["timesteps"], start=given["linear_start"], end=given["linear_end"])


def encoder_of(case: Case) -> GAPEncoder:
    given = case.config
    channels = given["z_channels"] * (2 if given["double_z"] else 1)
    encoder = encoder_options(given).build(given["in_channels"], channels)
    fill_network(encoder, case.weights(), encoder_name)
    return encoder


@runner("ldcsr", "s1_encoder_small")
@torch.no_grad()
def s1_encoder(case: Case) -> dict[str, Any]:
    hr, lr = drawn(case, "hr"), drawn(case, "lr")
    return {"h": encoder_of(case)(torch.cat([enlarge(lr, (hr.shape[-2], hr.shape[-1])), hr], dim=1))}


@runner("ldcsr", "s2_cond_encoder_small")
@torch.no_grad()
def s2_cond_encoder(case: Case) -> dict[str, Any]:
    large = enlarge(drawn(case, "lr"), tuple(case.config["out_size"]))
    return {"lr_up": large, "c": encoder_of(case)(large)}


@runner(
    "ldcsr",
    "s1_decoder_small",
    "ablation_ablation1",
    "ablation_ablation3",
    "ablation_ablation4",
    "ablation_wo_csum",
    "ablation_wo_fru",
    "ablation_fixed_scale",
)
@torch.no_grad()
def decoder(case: Case) -> dict[str, Any]:
    """The variant is told by the published keys, as it is for a released file."""
    weights, given = case.weights(), case.config
    options = decoder_config(weights)
    network: GAPDecoder = options.build(given["z_channels"], given["in_channels"], given["out_ch"])
    fill_network(network, weights, decoder_name(len(options.multipliers)), DEAD)
    return {"out": network(drawn(case, "z"), drawn(case, "lr"), tuple(given["out_size"]))}


@runner("ldcsr", "s1_upsampler")
@torch.no_grad()
def s1_upsampler(case: Case) -> dict[str, Any]:
    given = case.config
    network = CSUM(CSUMConfig(levels=given["levels"]), given["n_feats"], given["out_channels"])
    names = decoder_name(0)
    fill_network(network, case.weights(), lambda key: names(f"upsampler.{key}").removeprefix("upsampler."))
    x, made = drawn(case, "x"), {}
    for H, W in given["sizes"]:
        made[f"out_{H}x{W}"] = network(x, (H, W))
        made[f"w_{H}x{W}"] = network.weights(x.shape[-2], H)
    return made


@runner("ldcsr", "s1_blocks")
@torch.no_grad()
def s1_blocks(case: Case) -> dict[str, Any]:
    weights, x = case.weights(), drawn(case, "x")
    names = decoder_name(0)

    def filled(network: nn.Module, prefix: str, ours: str = "", published: str = "") -> nn.Module:
        """Fill a part from the weights under `prefix`, naming it as if it stood at `ours` in the decoder, which is `published` there."""
        own = {key: value for key, value in weights.items() if key.startswith(prefix)}
        fill_network(network, own, lambda key: prefix + names(ours + key).removeprefix(published))
        return network

    width = x.shape[1]
    out = weights["resnet.conv1.weight"].shape[0]
    modules = 1 + max(int(key.split(".")[2]) for key in weights if key.startswith("fru.IMDB."))
    size = tuple(int(part) for part in case.config["mlp_interp"].split("(")[1].rstrip(")").split(","))
    colours = weights["mlp_interp.f_transfer.2.weight"].shape[0]
    unit, module, attention = "FRUList.0.", "FRUList.0.IMDB.0.", "FRUList.0.IMDB.0.cca."
    return {
        "resnet": filled(GAPBlock(width, out), "resnet.")(x),
        "down": filled(Halve(width), "down.", "halve.", "downsample.")(x),
        "fru": filled(RefinementUnit(width, modules), "fru.", "refine.0.", unit)(x),
        "imd": filled(Distillation(width), "imd.", "refine.0.distillations.0.", module)(x),
        "cca": filled(ContrastAttention(width), "cca.", "refine.0.distillations.0.attention.", attention)(x),
        "style": modulate(x, drawn(case, "shift"), drawn(case, "scale1"), drawn(case, "scale2")),
        "mlp_interp": filled(NearestMLP(width, colours), "mlp_interp.", "upsampler.", "upsampler.")(x, size),
    }


@runner("ldcsr", "s1_gaussian")
def s1_gaussian(case: Case) -> dict[str, Any]:
    moments, eps = drawn(case, "moments"), drawn(case, "eps")
    wide, posterior = DiagonalGaussian.of_moments(15 * moments), DiagonalGaussian.of_moments(moments)
    other, sampled = DiagonalGaussian.of_moments(drawn(case, "other")), posterior.sample(eps)
    own, others = (Normal(given.mean, (0.5 * given.log_variance).exp()) for given in (posterior, other))
    return {
        "mean": wide.mean,
        "logvar": wide.log_variance,
        "sample": sampled,
        "kl": posterior.divergence(),
        "kl_other": kl_divergence(own, others).flatten(1).sum(1),
        "nll": -own.log_prob(sampled).flatten(1).sum(1),
    }


@runner("ldcsr", "s1_autoencoder_small")
@torch.no_grad()
def s1_autoencoder(case: Case) -> dict[str, Any]:
    """Through the importer, with the config taken from the keys and checked against the case's."""
    config, state = import_weights("ldcsr_vae", case.weights())
    assert config.autoencoder == autoencoder_options(case.config), "the config read from the keys is not the case's"
    network: KLAutoencoder = config.autoencoder.build(3, 3).eval()
    network.load_state_dict({key.removeprefix("autoencoder."): value for key, value in state.items() if key.startswith("autoencoder.")})
    hr, lr = drawn(case, "hr"), drawn(case, "lr")
    size = (hr.shape[-2], hr.shape[-1])
    posterior = network.encode(hr, lr)
    z = posterior.sample(drawn(case, "eps"))
    step = int(case.config.get("output_subsampling", "::1").rpartition(":")[2])
    return {
        "mean": posterior.mean,
        "logvar": posterior.log_variance,
        "z": z,
        "rec_sample": network.decode(z, lr, size)[..., ::step, ::step],
        "rec_mode": network.decode(posterior.mean, lr, size)[..., ::step, ::step],
    }


def lpips_of(weights: dict[str, Tensor], prefix: str) -> Lpips:
    """Return LPIPS with filled trunk and heads."""
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    network = Lpips("vgg", {"features." + key.split(".", 2)[2]: value for key, value in own.items() if key.startswith("net.")})
    heads = {key: value for key, value in own.items() if key.startswith("lin")}
    state = network.network.state_dict()
    for key, value in heads.items():
        layer = int(key[3])
        for name in (key, key.replace(f"lin{layer}.", f"lins.{layer}.")):
            assert name in state
            state[name] = value
    network.network.load_state_dict(state)
    return network


@runner("ldcsr", "s1_discriminator_lpips")
@torch.no_grad()
def s1_discriminator(case: Case) -> dict[str, Any]:
    given, weights = case.config, case.weights()
    options = LDCSRVaeConfig(discriminator=DiscriminatorConfig(width=given["ndf"], layers=given["n_layers"]))
    network = LDCSRVae(options, Problem(scale=4, bands=given["input_nc"], lr_bands=given["input_nc"])).discriminator
    own = {key: value for key, value in weights.items() if key.startswith("discriminator.")}
    fill_network(network, own, under("discriminator.", str))
    x, y = drawn(case, "x"), drawn(case, "y")
    made = {"logits_eval": network(x), "lpips": lpips_of(weights, "perceptual_loss.")(x, y, scaled=False)[:, None, None, None]}
    network.train()
    made["logits_train"] = network(x)
    norm = next(part for part in network.modules() if isinstance(part, nn.BatchNorm2d))
    return made | {"running_mean": norm.running_mean, "running_var": norm.running_var}


def gradient_norms(names: list[str], network: nn.Module) -> Tensor:
    """Return the gradient norm of each parameter; 0 where there is none."""
    parameters = dict(network.named_parameters())
    gradients = [parameters[name].grad if name in parameters else None for name in names]
    return torch.stack([torch.zeros(()) if gradient is None else gradient.norm() for gradient in gradients])


def image_batch(hr: Tensor, lr: Tensor) -> Batch:
    metas = [SampleMeta(str(index)) for index in range(len(lr))]
    return Batch(metas=metas, size=(hr.shape[-2], hr.shape[-1]), lr_size=(lr.shape[-2], lr.shape[-1]), hr=hr, lr=lr)


@runner("ldcsr", "s1_training_loss")
def s1_training_loss(case: Case) -> dict[str, Any]:
    loss, weights = case.config["loss"], case.weights()
    discriminator = DiscriminatorConfig(weight=loss["disc_weight"], start_step=loss["disc_start"])
    config = LDCSRVaeConfig(
        autoencoder=autoencoder_options(case.config),
        kl_weight=loss["kl_weight"],
        perceptual_weight=loss["perceptual_weight"],
        discriminator=discriminator,
    )
    _, state = import_weights("ldcsr_vae", weights, config)
    method = config.build(PROBLEM)
    method.load_state_dict(state)
    method.use_perceptual(lpips_of(weights, "loss.perceptual_loss."))
    method.train()
    hr, lr, eps = drawn(case, "hr"), drawn(case, "lr"), drawn(case, "eps")
    batch = image_batch((hr + 1) / 2, (lr + 1) / 2)
    last = "autoencoder.decoder.upsampler.fuse.8.weight"
    made: dict[str, Any] = {}
    stages = {stage.name: stage for stage in method.stages()}
    assert list(stages) == ["reconstruction", "adversarial"]
    assert stages["reconstruction"].steps == loss["disc_start"]
    for when, stage in zip(("before", "after"), ("reconstruction", "adversarial"), strict=True):
        method.zero_grad()
        losses_of(method, batch, ReplayNoise([eps]), stage=stages[stage]).total.backward()
        # The adversarial terms are measured in both cases, though the method leaves them out before they count.
        reconstruction = method.reconstruct(hr, lr, ReplayNoise([eps]))
        parts = method.reconstruction_terms(hr, reconstruction)
        adversarial, weight = method.adversarial_terms(parts.nll, reconstruction.image)
        real, fake = method.discriminator(hr), method.discriminator(reconstruction.image.detach())
        counts = float(stage == "adversarial")
        made["rec"] = reconstruction.image
        made |= {
            f"{when}_total_loss": losses_of(method, batch, ReplayNoise([eps]), stage=stages[stage]).total,
            f"{when}_nll_loss": parts.nll,
            f"{when}_kl_loss": parts.kl,
            f"{when}_rec_loss": parts.per_pixel,
            f"{when}_g_loss": adversarial,
            f"{when}_d_weight": weight,
            f"{when}_grad_norms": gradient_norms(["autoencoder.encoder.conv_in.weight", last, "dead"], method),
            f"{when}_disc_loss": counts * hinge_loss(real, fake),
            f"{when}_logits_real": real.mean(),
            f"{when}_logits_fake": fake.mean(),
        }
    return made


def load_second(case: Case, weights: dict[str, Tensor] | None = None, **options: Any) -> LatentDiffusion:
    """Return the second stage with the case's weights through the importer, in evaluation mode."""
    given = case.config
    config = LDCSRConfig(
        first_stage=autoencoder_options(given["first_stage"]),
        condition=encoder_options(given["cond_stage"]),
        unet=unet_options(given["unet"]),
        schedule=schedule_options(given),
        **options,
    )
    content = {**(weights or case.weights()), "scale_factor": torch.tensor(given["scale_factor"])}
    _, state = import_weights("ldcsr", content, config)
    method = config.build(PROBLEM)
    method.load_state_dict(state)
    method.prepare_training()
    return method.eval()


def unet_of(case: Case, weights: dict[str, Tensor], prefix: str) -> nn.Module:
    """Return the U-Net of a case from the weights under `prefix`."""
    options = unet_options(case.config.get("unet", case.config))
    given = case.config.get("unet", case.config)
    network = options.build(given["out_channels"])
    own = {key: value for key, value in weights.items() if key.startswith(prefix)}
    fill_network(network, own, under(prefix, unet_name(options)))
    return network


@runner("ldcsr", "s2_embedding")
def s2_embedding(case: Case) -> dict[str, Any]:
    values = torch.tensor(case.config["values"], dtype=torch.float32)
    assert case.config["max_period"] == 10_000
    return {"emb": positional_embedding(values, case.config["dim"], endpoint=False)}


@runner("ldcsr", "s2_schedule")
def s2_schedule(case: Case) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, given in case.config.items():
        schedule, every = schedule_options(given).build(), given["subsampling"]
        buffers = schedule.buffers()
        # The weight of the variational bound, which nothing uses, from the float32 buffers; its first entry, infinite, repeats the second.
        alphas = (1 - schedule.betas).float()
        bound = buffers["betas"].square() / (2 * buffers["posterior_variance"] * alphas * (1 - buffers["alphas_cumprod"]))
        bound[0] = bound[1]
        buffers["lvlb_weights"] = bound
        made |= {f"{name}_{key}": value[::every] for key, value in buffers.items()}
    return made


@runner("ldcsr", "s2_unet")
@torch.no_grad()
def s2_unet(case: Case) -> dict[str, Any]:
    told = (torch.tensor(case.config[name]) for name in ("timesteps", "scale", "osize"))
    return {"eps": unet_of(case, case.weights(), "")(drawn(case, "x"), *told)}


def bare_second(case: Case, **options: Any) -> LatentDiffusion:
    """Return a second stage around the case's U-Net; its other networks are small and unused."""
    small = GAPEncoderConfig(width=32, multipliers=(1,), blocks=1)
    first = AutoencoderConfig(encoder=small, decoder=GAPDecoderConfig(width=32, multipliers=(1,), blocks=1, refinements=(1,)))
    config = LDCSRConfig(
        first_stage=replace(first, latent_channels=case.config["unet"]["out_channels"]),
        condition=small,
        unet=unet_options(case.config["unet"]),
        schedule=schedule_options(case.config),
        **options,
    )
    return config.build(PROBLEM)


@runner("ldcsr", "s2_sampling_small")
@torch.no_grad()
def s2_sampling(case: Case) -> dict[str, Any]:
    method, condition = bare_second(case), drawn(case, "c_concat")
    network = unet_of(case, case.weights(), UNET)
    scale, height = torch.tensor(case.config["scale"]).float(), torch.tensor(case.config["osize"])
    steps = case.config["timesteps"]
    given = [drawn(case, name).numpy() for name in ("x_T", *(f"noise_{step}" for step in range(steps)))]
    made: dict[str, Any] = {}

    def keep(record: StepRecord) -> None:
        step = steps - 1 - record.index
        made[f"x_after_t{step}"] = (record.state / (1 + record.sigma_next**2) ** 0.5).float()
        made[f"x0_t{step}"] = record.clean.float()

    sampler = SamplerConfig(solver="ddpm", steps=steps, draw_unused=True)
    denoiser = method.denoiser(condition, Told(scale, height), network)
    sample(sampler, denoiser, condition.shape, ReplayNoise(given), device="cpu", observers=Observers(callback=keep))
    return made


@runner("ldcsr", "s2_training_loss_small", "s2_training_loss_small_wokd")
def s2_training_loss(case: Case) -> dict[str, Any]:
    method = load_second(case, distillation_weight=float(case.config["l_kd_weight"]))
    hr, lr = drawn(case, "hr"), drawn(case, "lr")
    steps = case.config["timesteps"]
    given = [drawn(case, name).numpy() for name in ("eps_posterior", "eps_q", *(f"noise_{step}" for step in range(steps - 1)))]
    losses = losses_of(method, image_batch(hr, lr), ReplayNoise(given))
    losses.total.backward()
    names = ["unet.stem.weight", "unet.scale.0.weight", "unet.conv_out.weight", "condition.conv_in.weight", "condition.conv_out.bias"]
    return {
        "x0": method.encode_target(2 * hr - 1, 2 * lr - 1, ReplayNoise(given[:1])),
        "cond": method.encode_condition(2 * lr - 1, (hr.shape[-2], hr.shape[-1])),
        "loss_simple": losses.terms["diffusion"],
        "loss_kd": losses.terms["distillation"],
        "loss": losses.total,
        "grad_norms": gradient_norms(names, method),
    }


@runner("ldcsr", "s2_pipeline")
@torch.no_grad()
def s2_pipeline(case: Case) -> dict[str, Any]:
    method = load_second(case)
    hr, lr = drawn(case, "hr"), drawn(case, "lr")
    size, steps = (hr.shape[-2], hr.shape[-1]), case.config["timesteps"]
    every = int(case.config["output_subsampling"].rpartition(":")[2])
    given = [drawn(case, name).numpy() for name in ("x_T", *(f"noise_{step}" for step in range(steps)))]
    sampler = SamplerConfig(solver="ddpm", steps=steps, draw_unused=True)
    batch = replace(image_batch(hr, lr), hr=None)
    condition = method.encode_condition(2 * lr - 1, size)
    denoiser = method.denoiser(condition, Told.of(batch))
    latent = sample(sampler, denoiser, condition.shape, ReplayNoise(given), device="cpu").float()
    first = method.first_stage
    posterior = first.encode(2 * hr - 1, 2 * lr - 1)
    reconstruction = first.decode(posterior.sample(drawn(case, "eps_posterior")), 2 * lr - 1, size)
    images = {
        "sr": method.restore(batch, sampler, ReplayNoise(given)),
        "sr_kd": (method.decode(condition, 2 * lr - 1, size) + 1) / 2,  # the decoded condition, without diffusion
        "hr_rec": (reconstruction.clamp(-1, 1) + 1) / 2,
        "sr_unclamped": first.decode(latent / method.latent_scale, 2 * lr - 1, size),
    }
    return {"latent": latent, "cond": condition, **{name: image[..., ::every, ::every] for name, image in images.items()}}


@runner("ldcsr", "s2_ema")
@torch.no_grad()
def s2_ema(case: Case) -> dict[str, Any]:
    weights = case.weights()
    model = nn.Sequential(nn.Linear(*reversed(weights["0.weight"].shape)))
    model.load_state_dict(weights)
    average = Ema(EmaConfig(rule="rising", decays=(case.config["decay"],)), model)
    made: dict[str, Any] = {}
    names = sorted((name for name in case.spec["inputs"] if name.startswith("delta_")), key=lambda name: int(name[6:]))
    for update, name in enumerate(names, start=1):
        model[0].weight += drawn(case, name)
        average.update(model, 8 * (update - 1), 8 * update)
        made[f"ema_{update}"] = average.weights(model)[0]["0.weight"].clone()
    return made


@runner("ldcsr", "consistency_small")
def consistency(case: Case) -> dict[str, Any]:
    given, weights = case.config, case.weights()
    config = LCMSRConfig(
        **{name: getattr(bare_second(case).options, name) for name in ("first_stage", "condition", "unet")},
        schedule=schedule_options(given),
    )
    method, objective = config.build(PROBLEM), config.objective
    assert isinstance(objective, Consistency)
    unet_keys = [key.removeprefix(UNET) for key in weights if key.startswith(UNET)]
    method.unet.load_state_dict(unet_of(case, weights, UNET).state_dict())
    averages = {key: weights[averaged] for key, averaged in ema_names(unet_keys).items()}
    assert all(key.startswith((UNET, EMA)) for key in weights)
    method.get_submodule("target").load_state_dict(unet_of(case, averages, "").state_dict())
    latent, condition = drawn(case, "x0"), drawn(case, "c_concat")
    told = Told(torch.tensor(given["scale"]).float(), torch.tensor(given["osize"]))
    with torch.no_grad():
        agreement, predicted = objective.agreement(method, latent, condition, told, torch.tensor(given["t2"]), drawn(case, "eps"))
        distillation = method.distillation(latent, condition)
        table = method.schedule.sigmas[given["time_grid"]]
        denoiser = method.denoiser(condition, told)
        start = (1 + table[-1] ** 2).sqrt() * drawn(case, "x_T").double()
        noise = ReplayNoise([drawn(case, f"renoise_{step}").numpy() for step in range(given["sampling_steps"])])
        sampled = native(denoiser, table.flip(0), start, noise) / (1 + table[0] ** 2).sqrt()
    listed, _, whole = given["scaling_times"].partition("/")
    times = torch.tensor([float(t) for t in listed.strip(" []").split(",")], dtype=torch.float64) / float(whole)
    skip, out = boundary_weights(times)
    return {
        "c_skip": skip,
        "c_out": out,
        "loss_consistency": agreement,
        "loss_simple": F.mse_loss(predicted, latent),
        "loss_kd": distillation,
        "loss": agreement + given["l_kd_weight"] * distillation,
        "f_t2": predicted,
        "sample": sampled,
    }


@runner("ldcsr", "unet_atom_small")
@torch.no_grad()
def unet_atom(case: Case) -> dict[str, Any]:
    given = case.config
    options = LatentUNetConfig(
        width=given["inner_channel"],
        multipliers=tuple(given["channel_mults"]),
        blocks=given["res_blocks"],
        attention_levels=tuple(stride.bit_length() - 1 for stride in given["attn_strides"]),
    )
    network = options.build_atom(given["out_channel"], given["norm_groups"])
    fill_network(network, case.weights(), unet_atom_name(len(options.multipliers), options.blocks))
    return {"out": network(torch.cat([drawn(case, "x"), drawn(case, "c")], dim=1), torch.tensor(given["noise_level"]))}


@runner("ldcsr", "rrdbnet_small")
@torch.no_grad()
def rrdbnet(case: Case) -> dict[str, Any]:
    weights, x = case.weights(), drawn(case, "x")
    sizes = rrdb_options(weights)
    options = RRDBConfig(width=sizes["width"], blocks=sizes["blocks"], growth=sizes["growth"])
    network = RRDBNet(options, sizes["in_channels"], sizes["out_channels"], sizes["unshuffle"], sizes["enlargements"])
    fill_network(network, weights, rrdb_name("basicsr"))
    return {"out": network(x, tuple(case.config["out_size"])), "feat": network.trunk(x)[-1]}
