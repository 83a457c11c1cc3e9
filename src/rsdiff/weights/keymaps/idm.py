"""IDM's released checkpoints: 'encoder.', 'denoise_fn.' (SR3's names, with further modules), parameters that nothing uses, and buffers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.diffusion.schedules import DiscreteSchedule, ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.idm import IDMConfig
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.weights.keymaps.encoders import edsr_name
from rsdiff.weights.keymaps.renaming import Name, count_of, ours_from_published, published_from_ours
from rsdiff.weights.keymaps.sr3 import check_schedule, infer_config, infer_schedule, list_positions, module_names, unet_options
from rsdiff.weights.state_dicts import find_state_dict, under

log = logging.getLogger(__name__)

MARKER = "denoise_fn.condition_scale1.1.weight"
DEAD_UNET = (
    r"ups\.\d+\.style\.(weight|modulated_conv\..*)",
    r"final_(down1|down2|linear|styleconv)\..*",
    r"condition_(scale1|scale2)\.0\..*",
    r"condition_shift\.0\.0\..*",
)
DEAD = (r"imnet\..*", r"encoder\.(sub|add)_mean\..*", *(rf"denoise_fn\.{pattern}" for pattern in DEAD_UNET))
"""Published parameters that nothing uses; beside them the last conv_body_down, whose number depends on the levels."""


def unet_names(config: IDMConfig) -> dict[str, str]:
    """Return our parameter name -> published one, for every parameter of the U-Net (and some that a configuration leaves out)."""
    levels = len(config.multipliers)
    modules = {
        theirs: ours for theirs, ours in module_names("continuous", levels, config.blocks).items() if not ours.endswith("leave.conv")
    }
    for theirs, ours, _ in list_positions(levels, config.blocks):
        if ours.endswith(".leave.conv"):
            block, leave = theirs.removesuffix(".conv"), ours.removesuffix(".conv")
            modules |= {f"{block}.style.activate": f"{leave}.activate"}
            modules |= {f"{block}.imnet.{i}": f"{leave}.linear.{i}" for i in range(2)}
    modules |= {f"conv_body_first.{i}": f"style.first.{i}" for i in range(2)}
    for i in range(levels - 1):
        modules |= {f"conv_body_down.{i}.{j}": f"style.down.{i}.{j}" for j in (1, 2)}
        modules |= {f"condition_scale1.{i + 1}": f"style.weigh_feature.{i}", f"condition_scale2.{i + 1}": f"style.weigh_condition.{i}"}
        modules[f"condition_shift.{i + 1}.0"] = f"style.shift.{i}"
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for theirs, ours in modules.items() for kind in ("weight", "bias")}


def encoder_naming(blocks: int) -> Name:
    """Return how parameters of the condition encoder are published."""
    features = edsr_name(blocks)
    return lambda key: features(key.removeprefix("features.")) if key.startswith("features.") else key.replace("out.", "tail.0.", 1)


def dead_of(config: IDMConfig, prefix: str = "") -> tuple[str, ...]:
    """Return the patterns of unused parameters of a U-Net published under `prefix` (a regular expression)."""
    last = rf"conv_body_down\.{len(config.multipliers) - 1}\..*"
    return tuple(prefix + pattern for pattern in (*DEAD_UNET, last))


def unused_buffer(schedule: DiscreteSchedule) -> Tensor:
    """Return 'ddim_c1', which published files hold and nothing reads."""
    before, bar = schedule.alphas_bar_before, schedule.alphas_bar
    return ((1 - bar / before) * (1 - before) / (1 - bar)).float().sqrt()


class IDMKeyMap:
    """The `KeyMap` of IDM."""

    def to_ours(self, content: Mapping[str, Any], config: IDMConfig | None) -> tuple[IDMConfig, dict[str, Tensor]]:
        """See KeyMap."""
        published = dict(find_state_dict(content, MARKER).network)
        buffers = {key: published.pop(key) for key in (*ScheduleConfig().build().buffers(), "ddim_c1") if key in published}
        network = under(published, "denoise_fn.")
        config = config or self._config(network, published, buffers)
        buffers.pop("ddim_c1", None)
        check_schedule(buffers, config.schedule)
        bands, lr_bands = network["final_conv.block.3.weight"].shape[0], published["encoder.head.0.weight"].shape[1]
        with torch.device("meta"):
            own = config.build(Problem(scale=4, bands=bands, lr_bands=lr_bands)).state_dict()
        ignored = (*DEAD, *dead_of(config, r"denoise_fn\."))
        return config, ours_from_published(published, own, self._name(config), ignored)

    def to_published(self, config: IDMConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See KeyMap. Parameters that nothing uses are left out."""
        schedule = config.schedule.build()
        constants = schedule.buffers() | {"ddim_c1": unused_buffer(schedule)}
        return published_from_ours(state_dict, self._name(config)) | constants

    def _name(self, config: IDMConfig) -> Name:
        names, encoder = unet_names(config), encoder_naming(config.encoder.blocks)

        def name(key: str) -> str:
            part, _, rest = key.partition(".")
            return f"encoder.{encoder(rest)}" if part == "encoder" else f"denoise_fn.{names[rest]}"

        return name

    @staticmethod
    def _config(network: Mapping[str, Tensor], published: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> IDMConfig:
        # An enlargement stands where SR3 has a convolution, which tells the levels apart.
        like_sr3 = {
            key.replace("imnet.0.weight", "conv.weight") if key.startswith("ups.") else key: value for key, value in network.items()
        }
        found = infer_config(like_sr3)
        log.warning(
            "The file does not tell the groups of its normalisations: %d are assumed. Give the model's config if that is wrong.",
            found.norm_groups,
        )
        schedule = infer_schedule(buffers["betas"]) if "betas" in buffers else ScheduleConfig()
        if schedule is None:
            raise UserError("the file's noise schedule is none of those known; give the model's config with its schedule.")
        encoder = EDSRConfig(width=published["encoder.head.0.weight"].shape[0], blocks=count_of(published, r"encoder\.body\.(\d+)\.body"))
        return IDMConfig(**unet_options(found), encoder=encoder, schedule=schedule)
