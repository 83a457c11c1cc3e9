"""Published names of SRDSRAN_Net, and the settings they tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rsdiff.config import UserError
from rsdiff.networks.srdsran import enlargement
from rsdiff.weights.keymaps.renaming import Rule, count_of, renamed

GATES: tuple[Rule, ...] = (
    (r"\battention\.channel\.squeeze\.", "ca.fc1."),
    (r"\battention\.channel\.excite\.", "ca.fc2."),
    (r"\battention\.spatial\.conv\.", "sa.conv1."),
    (r"\battention\.mix\.", "conv."),
)
RULES: tuple[Rule, ...] = (
    (r"^groups\.(\d+)\.blocks\.(\d+)\.expand\.", r"res_groups.\1.RG.\2.conv1."),
    (r"^groups\.(\d+)\.blocks\.(\d+)\.reduce\.", r"res_groups.\1.RG.\2.conv2."),
    (r"^groups\.(\d+)\.blocks\.(\d+)\.", r"res_groups.\1.RG.\2."),
    (r"^groups\.", "res_groups."),
    (r"^attention\.channel\.", "GAB_UP.ca."),
    (r"^attention\.spatial\.gamma", "GAB_UP.sa.gamma"),
    (r"^attention\.spatial\.(query|key|value)\.", r"GAB_UP.sa.\1_conv."),
    (r"^attention\.mix\.", "GAB_UP.conv."),
    (r"^enlarge\.", "GAB_UP.upsampling.0."),
    (r"^multi_scale\.wide\.", "MSB.conv1."),
    (r"^multi_scale\.deep\.", "MSB.conv2."),
    (r"^multi_scale\.point\.", "MSB.conv3."),
    (r"^multi_scale\.mix\.", "MSB.conv."),
    (r"^enter\.", "conv1.0."),
    (r"^leave\.", "conv3.0."),
)


def srdsran_name(key: str) -> str:
    """Return the published name of one of SRDSRAN's parameters."""
    return renamed(renamed(key, GATES) if key.startswith("groups.") else key, RULES)


def drop_repeated_stages(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return a published state dict with the shared convolution of the enlargement once; raises UserError if its copies differ."""
    first = f"{prefix}GAB_UP.upsampling.0."
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith(f"{prefix}GAB_UP.upsampling.") or key.startswith(first):
            kept[key] = value
        elif not value.equal(state[first + key.rpartition(".")[2]]):
            raise UserError(f"'{key}' differs from stage 0, though the published network has one convolution for all stages.")
    return kept


def repeat_stages(state: Mapping[str, Tensor], scale: int, prefix: str = "") -> dict[str, Tensor]:
    """Return the state dict with the shared convolution listed once per stage, as the published code saves it."""
    first = f"{prefix}GAB_UP.upsampling.0."
    stages = enlargement(scale)[1]
    repeated: dict[str, Tensor] = {}
    for key, value in state.items():
        repeated[key] = value
        if key.startswith(first):
            for stage in range(1, stages):
                repeated[f"{prefix}GAB_UP.upsampling.{3 * stage}.{key.removeprefix(first)}"] = value
    return repeated


def srdsran_shape(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return width, groups, blocks, bands and scale that a published state dict tells; which gates in which order it does not tell."""
    width = state["conv1.0.weight"].shape[0]
    factor = {4: 2, 9: 3}[state["GAB_UP.upsampling.0.weight"].shape[0] // width]
    stages = sum(f"GAB_UP.upsampling.{3 * i}.weight" in state for i in range(3))
    return {
        "in_channels": state["conv1.0.weight"].shape[1],
        "out_channels": state["conv3.0.weight"].shape[0],
        "width": width,
        "groups": count_of(state, r"res_groups\.(\d+)\."),
        "blocks": count_of(state, r"res_groups\.\d+\.RG\.(\d+)\."),
        "scale": factor**stages,
    }
