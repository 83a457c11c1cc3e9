"""EDiffSR's released files (`180000_G.pth`, `lastest_EMA.pth`: flat state dicts of the network) <-> our method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rsdiff.methods.base import Problem
from rsdiff.methods.ediffsr import EDiffSRConfig
from rsdiff.weights.keymaps.regression import RegressionKeyMap
from rsdiff.weights.keymaps.renaming import Rule, count_of

NORM = re.compile(r"\.norm[12]\.g$")
RULES: tuple[Rule, ...] = (
    (r"\bmodulation\.", "mlp.1."),
    (r"\b(norm[12])\.weight$", r"\1.g"),
    (r"(?<=\d\.)enter\.", "conv1."),
    (r"\bdepthwise\.", "conv2."),
    (r"(?<=\d\.)leave\.", "conv3."),
    (r"\bweigh\.", "sca.1."),
    (r"\bwiden\.", "conv4."),
    (r"\bnarrow\.", "conv5."),
    (r"^time\.expand\.", "time_mlp.1."),
    (r"^time\.mix\.", "time_mlp.3."),
    (r"^enter\.", "intro."),
    (r"^entrance\.conv1\.", "enhance.rcab.0."),
    (r"^entrance\.conv2\.", "enhance.rcab.2."),
    (r"^entrance\.gate\.squeeze\.", "enhance.rcab.3.attention.1."),
    (r"^entrance\.gate\.excite\.", "enhance.rcab.3.attention.3."),
    (r"^middle\.", "middle_blks."),
    (r"^leave\.", "ending."),
)


class EDiffSRKeyMap(RegressionKeyMap):
    """The `KeyMap` of EDiffSR. A file tells neither scale nor schedule: the published ones are assumed where no config is given."""

    marker = "time_mlp.1.weight"
    table = RULES

    def infer(self, tensors: Mapping[str, Tensor]) -> EDiffSRConfig:
        levels = count_of(tensors, r"downs\.(\d+)\.")
        return EDiffSRConfig(
            width=tensors["intro.weight"].shape[0],
            encoders=tuple(count_of(tensors, rf"encoders\.{level}\.(\d+)\.") for level in range(levels)),
            middle=count_of(tensors, r"middle_blks\.(\d+)\."),
            decoders=tuple(count_of(tensors, rf"decoders\.{level}\.(\d+)\.") for level in range(levels)),
        )

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        bands = tensors["ending.weight"].shape[0]
        return Problem(scale=4, bands=bands, lr_bands=bands)

    def networks(self, config: EDiffSRConfig, problem: Problem) -> dict[str, nn.Module]:
        return {"network.": config.build(problem).network}

    def complete(self, tensors: dict[str, Tensor], config: Any | None) -> dict[str, Tensor]:
        """Scales of the normalisations are published with the axes of an image."""
        return {key: value.flatten() if NORM.search(key) else value for key, value in tensors.items()}

    def from_ours(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value[None, :, None, None] if NORM.search(key) else value for key, value in tensors.items()}
