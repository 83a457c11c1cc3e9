"""Released files of DRSR (`GE.*`, `E.encoder.*`) and of its base DASR (`G.*`, `E.encoder_q.*`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsdiff.data.seeding import keyed_generator
from rsdiff.methods.base import Problem
from rsdiff.methods.dasr import DASRConfig
from rsdiff.methods.drsr import DRSRConfig
from rsdiff.networks.degradation_aware import ContrastConfig
from rsdiff.networks.modulated import ModulatedConfig
from rsdiff.weights.keymaps.contrast import contrast_name, encoder_name
from rsdiff.weights.keymaps.regression import RegressionKeyMap, enlargement_of
from rsdiff.weights.keymaps.renaming import Name, Part, Rule, count_of, name_of_parts, renamed
from rsdiff.weights.state_dicts import under

RULES: tuple[Rule, ...] = (
    (r"^compress\.", "compress.0."),
    (r"^head\.", "head.0."),
    (r"^subtract_mean\.", "sub_mean."),
    (r"\bmodulation(\d)\.", r"da_conv\1."),
    (r"\bgate\.gate\.", "ca.conv_du."),
    (r"\bblocks\.(?=\d)", "body."),
    (r"\bmix\.", "conv."),
    (r"\bmaps\.", "kernel."),
    (r"(da_conv\d)\.conv(\d)\.", r"\1.add_conv\2."),
)


def modulated_name(restorer: ModulatedConfig, keys: Collection[str]) -> Name:
    """Return the naming of a `ModulatedNetwork`'s parameters.

    A group's last convolution is numbered like a block, the network's like a group, and the last of the enlargement has a name of its own.
    """
    last = max(int(match[1]) for key in keys if (match := re.match(r"upscale\.(\d+)\.", key)))
    sized: tuple[Rule, ...] = (
        (r"^groups\.(\d+)\.conv\.", rf"body.\1.body.{restorer.blocks}."),
        (r"^groups\.", "body."),
        (r"^conv_body\.", f"body.{restorer.groups}."),
        (rf"^upscale\.{last}\.", "tail.1."),
        (r"^upscale\.", "tail.0."),
    )
    return lambda key: renamed(key, (*sized, *RULES))


class ModulatedKeyMap(RegressionKeyMap):
    """What the two share.

    restorer  prefix of the restoration network
    encoder   the degradation encoder, with or without its wrapper
    """

    restorer: str
    encoder: Part

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        width, lr_bands = tensors[f"{self.restorer}head.0.weight"].shape[:2]
        scale = enlargement_of(tensors, f"{self.restorer}tail.0.", width)
        return Problem(scale=scale, bands=tensors[f"{self.restorer}tail.1.weight"].shape[0], lr_bands=lr_bands)

    def restorer_config(self, tensors: Mapping[str, Tensor]) -> ModulatedConfig:
        """Return the sizes of the restoration network."""
        body = f"{self.restorer}body."
        width = tensors[f"{self.restorer}head.0.weight"].shape[0]
        return ModulatedConfig(
            width=width,
            groups=count_of(tensors, rf"{re.escape(body)}(\d+)\.body\.0\."),
            blocks=count_of(tensors, rf"{re.escape(body)}0\.body\.(\d+)\.da_conv1\."),
            reduction=width // tensors[f"{body}0.body.0.da_conv1.ca.conv_du.0.weight"].shape[0],
        )

    def naming(self, config: Any, keys: Collection[str]) -> Name:
        restorer = modulated_name(config.restorer, [key.removeprefix("network.") for key in keys])
        return name_of_parts(Part("network.", self.restorer, restorer), self.encoder)


class DRSRKeyMap(ModulatedKeyMap):
    """The `KeyMap` of DRSR."""

    marker = "GE.head.0.weight"
    restorer = "GE."
    encoder = Part("encoder.", "E.encoder.", encoder_name)

    def infer(self, tensors: Mapping[str, Tensor]) -> DRSRConfig:
        return DRSRConfig(restorer=self.restorer_config(tensors), encoder_width=tensors["E.encoder.E.0.weight"].shape[0])

    def networks(self, config: DRSRConfig, problem: Problem) -> dict[str, nn.Module]:
        return {"network.": config.network(problem), "encoder.": config.encoder(problem)}


class DASRKeyMap(ModulatedKeyMap):
    """The `KeyMap` of DASR. Released files lack key encoder and queue: training from them starts with a copy and a random queue."""

    marker = "G.head.0.weight"
    restorer = "G."
    encoder = Part("contrast.", "E.", contrast_name)

    def infer(self, tensors: Mapping[str, Tensor]) -> DASRConfig:
        contrast = ContrastConfig(
            width=tensors["E.encoder_q.E.0.weight"].shape[0], queue_size=tensors["E.queue"].shape[1], weight=DASRConfig().contrast.weight
        )
        return DASRConfig(restorer=self.restorer_config(tensors), contrast=contrast)

    def networks(self, config: DASRConfig, problem: Problem) -> dict[str, nn.Module]:
        return {"network.": config.network(problem), "contrast.": config.contrast.build(problem.lr_bands)}

    def complete(self, tensors: dict[str, Tensor], config: DASRConfig | None) -> dict[str, Tensor]:
        query, key = "E.encoder_q.", "E.encoder_k."
        copies = {key + name: value.clone() for name, value in under(tensors, query).items()}
        contrast = (config or DASRConfig()).contrast
        codes = tensors[f"{query}mlp.2.weight"].shape[0]
        queue = torch.randn(codes, contrast.queue_size, generator=keyed_generator("queue"))
        return {**copies, "E.queue": F.normalize(queue, dim=0), **tensors}
