"""Published checkpoints of SR3 and its DDPM twin: names, the settings their shapes tell, and their schedule buffers.

The published lists `downs` and `ups` are flat: blocks and resizing convolutions of all levels are numbered through.
Neither the groups of the normalisations nor dropout leave a trace in a state dict; they come from the settings Lightning stores, from a
given config, or are assumed to be those of the published configurations.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.diffusion.schedules import ScheduleConfig, ScheduleName, make_betas
from rsdiff.methods.sr3 import SR3Config
from rsdiff.networks.diffusion_unet import nominal_sizes
from rsdiff.networks.layers import SinusoidalEmbedding
from rsdiff.networks.sr3_unet import SR3UNetConfig
from rsdiff.weights.keymaps.renaming import Name, Rule, flat_lists, ours_from_published, published_from_ours, renamed, states_of
from rsdiff.weights.state_dicts import Found, find_settings, find_state_dict

log = logging.getLogger(__name__)

MARKER = "final_conv.block.3.weight"
PREFERRED = ("denoise_fn.",)  # Lightning's files hold the network twice, as model.* and netG.denoise_fn.*
FREQUENCIES = "time_mlp.0.inv_freq"  # a constant that the twin's files hold
STEM = "downs.0.weight"
TIME_MODULE = {"continuous": "noise_level_mlp", "discrete": "time_mlp"}
TIME_LAYER = {"continuous": "res_block.noise_func.noise_func.0", "discrete": "res_block.mlp.1"}
BLOCK: tuple[Rule, ...] = (
    (r"\bnorm1\.", "res_block.block1.block.0."),
    (r"\bconv1\.", "res_block.block1.block.3."),
    (r"\bnorm2\.", "res_block.block2.block.0."),
    (r"\bconv2\.", "res_block.block2.block.3."),
    (r"\bshortcut\.", "res_block.res_conv."),
    (r"\battention\.query_key_value\.", "attn.qkv."),
    (r"\battention\.", "attn."),
)
OUTSIDE: tuple[Rule, ...] = (
    (r"^stem\.", "downs.0."),
    (r"^middle\.", "mid."),
    (r"^norm_out\.", "final_conv.block.0."),
    (r"^conv_out\.", "final_conv.block.3."),
)
TWIN_SCHEDULE = ScheduleConfig(start=1e-4, end=2e-2)

Time = Literal["continuous", "discrete"]


def sr3_name(time: Time, levels: int, blocks: int, up_end: str = "conv.") -> Name:
    """Return the naming of the U-Net of these sizes; `up_end` is what an enlarging layer is called within its item."""
    rules: tuple[Rule, ...] = (
        (r"^time\.", f"{TIME_MODULE[time]}."),
        (r"\btime\.", f"{TIME_LAYER[time]}."),
        *BLOCK,
        *flat_lists(levels, blocks, ends=("conv.", up_end)),
        *OUTSIDE,
    )
    return lambda key: renamed(key, rules)


def config_from_arguments(arguments: Mapping[str, Any], time: Time, **others: Any) -> SR3Config:
    """Return the config equivalent to the published constructor's arguments; `others` are further options of ours.

    The published defaults fill what is absent: norm_groups 32, channel_mults 1,2,4,8,8, attn_res 8, res_blocks 3, dropout 0.
    """
    sizes = arguments.get("attn_res", 8)
    return SR3Config(
        time=time,
        width=int(arguments["inner_channel"]),
        multipliers=tuple(int(multiplier) for multiplier in arguments.get("channel_mults", (1, 2, 4, 8, 8))),
        blocks=int(arguments.get("res_blocks", 3)),
        norm_groups=int(arguments.get("norm_groups", 32)),
        dropout=float(arguments.get("dropout", 0)),
        nominal_size=int(arguments.get("image_size", 128)),
        attention_sizes=tuple(int(size) for size in (sizes if isinstance(sizes, list | tuple) else [sizes])),
        **others,
    )


def unet_options(config: SR3Config) -> dict[str, Any]:
    """Return the options of the U-Net alone, which other methods' networks have too."""
    return {field.name: getattr(config, field.name) for field in fields(SR3UNetConfig)}


def infer_config(network: Mapping[str, Tensor]) -> SR3Config:
    """Return the config that the keys and shapes of a published state dict tell; see the module for what they do not."""
    time: Time = "continuous" if f"{TIME_MODULE['continuous']}.1.weight" in network else "discrete"
    if f"{TIME_MODULE[time]}.1.weight" not in network:
        raise UserError("the file's network has no embedding of the noise level or time; choose a file of SR3 or of its DDPM twin.")
    width = network[STEM].shape[0]
    widths, blocks, attends_down = levels_of(network, "downs", first=1)
    _, _, attends_up = levels_of(network, "ups")
    nominal_size, attention_sizes = nominal_sizes(attends_down, frozenset(len(widths) - 1 - level for level in attends_up), len(widths))
    multipliers = tuple(channels // width for channels in widths)
    # The published x8 faces configuration of 512 pixels is the only one with 16 groups.
    groups = 16 if (multipliers, blocks) == ((1, 2, 4, 8, 16), 1) else 32
    groups = groups if width % groups == 0 else next(g for g in range(min(groups, width), 0, -1) if width % g == 0)
    return SR3Config(
        time=time,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        norm_groups=groups,
        nominal_size=nominal_size,
        attention_sizes=attention_sizes,
        condition="none" if network[STEM].shape[1] == network[MARKER].shape[0] else "bicubic",
        steps_drawn="batch" if time == "continuous" else "image",
    )


HALVED, BLOCK_END, ATTENTION = "conv", "res_block.block2.block.3", "attn.qkv"


def levels_of(
    network: Mapping[str, Tensor], part: str, first: int = 0, halved: str = HALVED, block: str = BLOCK_END, attention: str = ATTENTION
) -> tuple[list[int], int, frozenset[int]]:
    """Walk a flat list: return the channels of each level, the blocks of the first level and the levels with attention, in its order.

    halved, block, attention  layers by which the items that end a level, blocks, and blocks with attention are told apart
    """
    widths, counts, attends, position = [0], [0], set[int](), first
    while True:
        if f"{part}.{position}.{halved}.weight" in network:
            widths.append(0)
            counts.append(0)
        elif f"{part}.{position}.{block}.weight" in network:
            widths[-1] = network[f"{part}.{position}.{block}.weight"].shape[0]
            counts[-1] += 1
            if f"{part}.{position}.{attention}.weight" in network:
                attends.add(len(widths) - 1)
        else:
            return widths, counts[0], frozenset(attends)
        position += 1


def infer_schedule(betas: Tensor) -> ScheduleConfig | None:
    """Return the schedule that has these betas, or None if none of ours has."""
    start, end = (float(f"{value:.6g}") for value in (betas[0].item(), betas[-1].item()))
    names: tuple[ScheduleName, ...] = get_args(ScheduleName)
    for name in names:
        if torch.allclose(make_betas(name, len(betas), start, end).float(), betas.float(), rtol=1e-5, atol=0):
            valid = 0 < start < 1 and 0 < end < 1
            return (
                ScheduleConfig(name=name, steps=len(betas), start=start, end=end) if valid else ScheduleConfig(name=name, steps=len(betas))
            )
    return None


def stored_schedule(found: Found) -> dict[str, Tensor]:
    """Return the schedule buffers beside the network, by their published names; empty where the file has none.

    Raises UserError if there is anything else beside the network (and its copies).
    """
    names = ScheduleConfig().build().buffers().keys()
    if not found.prefix:
        return {name: found.tensors[name] for name in names if name in found.tensors}
    unknown = next((key for key in found.rest if key.rpartition(".")[2] not in names), None)
    if unknown is not None:
        raise UserError(f"the file holds '{unknown}' beside the network, which is no part of SR3; choose the model the file belongs to.")
    beside = found.prefix.removesuffix("denoise_fn.")
    return {name: found.rest[beside + name] for name in names if beside + name in found.rest}


def check_schedule(stored: Mapping[str, Tensor], schedule: ScheduleConfig) -> None:
    """Raise ValueError if the schedule a checkpoint was trained with is not `schedule`."""
    for name, ours in schedule.build().buffers().items():
        if not _close(stored.get(name, ours), ours):
            given = infer_schedule(stored["betas"]) if "betas" in stored else None
            raise UserError(
                f"the file's noise schedule ({given or name}) is not the config's ({schedule}); set model.schedule to that of the file."
            )


def _close(theirs: Tensor, ours: Tensor) -> bool:
    """Whether a stored constant is ours but for float32 rounding."""
    return theirs.shape == ours.shape and torch.allclose(theirs.float(), ours.float(), rtol=1e-4, atol=1e-6)


@dataclass(frozen=True)
class SR3KeyMap:
    """The `KeyMap` of SR3 and its twin."""

    def to_ours(self, content: Mapping[str, Any], config: SR3Config | None) -> tuple[SR3Config, dict[str, Tensor]]:
        found = find_state_dict(content, MARKER, PREFERRED)
        stored = stored_schedule(found)
        network = {key: tensor for key, tensor in found.network.items() if key not in stored}
        if STEM not in network or network[STEM].ndim != 4:
            raise UserError(f"the file's network has no stem convolution '{STEM}'; choose a file of SR3 or of its DDPM twin.")
        made = config if config is not None else self._config(content, network, stored)
        check_schedule(stored, made.schedule)
        frequencies = SinusoidalEmbedding(made.width).frequencies
        if not _close(network.pop(FREQUENCIES, frequencies), frequencies):
            raise UserError(f"the file's '{FREQUENCIES}' are not the frequencies of an embedding of width {made.width}.")
        with torch.device("meta"):
            own = states_of({"network.": made.build_network(network[STEM].shape[1], network[MARKER].shape[0])})
        return made, ours_from_published(network, own, self._name(made))

    def to_published(self, config: SR3Config, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {f"denoise_fn.{key}": tensor for key, tensor in published_from_ours(state_dict, self._name(config)).items()}
        if config.time == "discrete":
            weights[f"denoise_fn.{FREQUENCIES}"] = SinusoidalEmbedding(config.width).frequencies
        return weights | config.schedule.build().buffers()

    @staticmethod
    def _name(config: SR3Config) -> Name:
        name = sr3_name(config.time, len(config.multipliers), config.blocks)
        return lambda key: name(key.removeprefix("network."))

    @staticmethod
    def _config(content: Mapping[str, Any], network: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> SR3Config:
        inferred = infer_config(network)
        settings = find_settings(content, ("inner_channel", "channel_mults"))
        if settings is not None:
            inferred = config_from_arguments(settings, inferred.time, condition=inferred.condition, steps_drawn=inferred.steps_drawn)
        else:
            log.warning(
                "The file does not tell the groups of its normalisations: %d are assumed. Give the model's config if that is wrong.",
                inferred.norm_groups,
            )
        schedule = infer_schedule(stored["betas"]) if "betas" in stored else None
        if schedule is None:
            if "betas" in stored:
                raise UserError("the file's noise schedule is none of those known; give the model's config with its schedule.")
            schedule = ScheduleConfig() if inferred.time == "continuous" else TWIN_SCHEDULE
        return dataclasses.replace(inferred, schedule=schedule)
