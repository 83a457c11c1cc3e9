"""Published checkpoints of DiffBSR and its ablations; see `joint_blind` for their layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.methods.base import Problem
from rsdiff.methods.diffbsr import DiffBSRConfig
from rsdiff.methods.diffbsr_ablations import DiffBSRDDPMConfig, DiffBSRSRDiffConfig, PlainUNetConfig
from rsdiff.networks.degradation_aware import ContrastConfig, DiffSRUNetConfig
from rsdiff.networks.rrdb import RRDBConfig
from rsdiff.networks.srdiff_unet import EVERY, SRDiffUNetConfig
from rsdiff.networks.srdsran import SRDSRANConfig
from rsdiff.weights.keymaps.degradation_aware import unet_name, unet_shape
from rsdiff.weights.keymaps.joint_blind import (
    CONTRAST,
    FREQUENCIES,
    SCALE,
    JointBlindKeyMap,
    Parts,
    contrast_options,
    frequencies,
    published_groups,
    published_schedule,
)
from rsdiff.weights.keymaps.renaming import Part
from rsdiff.weights.keymaps.rrdb import rrdb_name, rrdb_options
from rsdiff.weights.keymaps.sr3 import config_from_arguments, infer_config, sr3_name, unet_options
from rsdiff.weights.keymaps.srdiff import srdiff_unet_name, srdiff_unet_shape
from rsdiff.weights.keymaps.srdsran import drop_repeated_stages, repeat_stages, srdsran_name, srdsran_shape

RESTORER = Part("restorer.", "encoder.", srdsran_name)
UNUSED = (r"model\.(downs|mid|ups)\.\d+\.conv\.(weight|bias)",)
"""1x1 convolutions that every block lists and none applies; resizing convolutions, called alike, are known by name."""


class SRDSRANKeyMap(JointBlindKeyMap):
    """What the two methods with SRDSRAN share."""

    def problem(self, parts: Parts) -> Problem:
        shape = srdsran_shape(parts.restorer)
        return Problem(scale=SCALE, bands=shape["out_channels"], lr_bands=shape["in_channels"])

    def from_published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return drop_repeated_stages(tensors, "encoder.")

    def from_ours(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return repeat_stages(tensors, SCALE, "encoder.")


def restorer_config(parts: Parts) -> SRDSRANConfig:
    """Return SRDSRAN's options: sizes from shapes, gates from the stored arguments."""
    shape, stored = srdsran_shape(parts.restorer), parts.arguments("encoder")
    return SRDSRANConfig(
        width=shape["width"],
        groups=shape["groups"],
        blocks=shape["blocks"],
        group_gates=stored.get("rla_mode", "CA-SA"),
        block_gates=stored.get("bla_mode", "CA-SA"),
        global_gates=stored.get("ga_mode", "CA-SA"),
        pooling=stored.get("pool_mode", "Avg|Max"),
        mix=bool(stored.get("addconv", True)),
    )


class DiffBSRKeyMap(SRDSRANKeyMap):
    """The `KeyMap` of DiffBSR: evaluation uses the U-Net itself, as published, not its average."""

    def infer(self, parts: Parts) -> DiffBSRConfig:
        shape = unet_shape(parts.unet)
        unet = DiffSRUNetConfig(
            width=shape["width"],
            multipliers=shape["multipliers"],
            blocks=shape["blocks"],
            norm_groups=published_groups(parts, shape["width"]),
            dropout=float(parts.arguments("diffusion_model").get("dropout", 0)),
            keep_unused="mid.0.conv.weight" in parts.unet,
        )
        schedule = published_schedule(parts, DiffBSRConfig().schedule)
        contrast = ContrastConfig(**contrast_options(parts))
        return DiffBSRConfig(restorer=restorer_config(parts), unet=unet, contrast=contrast, schedule=schedule)

    def unet(self, config: DiffBSRConfig, problem: Problem) -> nn.Module:
        return config.unet.build(problem.bands, config.contrast.code_channels)

    def parts(self, config: DiffBSRConfig) -> list[Part]:
        return [RESTORER, CONTRAST, Part("unet.", "model.", unet_name(len(config.unet.multipliers), config.unet.blocks))]

    def ignored(self, config: DiffBSRConfig) -> tuple[str, ...]:
        return () if config.unet.keep_unused else UNUSED


class DiffBSRDDPMKeyMap(SRDSRANKeyMap):
    """The `KeyMap` of the DDPM ablation; its U-Net is that of SR3's twin."""

    def infer(self, parts: Parts) -> DiffBSRDDPMConfig:
        stored = parts.arguments("diffusion_model")
        network = config_from_arguments(stored, "discrete") if stored else infer_config(parts.unet)
        unet = PlainUNetConfig(**unet_options(network))
        schedule = published_schedule(parts, DiffBSRDDPMConfig().schedule)
        contrast = ContrastConfig(**contrast_options(parts))
        return DiffBSRDDPMConfig(restorer=restorer_config(parts), unet=unet, contrast=contrast, schedule=schedule)

    def unet(self, config: DiffBSRDDPMConfig, problem: Problem) -> nn.Module:
        return config.unet.build(2 * problem.bands, problem.bands)

    def parts(self, config: DiffBSRDDPMConfig) -> list[Part]:
        return [RESTORER, CONTRAST, Part("unet.", "model.", sr3_name("discrete", len(config.unet.multipliers), config.unet.blocks))]

    def to_ours(self, content: Mapping[str, Any], config: Any | None) -> tuple[Any, dict[str, Tensor]]:
        made, ours = super().to_ours(content, config)
        for key, value in content.get("state_dict", content).items():
            if str(key).endswith(FREQUENCIES) and not torch.allclose(value, frequencies(made.unet.width), rtol=1e-4, atol=1e-6):
                raise UserError(f"the file's '{key}' are not the frequencies of an embedding of width {made.unet.width}.")
        return made, ours

    def ignored(self, config: DiffBSRDDPMConfig) -> tuple[str, ...]:
        return (rf"model\.{FREQUENCIES}",)  # compared in to_ours

    def to_published(self, config: DiffBSRDDPMConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        constant = frequencies(config.unet.width)
        constants = {f"{prefix}{FREQUENCIES}": constant for prefix in ("model.", "ema.", "diffusion.denoise_fn.")}
        return super().to_published(config, state_dict) | constants


class DiffBSRSRDiffKeyMap(JointBlindKeyMap):
    """The `KeyMap` of the SRDiff ablation: two RRDB networks, in BasicSR's names and in ESRGAN's."""

    def problem(self, parts: Parts) -> Problem:
        shape = rrdb_options(parts.restorer)
        return Problem(scale=SCALE, bands=shape["out_channels"], lr_bands=shape["in_channels"])

    def infer(self, parts: Parts) -> DiffBSRSRDiffConfig:
        restorer, condition, unet = rrdb_options(parts.restorer), rrdb_options(parts.condition), srdiff_unet_shape(parts.unet)
        if unet["feature_channels"] != (condition["blocks"] + 1) // EVERY * condition["width"]:
            raise UserError("the file's U-Net and its condition network do not fit together; choose a file of the SRDiff ablation.")
        return DiffBSRSRDiffConfig(
            restorer=RRDBConfig(width=restorer["width"], blocks=restorer["blocks"], growth=restorer["growth"]),
            unet=SRDiffUNetConfig(
                width=unet["width"],
                multipliers=unet["multipliers"],
                condition_width=condition["width"],
                condition_blocks=condition["blocks"],
                condition_growth=condition["growth"],
            ),
            contrast=ContrastConfig(**contrast_options(parts)),
            schedule=published_schedule(parts, DiffBSRSRDiffConfig().schedule),
        )

    def networks(self, config: DiffBSRSRDiffConfig, problem: Problem) -> dict[str, nn.Module]:
        return {**super().networks(config, problem), "condition.": config.unet.build_condition(problem)}

    def unet(self, config: DiffBSRSRDiffConfig, problem: Problem) -> nn.Module:
        return config.unet.build(problem)

    def parts(self, config: DiffBSRSRDiffConfig) -> list[Part]:
        return [
            Part("restorer.", "encoder.", rrdb_name("basicsr")),
            CONTRAST,
            Part("condition.", "diffusion.rrdb.", rrdb_name("esrgan")),
            Part("unet.", "model.", srdiff_unet_name),
        ]
