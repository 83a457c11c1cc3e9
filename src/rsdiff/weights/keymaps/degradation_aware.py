"""Published names of the U-Nets of DiffBSR and BlindSRSNF, and the settings their shapes tell.

The published lists `downs` and `ups` are flat: stem, blocks and resizing convolutions of all levels are numbered through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rsdiff.weights.keymaps.renaming import Name, Rule, count_of, renamed

BLOCK: tuple[Rule, ...] = (
    (r"\bnorm1\.", "res_block.block1.block.0."),
    (r"\bconv1\.", "res_block.block1.block.3."),
    (r"\btime\.", "res_block.noise_func.noise_func.0."),
    (r"\bnorm2\.", "res_block.block2.block.0."),
    (r"\baware\.", "res_block.block2.da_conv."),
    (r"\bshortcut\.", "res_block.res_conv."),
    (r"\battention\.0\.squeeze\.", "ca.fc1."),
    (r"\battention\.0\.excite\.", "ca.fc2."),
    (r"\battention\.1\.conv\.", "sa.conv1."),
    (r"\battention\.query_key_value\.", "attn.qkv."),
    (r"\battention\.", "attn."),
    (r"\bunused\.", "conv."),
)
OUTSIDE: tuple[Rule, ...] = (
    (r"^middle\.", "mid."),
    (r"^norm_out\.", "final_conv.block.0."),
    (r"^conv_out\.", "final_conv.block.3."),
    (r"^level\.", "noise_level_mlp."),
    (r"^enter_image\.", "first_conv_x."),
    (r"^enter_feature\.", "first_conv_ctx."),
)


def unet_name(levels: int, blocks: int) -> Name:
    """Return the naming of a U-Net of so many levels and blocks per level."""

    def position(match: re.Match[str]) -> str:
        way, level, what, number = match[1], int(match[2]), match[3], match[4]
        if way == "down":
            index = 1 + level * (blocks + 1) + (int(number) if number else blocks)
        else:
            index = (levels - 1 - level) * (blocks + 2) + (int(number) if number else blocks + 1)
        return f"{way}s.{index}." + ("conv." if what.startswith("leave") else "")

    rules: tuple[Rule, ...] = (
        (r"^stem\.", "downs.0."),
        (r"^(down|up)\.(\d+)\.(blocks\.(\d+)\.|leave\.(?:conv\.)?)", position),
        *OUTSIDE,
    )
    # Names within a block first: after them, 'conv.' may also be the published name of a resizing convolution.
    return lambda key: renamed(renamed(key, BLOCK) if ".blocks." in key or key.startswith("middle.") else key, rules)


def unet_shape(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return width, multipliers, blocks and code_channels of a published U-Net, and the levels with self-attention, from its shapes.

    Groups of the normalisations and the dropout leave no trace in a state dict.
    """
    width = state["downs.0.weight"].shape[0]
    widths: list[list[int]] = [[]]
    attentive: set[int] = set()
    for index in range(1, count_of(state, r"downs\.(\d+)\.")):
        block = state.get(f"downs.{index}.res_block.block1.block.3.weight")
        if block is None:
            widths.append([])
            continue
        widths[-1].append(block.shape[0])
        if f"downs.{index}.attn.qkv.weight" in state:
            attentive.add(len(widths) - 1)
    return {
        "width": width,
        "multipliers": tuple(level[0] // width for level in widths),
        "blocks": len(widths[0]),
        "code_channels": state["compress.0.weight"].shape[1],
        "attention_levels": tuple(sorted(attentive)),
    }
