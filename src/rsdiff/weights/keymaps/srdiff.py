"""Published names of SRDiff's U-Net as DiffBSR's repository saves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rsdiff.weights.keymaps.renaming import Rule, count_of, renamed

BLOCK: tuple[Rule, ...] = (
    (r"\btime\.", "mlp.1."),
    (r"\bshortcut\.", "res_conv."),
)
RULES: tuple[Rule, ...] = (
    (r"\b(down|up)\.(\d+)\.first\.first\.1\.", r"\1s.\2.0.block1.block.1."),
    (r"\b(down|up)\.(\d+)\.first\.second\.1\.", r"\1s.\2.0.block2.block.1."),
    (r"\b(down|up)\.(\d+)\.second\.first\.1\.", r"\1s.\2.1.block1.block.1."),
    (r"\b(down|up)\.(\d+)\.second\.second\.1\.", r"\1s.\2.1.block2.block.1."),
    (r"\b(down|up)\.(\d+)\.first\.", r"\1s.\2.0."),
    (r"\b(down|up)\.(\d+)\.second\.", r"\1s.\2.1."),
    (r"^down\.(\d+)\.leave\.", r"downs.\1.2.conv."),
    (r"^up\.(\d+)\.leave\.", r"ups.\1.2.conv.0."),
    (r"^middle\.(\d)\.first\.", lambda m: f"mid_block{int(m[1]) + 1}.block1.block."),
    (r"^middle\.(\d)\.second\.", lambda m: f"mid_block{int(m[1]) + 1}.block2.block."),
    (r"^middle\.(\d)\.", lambda m: f"mid_block{int(m[1]) + 1}."),
    (r"^leave\.0\.", "final_conv.0.block."),
    (r"^leave\.1\.", "final_conv.1."),
    (r"^condition\.", "cond_proj."),
    (r"^step\.1\.", "mlp.0."),
    (r"^step\.3\.", "mlp.2."),
)


def srdiff_unet_name(key: str) -> str:
    """Return the published name of a parameter of SRDiff's U-Net."""
    return renamed(key if key.startswith("step.") else renamed(key, BLOCK), RULES)


def srdiff_unet_shape(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the constructor arguments of `rsdiff.networks.srdiff_unet.SRDiffUNet` that a published state dict tells."""
    condition = state["cond_proj.weight"]
    levels = count_of(state, r"downs\.(\d+)\.")
    width = condition.shape[1]
    return {
        "bands": state["final_conv.1.weight"].shape[0],
        "width": width,
        "multipliers": tuple(state[f"downs.{i}.0.block1.block.1.weight"].shape[0] // width for i in range(levels)),
        "feature_channels": condition.shape[0],
        "scale": condition.shape[-1] // 2,
    }
