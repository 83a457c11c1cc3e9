"""MASA-SR's files (`masa_rec.pth`, `masa.pth`: flat state dicts of `enc.*` and `decoder.*`, for blue, green, red) <-> our method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rsdiff.methods.base import Problem
from rsdiff.methods.masa_sr import MASASRConfig
from rsdiff.networks.masa import MASANet, MASANetConfig
from rsdiff.weights.keymaps.regression import RegressionKeyMap
from rsdiff.weights.keymaps.renaming import Rule, count_of

SIZES = ("L3", "L2", "L1")
"""How the decoder's layers of the LR's features are called, in our order."""
ENLARGED = ("x1", "x2", "x4")
NETWORK: tuple[Rule, ...] = (
    (r"^encoder\.convs\.(\d)\.", lambda match: f"enc.conv_L{int(match[1]) + 1}."),
    (r"^encoder\.blocks\.(\d)\.", lambda match: f"enc.blk_L{int(match[1]) + 1}."),
    (r"^decoder\.convs\.(\d)\.", lambda match: f"decoder.conv_{SIZES[int(match[1])]}."),
    (r"^decoder\.blocks\.(\d)\.", lambda match: f"decoder.blk_{(SIZES + ENLARGED)[int(match[1])]}."),
    (r"^decoder\.merge\.", "decoder.merge_warp_x1."),
    (r"^decoder\.merges\.(\d)\.", lambda match: f"decoder.dram_{ENLARGED[int(match[1]) + 1]}."),
    (r"\.(down|up)_([ab])\.", r".conv_\1_\2."),
    (r"^(decoder\.dram_x\d)\.merge\.", r"\1.conv_cat."),
    (r"^decoder\.adaptation\.shared\.", "decoder.pAda.conv_shared.0."),
    (r"^decoder\.adaptation\.", "decoder.pAda.conv_"),
    (r"^decoder\.last\.", "decoder.conv_out."),
)
FIRST, LAST = "enc.conv_L1.weight", "decoder.conv_out."
"""The layers that see and make the bands, in the file's order: OpenCV's."""


class MASASRKeyMap(RegressionKeyMap):
    """The `KeyMap` of MASA-SR, without its discriminator, which published files lack."""

    marker = FIRST
    table = NETWORK

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        bands = tensors[FIRST].shape[1]
        return Problem(scale=4, bands=bands, lr_bands=bands)

    def infer(self, tensors: Mapping[str, Tensor]) -> MASASRConfig:
        encoder = [count_of(tensors, rf"enc\.blk_{name}\.(\d+)\.") for name in reversed(SIZES)]
        decoder = [count_of(tensors, rf"decoder\.blk_{name}\.(\d+)\.") for name in SIZES + ENLARGED]
        return MASASRConfig(
            network=MASANetConfig(
                width=tensors[FIRST].shape[0],
                encoder_blocks=(encoder[0], encoder[1], encoder[2]),
                decoder_blocks=(decoder[0], decoder[1], decoder[2], decoder[3], decoder[4], decoder[5]),
            )
        )

    def networks(self, config: MASASRConfig, problem: Problem) -> dict[str, nn.Module]:
        return {"network.": MASANet(problem.bands, config.network)}

    def complete(self, tensors: dict[str, Tensor], config: MASASRConfig | None) -> dict[str, Tensor]:
        return turned(tensors)

    def from_ours(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return turned(tensors)

    def to_published(self, config: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See KeyMap; the discriminator, which published files lack, is left out."""
        return super().to_published(config, {key: value for key, value in state_dict.items() if not key.startswith("discriminator.")})


def turned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights for the bands in reversed order."""
    made = {key: value.flip(0) if key.startswith(LAST) else value for key, value in tensors.items()}
    return made | {FIRST: made[FIRST].flip(1)}
