"""Released files of the MST++ toolbox (`{"state_dict", "epoch", ..}`, keys at most under `module.`) <-> our spectral regressions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rsdiff.methods.base import Problem
from rsdiff.methods.regression import AWANConfig, HSCNNPlusConfig, MSTLConfig, MSTPlusPlusConfig
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.weights.keymaps.regression import RegressionKeyMap
from rsdiff.weights.keymaps.renaming import Rule, count_of

BLOCK: tuple[Rule, ...] = (
    (r"\.attention\.temperature$", ".0.rescale"),
    (r"\.attention\.(query|key|value)\.", lambda match: f".0.to_{match[1][0]}."),
    (r"\.attention\.out\.", ".0.proj."),
    (r"\.attention\.position\.", ".0.pos_emb."),
    (r"\.attention\.gate\.enter\.", ".0.mm.conv1."),
    (r"\.attention\.gate\.mix\.", ".0.mm.conv2."),
    (r"\.attention\.gate\.spread\.", ".0.mm.depth_conv."),
    (r"\.norm\.", ".1.norm."),
    (r"\.feed_forward\.", ".1.fn.net."),
)


def unet_rules(levels: int) -> tuple[Rule, ...]:
    """Return the naming of a `SpectralUNet`, which is published without a name of its own; its way up is numbered from the bottom."""

    def up(part: int) -> Rule:
        ours = ("ups", "fusions", "decoders")[part]
        return rf"\bunet\.{ours}\.(\d+)\.", lambda match: f"decoder_layers.{levels - 2 - int(match[1])}.{part}."

    return (
        (r"\b(unet\.(?:encoders|decoders)\.\d+|unet\.bottom)\.(\d+)\.", r"\1.blocks.\2."),
        (r"\bunet\.encoders\.(\d+)\.", r"encoder_layers.\1.0."),
        (r"\bunet\.downs\.(\d+)\.", r"encoder_layers.\1.1."),
        (r"\bunet\.mask_downs\.(\d+)\.", r"encoder_layers.\1.2."),
        (r"\bunet\.bottom\.", "bottleneck."),
        *(up(part) for part in range(3)),
        *BLOCK,
    )


MST_PLUS_PLUS_RULES: tuple[Rule, ...] = (
    (r"^stages\.(\d+)\.enter\.", r"body.\1.embedding."),
    (r"^stages\.(\d+)\.leave\.", r"body.\1.mapping."),
    (r"^stages\.", "body."),
    (r"^enter\.", "conv_in."),
    (r"^leave\.", "conv_out."),
)
MST_L_RULES: tuple[Rule, ...] = (
    (r"^enter_mask\.", "embedding_1."),
    (r"^enter\.", "embedding_2."),
    (r"^leave\.", "mapping."),
)
HSCNN_PLUS_RULES: tuple[Rule, ...] = (
    (r"^(stem|blocks)\.", lambda match: {"stem": "ddfn.", "blocks": "ddfn.dfus_blocks."}[match[1]]),
    (r"\bstreams\.", ""),
    (r"\b(wide|narrow)\.([01])\.", lambda match: f"conv_{('up', 'down')[int(match[2])]}{1 + (match[1] == 'narrow')}."),
    (r"\breduce\.", "conv1."),
    (r"\bfuse\.", "conv_fution."),
    (r"^leave\.", "conv_out."),
)
AWAN_RULES: tuple[Rule, ...] = (
    (r"^second_order\.", "tail_nonlocal.non_local."),
    (r"\bnon_local\.(value|key|out)\.", lambda match: f"non_local.{ {'value': 'g', 'key': 'theta', 'out': 'W'}[match[1]] }."),
    (r"\bweights\.pixels\.", "se.conv."),
    (r"\bweights\.squeeze\.", "se.fc.0."),
    (r"\bweights\.relu\.", "se.fc.1."),
    (r"\bweights\.excite\.", "se.fc.2."),
    (r"^blocks\.(\d+)\.(conv\d|up|down)\.", r"backbone.\1.\2.conv2d."),
    (r"^backbone\.(\d+)\.(up|down)\.", r"backbone.\1.\2_conv."),
    (r"^blocks\.", "backbone."),
    (r"^enter_relu\.", "input_prelu2D."),
    (r"^tail_relu\.", "output_prelu2D."),
    (r"^enter\.", "input_conv2D.conv2d."),
    (r"^head\.", "head_conv2D.conv2d."),
    (r"^tail\.", "tail_conv2D.conv2d."),
    (r"^leave\.", "output_conv2D.conv2d."),
)


class SpectralKeyMap(RegressionKeyMap):
    """What the four networks share."""

    first: str
    """A convolution on the input, (.., input bands, ..)."""
    last: str
    """The convolution that makes the bands."""

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        return Problem(scale=1, bands=tensors[self.last].shape[0], lr_bands=tensors[self.first].shape[1])

    def networks(self, config: RestorerConfig, problem: Problem) -> dict[str, nn.Module]:
        return {"network.": config.build_network(problem)}


class HalvingKeyMap(SpectralKeyMap):
    """What MST++ and MST-L share."""

    def rules(self, config: Any) -> tuple[Rule, ...]:
        return (*unet_rules(len(config.blocks)), *self.table)

    def width(self, tensors: Mapping[str, Tensor]) -> int | None:
        """Return the width of the features, None where it is the number of bands."""
        bands, width = tensors[self.last].shape[:2]
        return None if width == bands else width


class MSTPlusPlusKeyMap(HalvingKeyMap):
    """The `KeyMap` of MST++."""

    marker = first = "conv_in.weight"
    last = "conv_out.weight"
    table = MST_PLUS_PLUS_RULES

    def infer(self, tensors: Mapping[str, Tensor]) -> MSTPlusPlusConfig:
        return MSTPlusPlusConfig(
            width=self.width(tensors), stages=count_of(tensors, r"body\.(\d+)\."), blocks=level_blocks(tensors, "body.0.")
        )


class MSTLKeyMap(HalvingKeyMap):
    """The `KeyMap` of MST-L."""

    marker = first = "embedding_1.weight"
    last = "mapping.weight"
    table = MST_L_RULES

    def infer(self, tensors: Mapping[str, Tensor]) -> MSTLConfig:
        return MSTLConfig(width=self.width(tensors), blocks=level_blocks(tensors, ""))


class HSCNNPlusKeyMap(SpectralKeyMap):
    """The `KeyMap` of HSCNN+."""

    marker = first = "ddfn.conv_up1.weight"
    last = "conv_out.weight"
    table = HSCNN_PLUS_RULES

    def infer(self, tensors: Mapping[str, Tensor]) -> HSCNNPlusConfig:
        return HSCNNPlusConfig(blocks=count_of(tensors, r"ddfn\.dfus_blocks\.(\d+)\."))


class AWANKeyMap(SpectralKeyMap):
    """The `KeyMap` of AWAN."""

    marker = first = "input_conv2D.conv2d.weight"
    last = "output_conv2D.conv2d.weight"
    table = AWAN_RULES

    def infer(self, tensors: Mapping[str, Tensor]) -> AWANConfig:
        return AWANConfig(width=tensors[self.marker].shape[0], blocks=count_of(tensors, r"backbone\.(\d+)\."))


def level_blocks(tensors: Mapping[str, Tensor], prefix: str) -> tuple[int, ...]:
    """Return the blocks of every level of a published U-Net under `prefix`, the bottom last."""
    before = re.escape(prefix)
    levels = count_of(tensors, rf"{before}encoder_layers\.(\d+)\.")
    upper = [count_of(tensors, rf"{before}encoder_layers\.{level}\.0\.blocks\.(\d+)\.") for level in range(levels)]
    return (*upper, count_of(tensors, rf"{before}bottleneck\.blocks\.(\d+)\."))
