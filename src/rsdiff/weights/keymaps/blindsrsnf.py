"""Published checkpoints of BlindSRSNF (also of its WorldStrat model and of DiffBSR's fork); see `joint_blind` for their layout."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.blindsrsnf import BlindSRSNFConfig
from rsdiff.networks.blindsrsnf_unet import BlindSRSNFUNetConfig
from rsdiff.networks.degradation_aware import ContrastConfig
from rsdiff.networks.rrdb import RRDBConfig
from rsdiff.weights.keymaps.degradation_aware import unet_name, unet_shape
from rsdiff.weights.keymaps.joint_blind import (
    CONTRAST,
    JointBlindKeyMap,
    Parts,
    contrast_options,
    published_groups,
    published_schedule,
)
from rsdiff.weights.keymaps.renaming import Part
from rsdiff.weights.keymaps.rrdb import rrdb_name, rrdb_options


class BlindSRSNFKeyMap(JointBlindKeyMap):
    """The `KeyMap` of BlindSRSNF: the average of the U-Net, the networks themselves else, as its evaluation uses them."""

    unet_from: Literal["model", "ema"] = "ema"
    has_copy = False

    def problem(self, parts: Parts) -> Problem:
        shape = rrdb_options(parts.restorer)
        return Problem(scale=4 // shape["unshuffle"], bands=shape["out_channels"], lr_bands=shape["in_channels"])

    def infer(self, parts: Parts) -> BlindSRSNFConfig:
        restorer, shape = rrdb_options(parts.restorer), unet_shape(parts.unet)
        folded = parts.unet["first_conv_x.weight"].shape[1]
        unet = BlindSRSNFUNetConfig(
            width=shape["width"],
            multipliers=shape["multipliers"],
            blocks=shape["blocks"],
            norm_groups=published_groups(parts, shape["width"]),
            attention_levels=shape["attention_levels"],
            fold=round((folded / restorer["out_channels"]) ** 0.5),
        )
        return BlindSRSNFConfig(
            restorer=RRDBConfig(width=restorer["width"], blocks=restorer["blocks"], growth=restorer["growth"]),
            unet=unet,
            contrast=ContrastConfig(**contrast_options(parts)),
            schedule=published_schedule(parts, BlindSRSNFConfig().schedule),
        )

    def unet(self, config: BlindSRSNFConfig, problem: Problem) -> nn.Module:
        return config.unet.build(problem.bands, config.restorer.width, config.contrast.code_channels)

    def parts(self, config: BlindSRSNFConfig) -> list[Part]:
        unet = unet_name(len(config.unet.multipliers), config.unet.blocks)
        return [Part("restorer.", "encoder.", rrdb_name("basicsr")), CONTRAST, Part("unet.", "model.", unet)]

    def schedule_buffers(self, schedule: ScheduleConfig) -> dict[str, Tensor]:
        built = schedule.build()
        variance = built.posterior_variance
        further = {
            "alphas": 1 - built.betas,
            "sqrt_alphas_cumprod_prev": built.alphas_bar_before.sqrt(),
            # The first variance is 0: here its logarithm is that of the second, where SR3's code clips at 1e-20.
            "posterior_log_variance_clipped": torch.cat([variance[1:2], variance[1:]]).log(),
        }
        return built.buffers() | {name: values.to(torch.float32) for name, values in further.items()}
