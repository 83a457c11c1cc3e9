"""Published names of the U-Net of guided and latent diffusion (openaimodel.UNetModel), whose blocks are numbered through."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rsdiff.weights.keymaps.renaming import Name, Rule, count_of, renamed

INSIDE: tuple[Rule, ...] = (
    (r"\battention\.query_key_value\.", "attention.qkv."),
    (r"\battention\.out\.", "attention.proj_out."),
    (r"\bnorm1\.", "in_layers.0."),
    (r"\bconv1\.", "in_layers.2."),
    (r"\btime\.", "emb_layers.1."),
    (r"\bnorm2\.", "out_layers.0."),
    (r"\bconv2\.", "out_layers.3."),
    (r"\bshortcut\.", "skip_connection."),
)
"""Names within a block, and within the attention behind it."""
REST: tuple[Rule, ...] = (
    (r"^stem\.", "input_blocks.0.0."),
    (r"^norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^step\.", "time_embed."),
    (r"^scale\.", "scale_embed."),
    (r"^height\.", "osize_embed."),
)


def latent_unet_name(levels: int, blocks: int, attention_levels: Sequence[int]) -> Name:
    """Return the naming of `rsdiff.networks.latent_unet.LatentUNet` of these sizes."""

    def entry(match: re.Match[str]) -> str:
        return f"input_blocks.{1 + int(match[1]) * (blocks + 1) + int(match[2])}.{1 if match[3] else 0}."

    def down(match: re.Match[str]) -> str:
        return f"input_blocks.{(int(match[1]) + 1) * (blocks + 1)}.0.op."

    def output(match: re.Match[str]) -> str:
        return f"output_blocks.{(levels - 1 - int(match[1])) * (blocks + 1) + int(match[2])}.{1 if match[3] else 0}."

    def up(match: re.Match[str]) -> str:
        return f"output_blocks.{(levels - int(match[1])) * (blocks + 1) - 1}.{2 if int(match[1]) in attention_levels else 1}."

    rules: tuple[Rule, ...] = (
        *INSIDE,
        (r"^down\.(\d+)\.blocks\.(\d+)\.(attention\.)?", entry),
        (r"^down\.(\d+)\.leave\.", down),
        (r"^up\.(\d+)\.blocks\.(\d+)\.(attention\.)?", output),
        (r"^up\.(\d+)\.leave\.", up),
        (r"^middle\.\d\.attention\.", "middle_block.1."),
        (r"^middle\.(\d)\.", lambda match: f"middle_block.{2 * int(match[1])}."),
        *REST,
    )
    return lambda key: renamed(key, rules)


def latent_unet_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return width, multipliers, blocks and attention_levels of a published state dict; the width of the heads is not in it."""
    width = state["time_embed.0.weight"].shape[1]
    entries = count_of(state, r"input_blocks\.(\d+)\.")
    ends = sorted(int(found[1]) for key in state if (found := re.match(r"input_blocks\.(\d+)\.0\.op\.weight", key)))
    blocks = (ends[0] if ends else entries) - 1
    firsts = range(1, entries, blocks + 1)
    return {
        "width": width,
        "multipliers": tuple(state[f"input_blocks.{first}.0.out_layers.3.weight"].shape[0] // width for first in firsts),
        "blocks": blocks,
        "attention_levels": tuple(level for level, first in enumerate(firsts) if f"input_blocks.{first}.1.qkv.weight" in state),
    }
