"""Published names of RRDBNet in three layouts, and the released files of `rrdb` and `esrgan` (ESRGAN, BSRGAN, Real-ESRGAN)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.methods.base import Problem
from rsdiff.methods.esrgan import ESRGANConfig
from rsdiff.methods.regression import RRDBMethodConfig
from rsdiff.networks.discriminators import DiscriminatorConfig, PatchConfig, UNetConfig, VGGConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.rrdb import RRDBNetConfig
from rsdiff.weights.keymaps.discriminators import discriminator_name
from rsdiff.weights.keymaps.renaming import Name, Rule, count_of, ours_from_published, published_from_ours, renamed
from rsdiff.weights.state_dicts import find_state_dict, under

Layout = Literal["basicsr", "esrgan", "sequential"]
MARKERS: Mapping[Layout, str] = {
    "basicsr": "body.0.rdb1.conv1.weight",
    "esrgan": "RRDB_trunk.0.RDB1.conv1.weight",
    "sequential": "model.1.sub.0.RDB1.conv1.0.weight",
}
"""A tensor that every file of a layout has: BasicSR, BlindSRSNF and Real-ESRGAN; ESRGAN, BSRGAN and SRDiff; the first ESRGAN."""
DISCRIMINATOR_MARKERS = ("conv8.weight_orig", "conv0_0.weight", "model.child0.0.bias")
"""Of the U-Net, VGG and patch discriminators."""


def _published_block(text: str, number: str) -> Rule:
    return number, lambda match: text.format(int(match[1]) + 1)


def _rules(layout: Layout, blocks: int, stages: int) -> tuple[Rule, ...]:
    match layout:
        case "basicsr":
            return (
                _published_block("rdb{}", r"dense\.(\d)"),
                _published_block("conv{}", r"convs\.(\d)"),
                _published_block("conv_up{}", r"conv_up\.(\d)"),
            )
        case "esrgan":
            return (
                (r"^body\.", "RRDB_trunk."),
                _published_block("RDB{}", r"dense\.(\d)"),
                _published_block("conv{}", r"convs\.(\d)"),
                _published_block("upconv{}", r"conv_up\.(\d)"),
                (r"^conv_body\.", "trunk_conv."),
                (r"^conv_hr\.", "HRconv."),
            )
        case "sequential":
            # One Sequential: convolution, trunk, then enlargement, convolution and activation per stage, convolution, activation, last.
            return (
                (r"^body\.", "model.1.sub."),
                _published_block("RDB{}", r"dense\.(\d)"),
                (r"convs\.4\.", "conv5."),
                _published_block("conv{}.0", r"convs\.(\d)"),
                (r"^conv_first\.", "model.0."),
                (r"^conv_body\.", f"model.1.sub.{blocks}."),
                (r"^conv_up\.(\d)", lambda match: f"model.{3 * (int(match[1]) + 1)}"),
                (r"^conv_hr\.", f"model.{3 * stages + 2}."),
                (r"^conv_last\.", f"model.{3 * stages + 4}."),
            )


def rrdb_name(layout: Layout, blocks: int = 0, stages: int = 2) -> Name:
    """Return the naming of RRDBNet's parameters in one of the layouts; the sequential one counts its blocks and stages."""
    rules = _rules(layout, blocks, stages)
    return lambda key: renamed(key, rules)


def rrdb_layout(keys: Mapping[str, Any]) -> Layout:
    """Tell the layout of a published state dict."""
    return next((layout for layout, marker in MARKERS.items() if marker in keys), "basicsr")


def rrdb_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the constructor arguments of `rsdiff.networks.rrdb.RRDBNet` that the shapes of a published state dict tell.

    `in_channels` and `unshuffle` share one number: 4 or 16 times the result's bands are taken to be BasicSR's x2 or x1 of images with as
    many bands, which holds for every published file. Every stage is taken to enlarge by 2.
    """
    layout = rrdb_layout(state)
    blocks = count_of(state, r"(?:body|RRDB_trunk|model\.1\.sub)\.(\d+)\.(?:rdb|RDB)")
    if layout == "sequential":
        last_number = max(int(match[1]) for key in state if (match := re.match(r"model\.(\d+)\.weight", key)))
        stages = (last_number - 4) // 3
    else:
        stages = sum(rrdb_name(layout)(f"conv_up.{i}.weight") in state for i in range(3))
    name = rrdb_name(layout, blocks, stages)
    first, last = state[name("conv_first.weight")], state[name("conv_last.weight")]
    bands, entering = last.shape[0], first.shape[1]
    unshuffle = {4 * bands: 2, 16 * bands: 4}.get(entering, 1) if stages == 2 else 1
    return {
        "in_channels": entering // unshuffle**2,
        "out_channels": bands,
        "width": first.shape[0],
        "blocks": blocks,
        "growth": state[name("body.0.dense.0.convs.0.weight")].shape[0],
        "unshuffle": unshuffle,
        "enlargements": (2,) * stages,
    }


def find_generator(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the published state dict of RRDBNet in a file of any of the layouts; raises UserError when there is none.

    The fifth convolution of the sequential layout is called conv5 by KAIR and conv5.0 by ESRGAN: here, conv5.
    """
    for layout, marker in MARKERS.items():
        try:
            found = find_state_dict(content, marker).network
        except ValueError:
            continue
        return {re.sub(r"\.conv5\.0\.", ".conv5.", key): value for key, value in found.items()} if layout == "sequential" else found
    raise UserError("the file holds no RRDBNet in the layouts of BasicSR, ESRGAN or KAIR; choose the model the file belongs to.")


def generator_to_ours(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a published RRDBNet under our names, for the network whose state dict is `own`; strict."""
    options = rrdb_options(state)
    return ours_from_published(state, own, rrdb_name(rrdb_layout(state), options["blocks"], len(options["enlargements"])))


@dataclass(frozen=True)
class RRDBKeyMap:
    """The `KeyMap` of `rrdb`: a generator's file."""

    def to_ours(self, content: Mapping[str, Any], config: RRDBMethodConfig | None) -> tuple[RRDBMethodConfig, dict[str, Tensor]]:
        state = find_generator(content)
        if config is None:
            config = RRDBMethodConfig(network=generator_config(state))
        return config, _network(state, config.network)

    def to_published(self, config: RRDBMethodConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """In BasicSR's layout where the head is BasicSR's, else in KAIR's."""
        return _published_network(config.network, state_dict)


@dataclass(frozen=True)
class ESRGANKeyMap:
    """The `KeyMap` of `esrgan`: a generator's file, or a folder of a generator's and a discriminator's.

    Released models come without a discriminator: then there are no weights of one.
    """

    def to_ours(self, content: Mapping[str, Any], config: ESRGANConfig | None) -> tuple[ESRGANConfig, dict[str, Tensor]]:
        parts = [value for key, value in content.items() if re.fullmatch(r"stage_\d+", key)] or [content]
        state = _first_generator(parts)
        judges = [found for part in parts if (found := _find_discriminator(part)) is not None]
        if config is None:
            discriminator = UNetConfig() if not judges else discriminator_config(judges[0])
            config = ESRGANConfig(network=generator_config(state), discriminator=discriminator)
        weights = _network(state, config.network)
        return config, weights | (self._discriminator(config, judges[0], rrdb_options(state)["out_channels"]) if judges else {})

    def to_published(self, config: ESRGANConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The generator, as released; see `discriminator_name` for the discriminator's names."""
        return _published_network(config.network, state_dict)

    @staticmethod
    def _discriminator(config: ESRGANConfig, published: Mapping[str, Tensor], bands: int) -> dict[str, Tensor]:
        with torch.device("meta"):
            network = config.discriminator.build(bands)
        weights = ours_from_published(published, network.state_dict(), discriminator_name(network))
        return {f"discriminator.{name}": value for name, value in weights.items()}


def generator_config(state: Mapping[str, Tensor]) -> RRDBNetConfig:
    """Return the generator that a file's shapes tell; at x4 both heads are the same and BasicSR's name is taken."""
    options = rrdb_options(state)
    head: Literal["always_x4", "stages"] = "always_x4" if len(options["enlargements"]) == 2 else "stages"
    return RRDBNetConfig(width=options["width"], blocks=options["blocks"], growth=options["growth"], head=head)


def discriminator_config(state: Mapping[str, Tensor]) -> DiscriminatorConfig:
    """Return the discriminator that a published state dict tells, among those the methods train with."""
    if "conv0_0.weight" in state:
        levels = count_of(state, r"conv(\d+)_")
        side = round((state["linear1.weight"].shape[1] / state[f"conv{levels - 1}_1.weight"].shape[0]) ** 0.5)
        return VGGConfig(width=state["conv0_0.weight"].shape[0], size=side * 2**levels)
    if "conv9.weight" in state:
        return UNetConfig(width=state["conv0.weight"].shape[0])
    layers = count_of(state, r"model\.child(\d+)\.") - 2
    return PatchConfig(width=state["model.child0.0.weight_orig"].shape[0], layers=layers)


def _first_generator(parts: list[Any]) -> dict[str, Tensor]:
    reasons = []
    for part in parts:
        try:
            return find_generator(part)
        except ValueError as error:
            reasons.append(error)
    raise reasons[0]


def _find_discriminator(content: Mapping[str, Any]) -> dict[str, Tensor] | None:
    for marker in DISCRIMINATOR_MARKERS:
        try:
            return find_state_dict(content, marker).network
        except ValueError:
            continue
    return None


def _network(state: Mapping[str, Tensor], config: RestorerConfig) -> dict[str, Tensor]:
    """Return the generator's entries of a method's state dict; raises UserError for another head, in a sentence of its own."""
    if not isinstance(config, RRDBNetConfig):
        raise UserError(f"the file holds an RRDBNet and model.network={config.kind} was chosen; leave that out.")
    options = rrdb_options(state)
    unshuffle = options["unshuffle"]
    scale = 2 ** len(options["enlargements"]) // unshuffle
    problem = Problem(scale=scale, bands=options["out_channels"], lr_bands=options["in_channels"])
    if scale != 4 and (config.head == "stages") != (unshuffle == 1):
        theirs = "stages" if unshuffle == 1 else "always_x4"
        raise UserError(f"the file's head for x{scale} is that of model.network.head={theirs} and {config.head} was chosen; change it.")
    with torch.device("meta"):
        own = config.build_network(problem).state_dict()
    return {f"network.{name}": value for name, value in generator_to_ours(state, own).items()}


def _published_network(config: RestorerConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(config, RRDBNetConfig):
        raise UserError(f"network {config.kind} has no published names as a part of this model; export a model on an RRDBNet.")
    name = rrdb_name("basicsr" if config.head == "always_x4" else "esrgan")
    return published_from_ours(under(state_dict, "network."), name)
