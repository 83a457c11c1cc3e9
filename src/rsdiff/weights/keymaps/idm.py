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
from rsdiff.weights.keymaps.renaming import Name, Part, Rule, count_of, name_of_parts, ours_from_published, published_from_ours, renamed
from rsdiff.weights.keymaps.sr3 import check_schedule, infer_config, infer_schedule, sr3_name, unet_options
from rsdiff.weights.state_dicts import find_state_dict, under

log = logging.getLogger(__name__)

RULES: tuple[Rule, ...] = (
    (r"^style\.first\.", "conv_body_first."),
    (r"^style\.down\.", "conv_body_down."),
    (r"^style\.weigh_feature\.(\d+)\.", lambda match: f"condition_scale1.{int(match[1]) + 1}."),
    (r"^style\.weigh_condition\.(\d+)\.", lambda match: f"condition_scale2.{int(match[1]) + 1}."),
    (r"^style\.shift\.(\d+)\.", lambda match: f"condition_shift.{int(match[1]) + 1}.0."),
    (r"\bleave\.activate\.", "leave.style.activate."),
    (r"\bleave\.linear\.", "leave.imnet."),
)
MARKER = "denoise_fn.condition_scale1.1.weight"
DEAD_UNET = (
    r"ups\.\d+\.style\.(weight|modulated_conv\..*)",
    r"final_(down1|down2|linear|styleconv)\..*",
    r"condition_(scale1|scale2)\.0\..*",
    r"condition_shift\.0\.0\..*",
)
DEAD = (r"imnet\..*", r"encoder\.(sub|add)_mean\..*", *(rf"denoise_fn\.{pattern}" for pattern in DEAD_UNET))
"""Published parameters that nothing uses; beside them the last conv_body_down, whose number depends on the levels."""


def unet_name(config: IDMConfig) -> Name:
    """Return the naming of the U-Net: SR3's, with an implicit enlargement for each convolution, behind the encoder of the style."""
    unet = sr3_name("continuous", len(config.multipliers), config.blocks, up_end="")
    return lambda key: unet(renamed(key, RULES))


def encoder_naming(blocks: int) -> Name:
    """Return how parameters of the condition encoder are published."""
    return name_of_parts(Part("features.", "", edsr_name(blocks)), Part("out.", "tail.0."))


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
        encoder = encoder_naming(config.encoder.blocks)
        return name_of_parts(Part("encoder.", "encoder.", encoder), Part("network.", "denoise_fn.", unet_name(config)))

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
