"""SCDM's checkpoints (`...-model.pth`, one per stage) <-> our cascade. The averaged network (`ema_model`) is taken where there is one.

None is released; this is what the published code writes. Groups of the normalisations, dropout and guidance leave no trace in a file: the
published values are assumed where no config is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.scdm import SCDMConfig
from rsdiff.weights.keymaps.renaming import Name, Rule, flat_lists, ours_from_published, published_from_ours, renamed
from rsdiff.weights.keymaps.sr3 import infer_schedule, levels_of
from rsdiff.weights.state_dicts import find_state_dict, under

MARKER = "init_rgb.weight"
PREFERRED = ("ema_model.", "model.")
DEAD = (r"out_rgb\..*",)
"""A head that the published network has and never applies."""
BLOCK: tuple[Rule, ...] = (
    (r"\bnorm([12])\.", r"norm_\1."),
    (r"\bconv1\.", "conv_1."),
    (r"\bconv2\.", "conv_2.1."),
    (r"(?<!^)\btime\.", "time_bias."),
    (r"\bshortcut\.", "residual_connection."),
    (r"\battention\.norm\.", "attention2.norm."),
    (r"\battention\.query_key_value\.", "attention2.to_qkv."),
    (r"\battention\.out\.", "attention2.to_out."),
)


def scdm_buffers(schedule: DiscreteSchedule) -> dict[str, Tensor]:
    """Return the ten published schedule buffers, derived in float64 and cast once to float32."""
    shared = schedule.buffers()
    alphas = 1 - schedule.betas
    own = {
        "alphas": alphas,
        "reciprocal_sqrt_alphas": (1 / alphas).sqrt(),
        "remove_noise_coeff": schedule.betas / (1 - schedule.alphas_bar).sqrt(),
        "sigma": schedule.betas.sqrt(),
    }
    names = (
        "betas",
        "alphas_cumprod",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
    )
    return {name: shared[name] for name in names} | {name: values.float() for name, values in own.items()}


def scdm_name(levels: int, blocks: int) -> Name:
    """Return the function from our names of a network's parameters to the published ones, whose lists number all levels through."""
    rules: tuple[Rule, ...] = (
        *BLOCK,
        *flat_lists(levels, blocks, stem=0, ends=("downsample.", "upsample.1.")),
        (r"^middle\.", "mid."),
        (r"^stem\.", "init_conv."),
        (r"^condition_stem\.", "init_rgb."),
        (r"^time\.", "time_mlp."),
        (r"^norm_out\.", "out_norm."),
        (r"^conv_out\.", "out_conv."),
    )
    return lambda key: renamed(key, rules)


@dataclass(frozen=True)
class StageFile:
    """One published file: its network's tensors, the schedule it was trained with (None: the file lacks it) and its bands."""

    network: Mapping[str, Tensor]
    schedule: ScheduleConfig | None

    @property
    def bands(self) -> int:
        return self.network["init_conv.weight"].shape[1]

    @property
    def condition_bands(self) -> int:
        return self.network[MARKER].shape[1]


def stage_files(content: Mapping[str, Any]) -> list[StageFile]:
    """Return the stages in a checkpoint's content: one file, or several as {"stage_1": content, ..} or under "stage_1." and so on."""
    stages: dict[int, dict[str, Any]] = {}
    for key, value in content.items():
        match = re.fullmatch(r"stage_(\d+)(?:\.(.+))?", str(key))
        if match is not None:
            stages.setdefault(int(match[1]), {}).update({match[2]: value} if match[2] else value)
    return [_stage_file(part) for _, part in sorted(stages.items())] if stages else [_stage_file(content)]


def _stage_file(content: Mapping[str, Any]) -> StageFile:
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    prefix = next((prefix for prefix in PREFERRED if prefix + MARKER in tensors), "")
    if not prefix:
        return StageFile(find_state_dict(content, MARKER, PREFERRED).network, None)
    buffers = scdm_buffers(ScheduleConfig(steps=1000).build()).keys()
    unknown = next((key for key in tensors if key not in buffers and not key.startswith(PREFERRED)), None)
    if unknown is not None:
        raise UserError(f"the file holds '{unknown}' beside its networks, which is no part of SCDM; choose the model it belongs to.")
    schedule = infer_schedule(tensors["betas"]) if "betas" in tensors else None
    if "betas" in tensors and schedule is None:
        raise UserError("the file's noise schedule is none of those known; only linear and cosine ones can be imported.")
    return StageFile(under(tensors, prefix), schedule)


@dataclass(frozen=True)
class SCDMKeyMap:
    """The `KeyMap` of SCDM. A folder with one file per stage, in the order of their names, gives the cascade."""

    def to_ours(self, content: Mapping[str, Any], config: SCDMConfig | None) -> tuple[SCDMConfig, dict[str, Tensor]]:
        files = stage_files(content)
        made = scdm_config(files) if config is None else _with_schedule(config, files)
        if len(files) != len(made.strides):
            raise UserError(
                f"the source holds {len(files)} of {len(made.strides)} stages; give a folder with one file per stage, in the order of "
                "their names, or set model.strides, model.guidance_weights and model.clamp_shares to those of one stage."
            )
        ours: dict[str, Tensor] = {}
        name = scdm_name(len(made.multipliers), made.blocks)
        for index, file in enumerate(files):
            with torch.device("meta"):
                own = made.build_network(file.bands, file.condition_bands).state_dict()
            ours |= {f"networks.{index}.{key}": value for key, value in ours_from_published(file.network, own, name, DEAD).items()}
        return made, ours

    def to_published(self, config: SCDMConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stages of a cascade lie under "stage_1." and so on: the published code reads each from a file of its own."""
        published: dict[str, Tensor] = {}
        name = scdm_name(len(config.multipliers), config.blocks)
        for index in range(len(config.strides)):
            network = published_from_ours(under(state_dict, f"networks.{index}."), name)
            network |= {"out_rgb.weight": torch.zeros(3, config.width, 3, 3), "out_rgb.bias": torch.zeros(3)}
            file = {prefix + key: value for prefix in PREFERRED for key, value in network.items()} | scdm_buffers(config.schedule.build())
            stage = f"stage_{index + 1}." if len(config.strides) > 1 else ""
            published |= {stage + key: value for key, value in file.items()}
        return published


def _with_schedule(config: SCDMConfig, files: Sequence[StageFile]) -> SCDMConfig:
    """Return the config; raises UserError if a file was trained with another schedule."""
    for file in files:
        given = file.schedule
        if given is not None and not _same_levels(given, config.schedule):
            raise UserError(
                f"the file's noise schedule ({given}) is not the config's ({config.schedule}); set model.schedule to the file's."
            )
    return config


def _same_levels(first: ScheduleConfig, second: ScheduleConfig) -> bool:
    return first.steps == second.steps and torch.allclose(first.build().betas, second.build().betas, rtol=1e-5, atol=0)


def scdm_config(files: Sequence[StageFile]) -> SCDMConfig:
    """Return the config that the shapes of the stages' networks tell; see the module for what they do not."""
    network, bands = files[0].network, files[-1].bands
    width = network["init_conv.weight"].shape[0]
    widths, blocks, attention = levels_of(network, "downs", halved="downsample", block="conv_1", attention="attention2.to_qkv")
    strides = tuple(-(-bands // file.bands) for file in files)
    made = SCDMConfig(
        strides=strides,
        guidance_weights=(2.5, *[1.0] * (len(files) - 1)),
        clamp_shares=(0.96,) * len(files),
        width=width,
        multipliers=tuple(channels // width for channels in widths),
        blocks=blocks,
        time_width=network["time_mlp.1.weight"].shape[0],
        norm_groups=gcd(width, 32),
        attention_levels=tuple(sorted(attention)),
    )
    counted = [len(range(0, bands, stride)) for stride in strides]
    if counted != [file.bands for file in files]:
        raise UserError(f"the stages have {[file.bands for file in files]} bands, which no strides make of {bands}; give them in order.")
    schedule = next((file.schedule for file in files if file.schedule is not None), None)
    return _with_schedule(made if schedule is None else replace(made, schedule=schedule), files)


def scdm_problem(files: Sequence[StageFile]) -> Problem:
    """Return the problem that the stages solve: bands of the last, condition of the first."""
    return Problem(scale=1, bands=files[-1].bands, lr_bands=files[0].condition_bands)
