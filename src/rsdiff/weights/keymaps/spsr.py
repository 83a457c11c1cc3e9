"""SPSR's files (`spsr.pth`, `{iter}_G.pth`, `_D.pth`, `_D_grad.pth`: flat state dicts) <-> our method.

The generator lists one convolution twice (`HR_conv0_new.0` is a part of `model`, which is read last and wins) and holds the two fixed
kernels of its gradient map.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.methods.base import Problem
from rsdiff.methods.spsr import SPSR, SPSRConfig
from rsdiff.networks.discriminators import VGGConfig
from rsdiff.networks.spsr import SPSRNetConfig
from rsdiff.weights.keymaps.discriminators import discriminator_name
from rsdiff.weights.keymaps.renaming import Name, Rule, count_of, ours_from_published, published_from_ours, renamed
from rsdiff.weights.keymaps.rrdb import rrdb_name
from rsdiff.weights.state_dicts import find_state_dict, under

MARKER = "b_fea_conv.0.weight"
JUDGE_MARKER = "features.0.weight"
TWICE = "HR_conv0_new.0."
KERNEL = "get_g_nopadding.weight_"
RULES: tuple[Rule, ...] = (
    (r"\bbranch\.(\d)\.block\.", lambda match: f"b_block_{int(match[1]) + 1}."),
    (r"\bbranch\.(\d)\.fuse\.", lambda match: f"b_concat_{int(match[1]) + 1}.0."),
    (r"\bfusion\.join\.block\.", "f_block."),
    (r"\bfusion\.join\.fuse\.", "f_concat.0."),
    (r"\bfusion\.conv_hr\.", "f_HR_conv0.0."),
    (r"\bfusion\.conv_last\.", "f_HR_conv1.0."),
    (r"\bbranch_first\.", "b_fea_conv.0."),
    (r"\bbranch_body\.", "b_LR_conv.0."),
    (r"\bbranch_map\.", "conv_w.0."),
    (r"\bconv_last\.", "HR_conv1_new.0."),
    (r"\bdense\.(\d)\.convs\.(\d)\.", lambda match: f"RDB{int(match[1]) + 1}.conv{int(match[2]) + 1}.0."),
)


def kernels() -> dict[str, Tensor]:
    """Return the fixed kernels of the gradient map under their published names."""
    vertical = torch.zeros(1, 1, 3, 3)
    vertical[0, 0, 0, 1], vertical[0, 0, 2, 1] = -1, 1
    return {f"{KERNEL}v": vertical, f"{KERNEL}h": vertical.mT.contiguous()}


def spsr_name(blocks: int, stages: int) -> Name:
    """Return the naming of SPSRNet's parameters, for a trunk of so many blocks and a head of so many stages."""
    trunk = rrdb_name("sequential", blocks, stages)
    sized: tuple[Rule, ...] = (
        (r"^branch_up\.(\d)\.", lambda match: f"b_module.{3 * int(match[1]) + 1}."),
        (r"^branch_hr\.", f"b_module.{3 * stages}."),
        (r"^branch_last\.", f"b_module.{3 * stages + 2}."),
    )
    return lambda key: trunk(renamed(key, (*sized, *RULES)))


@dataclass(frozen=True)
class SPSRKeyMap:
    """The `KeyMap` of SPSR: a generator's file, or a folder of generator, discriminator and gradient discriminator in this order.

    What is missing of the discriminators starts fresh. The scale of a head of one stage, 2 or 3, is no matter of its weights.
    """

    def to_ours(self, content: Mapping[str, Any], config: SPSRConfig | None) -> tuple[SPSRConfig, dict[str, Tensor]]:
        parts = [value for key, value in sorted(content.items()) if re.fullmatch(r"stage_\d+", key)] or [content]
        found = find_state_dict(parts[0], MARKER).network
        judges = [find_state_dict(part, JUDGE_MARKER).network for part in parts[1:]]
        stages = count_of(found, r"b_module\.(\d+)\.weight") - 2
        made = config or spsr_config(found, stages, judges)
        network = made.network
        assert isinstance(network, SPSRNetConfig)
        blocks = network.blocks
        state = without_constants(found, f"model.{3 * stages + 2}.")
        bands, lr_bands = state["conv_w.0.weight"].shape[0], state[MARKER].shape[1]
        problem = Problem(scale=2**stages, bands=bands, lr_bands=lr_bands)
        with torch.device("meta"):
            method = made.build(problem)
        assert isinstance(method, SPSR)
        ours: dict[str, Tensor] = {}
        named = {"network": (method.network, state, spsr_name(blocks, stages))}
        for name, judge in zip(("discriminator", "gradient_discriminator"), judges, strict=False):
            own = method.get_submodule(name)
            named[name] = (own, judge, discriminator_name(own))  # type: ignore[arg-type,assignment]
        for part, (module, published, naming) in named.items():
            ours |= {f"{part}.{key}": value for key, value in ours_from_published(published, module.state_dict(), naming).items()}
        return made, ours

    def to_published(self, config: SPSRConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The generator, as released; see `discriminator_name` for the discriminators' names."""
        own = under(state_dict, "network.")
        stages = count_of(own, r"conv_up\.(\d)\.weight")
        assert isinstance(config.network, SPSRNetConfig)
        published = published_from_ours(own, spsr_name(config.network.blocks, stages))
        last = f"model.{3 * stages + 2}."
        return published | {TWICE + part: published[last + part] for part in ("weight", "bias")} | kernels()


def without_constants(found: Mapping[str, Tensor], last: str) -> dict[str, Tensor]:
    """Return a generator's tensors without its fixed kernels, which are checked, and without the second copy of `last`."""
    for name, kernel in kernels().items():
        if name in found and not torch.equal(found[name].float().cpu(), kernel):
            raise UserError(f"the file's '{name}' is not the difference of two neighbours; it is no SPSR as published.")
    kept = {key: value for key, value in found.items() if not key.startswith((KERNEL, TWICE))}
    copies = {last + key: value for key, value in under(found, TWICE).items()}
    return copies | kept


def spsr_config(state: Mapping[str, Tensor], stages: int, judges: list[dict[str, Tensor]]) -> SPSRConfig:
    """Return the config that the shapes of the files tell; the taps are the published ones."""
    blocks = count_of(state, r"model\.1\.sub\.(\d+)\.RDB1\.")
    width, growth = state[MARKER].shape[0], state["f_block.RDB1.conv1.0.weight"].shape[0]
    generator = SPSRNetConfig(width=width, blocks=blocks, growth=growth, head="always_x4" if stages == 2 else "stages")
    config = SPSRConfig(network=generator)
    if not judges:
        return config
    judge = judges[0]
    convs = [key for key in judge if re.fullmatch(r"features\.\d+\.weight", key) and judge[key].ndim == 4]
    channels = judge[max(convs, key=lambda key: int(key.split(".")[1]))].shape[0]
    side = round((judge["classifier.0.weight"].shape[1] / channels) ** 0.5)
    judging = VGGConfig(width=judge[JUDGE_MARKER].shape[0], biases=True, size=side * 2 ** (len(convs) // 2))
    return replace(config, discriminator=judging)
