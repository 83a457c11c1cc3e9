"""SPSR: gradient maps, generator and discriminators through the importer, losses, and whole training steps through the method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.losses.images import ImageLossConfig
from rsdiff.methods.adversaries import AdversarialLossConfig, answer_loss
from rsdiff.methods.base import Problem
from rsdiff.methods.perceptual import PerceptualLossConfig, VGG19Features
from rsdiff.methods.spsr import LARGER, SPSR, SPSRConfig
from rsdiff.networks.discriminators import VGGConfig, VGGDiscriminator
from rsdiff.networks.spsr import SPSRNetConfig, gradient_map
from rsdiff.training.starting import load_weights
from rsdiff.training.step import stage_ends
from rsdiff.weights.importer import import_weights
from rsdiff.weights.keymaps.spsr import spsr_name

from .. import fill
from ..case import Case, runner
from .discriminators import KINDS, LAYERS, loaded


def filled(keys: dict[str, list[int]], salt: int, gain: float = 1.0) -> dict[str, Tensor]:
    """Return filled weights of a network whose case gives every network a salt of its own."""
    arrays = {key: fill.fill_array(key, tuple(shape), salt) for key, shape in keys.items()}
    return {key: torch.from_numpy(array * (gain if array.ndim >= 2 else 1)).float() for key, array in arrays.items()}


def load(generator: dict[str, Any], weights: dict[str, Tensor], config: SPSRConfig, **others: dict[str, Tensor]) -> SPSR:
    scale = generator.get("upscale", generator.get("scale"))
    content = {"stage_1": weights, **{f"stage_{number}": state for number, state in enumerate(others.values(), 2)}} if others else weights
    inferred, _ = import_weights("spsr", content)
    assert (inferred.network, inferred.discriminator) == (config.network, config.discriminator)
    config, state = import_weights("spsr", content, config)
    method = config.build(Problem(scale=scale, bands=generator.get("out_nc", 3), lr_bands=generator.get("in_nc", 3)))
    load_weights(method, state, Path("spsr"))
    return method


def config_of(generator: dict[str, Any]) -> SPSRConfig:
    stages = {2: "stages", 3: "stages", 4: "always_x4", 8: "stages"}[generator.get("upscale", generator.get("scale"))]
    return SPSRConfig(network=SPSRNetConfig(width=generator["nf"], blocks=generator["nb"], head=stages))  # type: ignore[arg-type]


@runner("spsr", "gradient_maps")
def gradient_maps(case: Case) -> dict[str, Any]:
    return {f"pad{padding}": gradient_map(case.tensor("x"), padding) for padding in (1, 2)}


@runner("spsr", "spsr_generator")
@torch.no_grad()
def generator(case: Case) -> dict[str, Any]:
    method, lr = load(case.config, case.weights(), config_of(case.config)).eval(), case.tensor("lr")
    image, branch = method.network.image_and_map(lr)
    return {"sr": image, "branch": branch, "grad_lr": gradient_map(lr)}


@runner("spsr", "discriminator")
@torch.no_grad()
def discriminator(case: Case) -> dict[str, Any]:
    images, settings = case.tensor("x"), case.config
    network = VGGDiscriminator(VGGConfig(width=settings["base_nf"], size=images.shape[-1], biases=True), settings["in_nc"])
    network = loaded(network, case.weights())
    outputs = {"eval": network.eval()(images), "train": network.train()(images)}
    return {**outputs, "running_mean": network.norms[0].running_mean, "running_var": network.norms[0].running_var}


@runner("spsr", "gan_loss")
def gan_loss(case: Case) -> dict[str, Any]:
    real, fake = case.tensor("real"), case.tensor("fake")
    game = AdversarialLossConfig(kind=KINDS[case.config["gan_type"]], relative="to_mean", joint=True)
    return {
        "generator": game.generator_loss(lambda answers: answers, fake, real),
        "discriminator": game.discriminator_loss(lambda answers: answers, fake, real).total,
    }


@runner("spsr", "feature_loss")
def feature_loss(case: Case) -> dict[str, Any]:
    assert case.config["use_input_norm"]
    layer = LAYERS[case.config["feature_layer"]]
    network, loss = VGG19Features(case.weights(), (layer,)), PerceptualLossConfig(layers=(layer,), layer_weights=(1.0,))
    return {"fx": network(case.tensor("x"))[0], "loss": loss.distance_of(network, case.tensor("x"), case.tensor("y"))}


@runner("spsr", "train_step")
def train_step(case: Case) -> dict[str, Any]:
    """The losses of the stage that the trainer would be in."""
    settings, hr = case.config, case.tensor("hr")
    method = training_method(case)
    size = (hr.shape[-2], hr.shape[-1])
    lr = torch.nn.functional.avg_pool2d(hr, settings["network_G"]["scale"])
    batch = Batch([], size, (lr.shape[-2], lr.shape[-1]), hr=hr, lr=lr)
    # Their steps are counted from 1, ours from 0.
    stage = next(stage for end, stage in stage_ends(method.stages(), 10**6) if settings["step"] - 1 < end)
    method.train().start_stage(stage)
    found = method.losses(batch, stage, ReplayNoise([]))
    for losses in found.values():
        losses.total.backward()
    terms, options = found["restorer"].terms, method.options
    judges = {"": (method.discriminator, 0), "_grad": (method.gradient_discriminator, LARGER)}
    outputs: dict[str, Any] = {
        "term_pixel": terms["l1"],
        "term_feature": terms["perceptual"],
        "term_gradient_pixel": terms["gradient_pixel"],
        "term_branch_pixel": terms["branch"],
        "term_gan": terms["adversarial"],
        "term_gradient_gan": terms["gradient_adversarial"],
        "log_l_g_pix": options.loss.l1 * terms["l1"],
        "log_l_g_fea": options.perceptual.weight * terms["perceptual"],
        "log_l_g_gan": options.adversarial.weight * terms["adversarial"],
        "log_l_g_pix_grad_branch": options.branch_weight * terms["branch"],
    }
    for name, (judge, padding) in judges.items():
        verdict = found["gradient_discriminator" if padding else "discriminator"]
        made, real = ((gradient_map(image, padding) if padding else image) for image in (method.network(lr).detach(), hr))
        answers = {"real": judge(real).detach(), "fake": judge(made).detach()}
        halves = {
            "real": answer_loss("vanilla", answers["real"] - answers["fake"].mean(), True),
            "fake": answer_loss("vanilla", answers["fake"] - answers["real"].mean(), False),
        }
        torch.testing.assert_close(verdict.total, (halves["real"] + halves["fake"]) / 2)
        for kind in answers:
            outputs[f"log_l_d_{kind}{name}"] = halves[kind]
            outputs[f"log_D_{kind}{name}"] = verdict.terms[kind]
    return outputs | gradient_norms(case, method)


def training_method(case: Case) -> SPSR:
    settings, keys = case.config, case.spec
    salts, weights = settings["salts"], settings["weights"]
    config = config_of(settings["network_G"])
    config = replace(
        config,
        discriminator=VGGConfig(biases=True, size=case.spec["inputs"]["hr"]["shape"][-1]),
        loss=ImageLossConfig(l1=weights["pixel"]),
        perceptual=replace(config.perceptual, weight=weights["feature"]),
        adversarial=replace(config.adversarial, weight=weights["gan"]),
        gradient_pixel_weight=weights["gradient_pixel"],
        gradient_adversarial_weight=weights["gradient_gan"],
        branch_weight=weights["branch_pixel"],
        fusion_steps=settings["Branch_init_iters"] - 1,
    )
    method = load(
        settings["network_G"],
        filled(keys["keys"], salts["G"]),
        config,
        discriminator=filled(keys["keys_D"], salts["D"]),
        gradient_discriminator=filled(keys["keys_D"], salts["D_grad"]),
    )
    method.objective.perceptual.use(VGG19Features(filled(keys["keys_F"], salts["VGG"], settings["vgg_gain"]), config.perceptual.layers))
    return method


def gradient_norms(case: Case, method: SPSR) -> dict[str, float]:
    """Return the norms that the case stores; -1 where there is no gradient."""
    name = spsr_name(method.options.network.blocks, len(method.network.enlargements))
    norms = {name(key): -1.0 if p.grad is None else float(p.grad.norm()) for key, p in method.network.named_parameters()}
    stored = [key for key in case.arrays if key.startswith("gradnorm/G/")]
    return {key: norms[key.removeprefix("gradnorm/G/").replace("/", ".")] for key in stored}
