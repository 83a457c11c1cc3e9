"""DATSR's files (`restoration_mse.pth`, `restoration_gan.pth`: the U-Net alone) <-> our method, with the extractors of two other files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rsdiff.methods.base import Problem
from rsdiff.methods.datsr import DATSRConfig, published_extractors
from rsdiff.networks.datsr import DATSRNet, DATSRNetConfig
from rsdiff.networks.swinir import relative_positions, shift_mask
from rsdiff.networks.ttsr import TextureExtractor
from rsdiff.weights.keymaps.encoders import DEAD, swinir_name
from rsdiff.weights.keymaps.regression import RegressionKeyMap
from rsdiff.weights.keymaps.renaming import Name, Part, Rule, count_of, name_of_parts, renamed

EXTRACTORS = ("matching_lr", "matching_ref", "extractor")
UNREAD, UNREAD_BLOCKS = "content_extractor.", 8
"""A part of the published network that nothing reads there: zeros in files that we write, with the blocks of the published one."""
CONSTANTS = (*DEAD, r"content_extractor\..*")
STAGES = {"down.0": "down_large", "down.1": "down_medium", "up.0": "up_small", "up.1": "up_medium", "up.2": "up_large"}
SIZES = {"large": 160, "medium": 80, "small": 40}
"""Sides for which published files hold the masks of shifted windows."""
START = "dyn_agg_restore."


def body_of(stage: str) -> str:
    """Return the published name of the transformer of a stage: 'down_body_large' of 'down_large'."""
    return stage.replace("_", "_body_")


OTHERS: tuple[Rule, ...] = (
    (r"^first\.", "unet_head."),
    (r"^shrink\.0\.", "down_tail_large."),
    (r"^shrink\.1\.", "down_tail_medium."),
    (r"^enlarge\.0\.", "up_tail_small.0."),
    (r"^enlarge\.1\.", "up_tail_medium.0."),
    (r"^last\.(\d)\.", lambda match: f"up_tail_large.{2 * int(match[1])}."),
)
IN_STAGE: tuple[Rule, ...] = (
    (r"^(\w+)\.see\.(\d)\.", lambda match: f"{match[1]}_offset_conv{int(match[2]) + 1}."),
    (r"^(\w+)\.aggregate\.offsets\.", r"\1_dyn_agg.conv_offset_mask."),
    (r"^(\w+)\.aggregate\.", r"\1_dyn_agg."),
    (r"^(up|down)_(\w+)\.head\.", r"\1_head_\2.0."),
)


def published_name(key: str) -> str:
    """Return the published name of a parameter of the U-Net."""
    for ours, theirs in STAGES.items():
        if key.startswith(f"{ours}.body."):
            return f"{START}{body_of(theirs)}.{swinir_name(key.removeprefix(f'{ours}.body.'))}"
        if key.startswith(f"{ours}."):
            return START + renamed(f"{theirs}.{key.removeprefix(f'{ours}.')}", IN_STAGE)
    return START + renamed(key, OTHERS)


class DATSRKeyMap(RegressionKeyMap):
    """The `KeyMap` of DATSR. Files do not tell the number of groups of the textures' channels where it differs from what shapes say."""

    marker = f"{START}unet_head.weight"

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        bands = tensors[self.marker].shape[1]
        return Problem(scale=4, bands=bands, lr_bands=bands)

    def infer(self, tensors: Mapping[str, Tensor]) -> DATSRConfig:
        body = f"{START}up_body_small.layers."
        groups = count_of(tensors, body.replace(".", r"\.") + r"(\d+)\.")
        block = f"{body}{{}}.residual_group.blocks.0."
        tables = [tensors[f"{block.format(group)}attn.relative_position_bias_table"].shape for group in range(groups)]
        hidden, width = tensors[f"{block.format(0)}mlp.fc1.weight"].shape
        textures = [tensors[f"{START}up_{size}_dyn_agg.weight"].shape[0] for size in SIZES]
        depths = [count_of(tensors, body.replace(".", r"\.") + rf"{group}\.residual_group\.blocks\.(\d+)\.") for group in range(groups)]
        return DATSRConfig(
            network=DATSRNetConfig(
                width=width,
                groups=tensors[f"{START}up_large_dyn_agg.conv_offset_mask.weight"].shape[0] // 27,
                depths=tuple(depths),
                heads=tuple(table[1] for table in tables),
                window=(round(tables[0][0] ** 0.5) + 1) // 2,
                mlp_ratio=hidden / width,
                texture_channels=(textures[0], textures[1], textures[2]),
            )
        )

    def networks(self, config: DATSRConfig, problem: Problem) -> dict[str, nn.Module]:
        channels = config.network.texture_channels
        extractors: dict[str, nn.Module] = {f"{name}.": TextureExtractor(problem.bands, channels) for name in EXTRACTORS}
        return {"network.": DATSRNet(problem.bands, config.network), **extractors}

    def naming(self, config: DATSRConfig, keys: Collection[str]) -> Name:
        return name_of_parts(Part("network.", "", published_name), *(Part(f"{name}.", f"{name}.") for name in EXTRACTORS))

    def complete(self, tensors: dict[str, Tensor], config: DATSRConfig | None) -> dict[str, Tensor]:
        kept = {key: value for key, value in tensors.items() if not renamed_away(key)}
        if any(key.startswith(EXTRACTORS) for key in kept):
            return kept
        made = config or self.infer(tensors)
        found = published_extractors(made)
        return kept | {f"{name}.{key}": value for name, state in found.items() for key, value in state.items()}

    def to_published(self, config: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See KeyMap; the discriminator is left out, and extractors that other files hold."""
        parts = ("network.", *(EXTRACTORS if config.extractors == "random" else ()))
        kept = {key: value for key, value in state_dict.items() if key.startswith(parts)}
        return super().to_published(config, kept) | constants(config.network, kept["network.first.weight"].shape[1])


def renamed_away(key: str) -> bool:
    """Return whether an entry of a file is one that no result depends on."""
    return any(re.fullmatch(pattern, key) for pattern in CONSTANTS)


def constants(options: DATSRNetConfig, bands: int) -> dict[str, Tensor]:
    """Return what published files hold besides: tables made of sizes, and zeros for what nothing reads."""
    made: dict[str, Tensor] = {}
    for name in STAGES.values():
        side = SIZES[name.split("_")[1]]
        for group, depth in enumerate(options.depths):
            for block in range(depth):
                place = f"{START}{body_of(name)}.layers.{group}.residual_group.blocks.{block}"
                made[f"{place}.attn.relative_position_index"] = relative_positions(options.window)
                if block % 2:
                    made[f"{place}.attn_mask"] = shift_mask((side, side), options.window, options.window // 2)
    names = ["conv_first", *(f"body.{block}.conv{number}" for block in range(UNREAD_BLOCKS) for number in (1, 2))]
    for name in names:
        inner = bands if name == "conv_first" else options.width
        made[f"{UNREAD}{name}.weight"] = torch.zeros(options.width, inner, 3, 3)
        made[f"{UNREAD}{name}.bias"] = torch.zeros(options.width)
    return made
