"""Published names of the U-Nets of DiffBSR and BlindSRSNF, and the settings their shapes tell.

The published lists `downs` and `ups` are flat: stem, blocks and resizing convolutions of all levels are numbered through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rsdiff.weights.keymaps.renaming import Name, Rule, count_of, flat_lists, renamed
from rsdiff.weights.keymaps.sr3 import BLOCK as SR3_BLOCK
from rsdiff.weights.keymaps.sr3 import TIME_LAYER

BLOCK: tuple[Rule, ...] = (
    (r"\baware\.", "res_block.block2.da_conv."),
    (r"\btime\.", f"{TIME_LAYER['continuous']}."),
    *SR3_BLOCK,
    # Gates in the place of SR3's attention, which is called 'attn.' by now: before it, 'conv1.' would be a block's.
    (r"\battn\.0\.squeeze\.", "ca.fc1."),
    (r"\battn\.0\.excite\.", "ca.fc2."),
    (r"\battn\.1\.conv\.", "sa.conv1."),
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
    rules = (*BLOCK, (r"^stem\.", "downs.0."), *flat_lists(levels, blocks), *OUTSIDE)
    return lambda key: renamed(key, rules)


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
