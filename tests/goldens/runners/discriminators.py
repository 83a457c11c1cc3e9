"""Discriminators, adversarial and perceptual losses: `baselines` (BasicSR's and KAIR's) and `bsrgan`."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from rsdiff.methods.adversaries import AdversarialKind, AdversarialLossConfig, answer_loss
from rsdiff.methods.perceptual import PerceptualLossConfig, VGG19Features, VGGLayer
from rsdiff.networks.discriminators import (
    PatchDiscriminator,
    PatchNorm,
    PatchSizes,
    PatchStyle,
    UNetConfig,
    UNetDiscriminator,
    VGGConfig,
    VGGDiscriminator,
)
from rsdiff.weights.keymaps.discriminators import Discriminator, discriminator_name

from .. import fill
from ..case import Case, runner
from .diffbsr import load_network
from .practical_images import described_image
from .words import given

KINDS: dict[str, AdversarialKind] = {
    "vanilla": "vanilla",
    "gan": "vanilla",
    "lsgan": "least_squares",
    "wgan": "wasserstein",
    "wgan_softplus": "vanilla",
    "softplusgan": "vanilla",
    "hinge": "hinge",
}
"""Published name of a loss -> ours; softplus of the wrong-signed logit is cross entropy."""
LAYERS: dict[int, VGGLayer] = {2: "conv1_2", 7: "conv2_2", 16: "conv3_4", 25: "conv4_4", 34: "conv5_4"}


def loaded(network: Discriminator, weights: dict[str, Tensor]) -> Any:
    """Load published weights; vectors of spectral norms that the case lists are among them."""
    return load_network(network, weights, discriminator_name(network))


def weights_of(case: Case) -> dict[str, Tensor]:
    """Return the filled weights, with the vectors u and v that are stored in the npz and listed nowhere."""
    stored = {name.replace("/", "."): case.tensor(name) for name in case.arrays if "/" in name}
    return case.weights() | stored


def patch_discriminator(settings: dict[str, Any]) -> PatchDiscriminator:
    words = settings["norm_type"]
    norm: PatchNorm = "batch" if "batch" in words else "instance" if "instance" in words else "none"
    spectral = "spectral" in words
    style = PatchStyle(padding=2, norm=norm, spectral=spectral, bias=True, is_limited=True)
    return PatchDiscriminator(PatchSizes(width=settings["ndf"], layers=settings["n_layers"]), settings["input_nc"], style)


@runner("baselines", "disc")
@torch.no_grad()
def vgg(case: Case) -> dict[str, Any]:
    settings = case.config
    network = VGGDiscriminator(VGGConfig(width=settings["num_feat"], size=settings["input_size"]), settings["num_in_ch"])
    return {"out": loaded(network, weights_of(case))(given(case, "img"))}


@runner("baselines", "disc_kair_vgg128")
@torch.no_grad()
def kair_vgg(case: Case) -> dict[str, Any]:
    images = given(case, "img")
    assert case.config["ac_type"] == "BL"
    options = VGGConfig(width=case.config["base_nc"], size=images.shape[-1], biases=True)
    network = VGGDiscriminator(options, case.config["in_nc"], is_kair=True)
    return {"out": loaded(network, weights_of(case))(images)}


@runner("baselines", "disc_patchgan")
@torch.no_grad()
def patchgan(case: Case) -> dict[str, Any]:
    return {"out": loaded(patch_discriminator(case.config), weights_of(case))(given(case, "img"))}


@runner("baselines", "disc_unet_sn_small", "disc_unet_sn_full", "disc_unet_sn_train")
@torch.no_grad()
def unet(case: Case) -> dict[str, Any]:
    settings = case.config
    built = UNetDiscriminator(UNetConfig(width=settings["num_feat"]), settings["num_in_ch"], settings["skip_connection"])
    network = loaded(built, weights_of(case))
    network.train(case.kind.endswith("train"))
    outputs = {"out": network(given(case, "img"))}
    vectors = {name: re.fullmatch(r"(conv\d)_(weight_[uv])", name) for name in case.arrays}
    return outputs | {name: network.get_submodule(found[1]).get_buffer(found[2]) for name, found in vectors.items() if found}


@runner("bsrgan", "discriminator_unet", "discriminator_patchgan_small")
@torch.no_grad()
def turning(case: Case) -> dict[str, Any]:
    """Two forwards in training mode, which turn the vectors, then one in evaluation mode."""
    settings = case.config
    built: Discriminator = (
        patch_discriminator(settings)
        if "norm_type" in settings
        else UNetDiscriminator(UNetConfig(width=settings["ndf"]), settings["input_nc"])
    )
    network, images = loaded(built, case.weights()).train(), described_image(settings["input"])
    outputs = {"out_train1": network(images)}
    followed = re.match(r"([\w.]+) after the first", case.spec["outputs"]["u_after1"])
    assert followed
    ours = {discriminator_name(built)(key): key for key in network.state_dict()}
    outputs["u_after1"] = network.state_dict()[ours[followed[1]]].clone()
    outputs["out_train2"] = network(images)
    outputs["out_eval"] = network.eval()(images)
    steps = {name: re.search(r"every (\d+)th row", words) for name, words in case.spec["outputs"].items()}
    return {name: value[..., :: int(s[1]), :: int(s[1])] if (s := steps[name]) else value for name, value in outputs.items()}


def itself(answers: Tensor) -> Tensor:
    """The discriminator of cases that start from answers."""
    return answers


@runner("baselines", "gan_losses")
def gan_losses(case: Case) -> dict[str, Any]:
    real, fake, weight = given(case, "real"), given(case, "fake"), case.config["loss_weight"]
    outputs = {}
    for name in set(case.spec["outputs"]) - {"relativistic"}:
        kind = KINDS[name]
        values = answer_loss(kind, fake, True, of_generator=True) * weight, answer_loss(kind, real, True), answer_loss(kind, fake, False)
        outputs[name] = torch.stack(values)
    relative = AdversarialLossConfig(kind="vanilla", relative="to_mean", weight=case.config["relativistic_weight"])
    halves = answer_loss("vanilla", real - fake.mean(), True) / 2, answer_loss("vanilla", fake - real.mean(), False) / 2
    torch.testing.assert_close(relative.discriminator_loss(itself, fake, real).total, halves[0] + halves[1])
    outputs["relativistic"] = torch.stack([relative.generator_loss(itself, fake, real) * relative.weight, *halves])
    return outputs


@runner("bsrgan", "gan_loss")
def gan_loss(case: Case) -> dict[str, Any]:
    fake, real = (described_draw(case.config[name]) for name in "pq")
    outputs: dict[str, Any] = {}
    for name, words in case.spec["outputs"].items():
        if words == "[real, fake]":
            kind = KINDS["gan" if name == "ragan" else name]
            outputs[name] = torch.stack([answer_loss(kind, fake, True), answer_loss(kind, fake, False)])
    relative = AdversarialLossConfig(kind="vanilla", relative="to_batch_mean")
    outputs["ragan_G"] = relative.generator_loss(itself, fake, real)[None]
    outputs["ragan_D"] = relative.discriminator_loss(itself, fake, real).total[None]
    return outputs


def described_draw(words: str) -> Tensor:
    """Return the array of 'fill.noise("name",[2,1,6,5])' or of fill.image."""
    found = re.search(r'fill\.(noise|image)\(f?"(\w+)",\s*\[([\d, ]+)\]', words)
    assert found, words
    maker = fill.noise if found[1] == "noise" else fill.image
    return torch.from_numpy(maker(found[2], tuple(int(n) for n in found[3].split(","))))


@runner("bsrgan", "perceptual")
def perceptual(case: Case) -> dict[str, Any]:
    settings = case.config
    leaf = described_image(settings["x"])
    amplitude = re.search(r"x \+ ([\d.]+)\*", settings["gt"])
    assert amplitude
    target = (leaf + float(amplitude[1]) * described_draw(settings["gt"])).clamp(0, 1)
    layers, weights = tuple(LAYERS[number] for number in settings["feature_layer"]), tuple(settings["weights"])
    network = VGG19Features(case.weights(), layers)

    def entering(images: Tensor) -> Tensor:
        images = (images + 1) / 2 if settings["use_range_norm"] else images
        return images if settings["use_input_norm"] else images * network.std + network.mean

    x, gt = entering(leaf.requires_grad_(True)), entering(target)
    loss = PerceptualLossConfig(layers=layers, layer_weights=weights)
    total = loss.distance_of(network, x, gt)
    total.backward()
    outputs: dict[str, Any] = {"loss": total[None], "grad_sub": leaf.grad}
    squared = PerceptualLossConfig(layers=layers, layer_weights=weights, distance="l2")
    outputs["loss_l2"] = squared.distance_of(network, x, gt)[None]
    alone = {layer: PerceptualLossConfig(layers=(layer,), layer_weights=(1.0,)) for layer in LAYERS.values()}

    def single(layer: VGGLayer) -> Tensor:
        return alone[layer].distance_of(VGG19Features(case.weights(), (layer,)), x, gt)

    outputs["per_layer"] = torch.stack([single(layer) for layer in layers])
    for name, words in case.spec["outputs"].items():
        if found := re.fullmatch(r"loss_layer(\d+)", name):
            outputs[name] = single(LAYERS[int(found[1])])[None]
        elif found := re.search(r"features of x at index (\d+)", words):
            outputs[name] = VGG19Features(case.weights(), (LAYERS[int(found[1])],))(x)[0]
        elif found := re.search(r"every (\d+)th row", words):
            step = int(found[1])
            outputs[name] = outputs[name][..., ::step, ::step]
    return outputs
