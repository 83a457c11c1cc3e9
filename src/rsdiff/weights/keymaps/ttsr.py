"""TTSR's files (`TTSR.pt`, `TTSR-rec.pt`: flat state dicts of `MainNet.*` and `LTE.*`, no discriminator) <-> our method."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.methods.base import Problem
from rsdiff.methods.ttsr import TTSRConfig
from rsdiff.networks.ttsr import VGG_MEAN, VGG_STD, TextureExtractor, TTSRNet, TTSRNetConfig
from rsdiff.weights.keymaps.regression import RegressionKeyMap
from rsdiff.weights.keymaps.renaming import Name, Part, Rule, count_of, name_of_parts, renamed

EXTRACTOR: tuple[Rule, ...] = (
    (r"^conv1_1\.", "slice1.0."),
    (r"^conv1_2\.", "slice2.2."),
    (r"^conv2_1\.", "slice2.5."),
    (r"^conv2_2\.", "slice3.7."),
    (r"^conv3_1\.", "slice3.10."),
)
NETWORK: tuple[Rule, ...] = (
    (r"^head\.", "SFE.conv_head."),
    (r"^shallow\.blocks\.", "SFE.RBs."),
    (r"^shallow\.tail\.", "SFE.conv_tail."),
    (r"^take\.(\d)\.", lambda match: f"conv{int(match[1]) + 1}{int(match[1]) + 1}_head."),
    (r"^enlarge\.(\d)\.", lambda match: f"conv{int(match[1]) + 1}{int(match[1]) + 2}."),
    (r"^bodies\.(\d)\.(\d)\.blocks\.", lambda match: f"RB{int(match[1]) + 1}{int(match[2]) + 1}."),
    (r"^bodies\.(\d)\.(\d)\.tail\.", lambda match: f"conv{int(match[1]) + 1}{int(match[2]) + 1}_tail."),
    (r"^exchange\.0\.", "ex12."),
    (r"^exchange\.1\.", "ex123."),
    (r"\bmerges\.(\d)\.", lambda match: f"conv_merge{int(match[1]) + 1}."),
    (r"\bpaths\.31\.(\d)\.", lambda match: f"conv31_{int(match[1]) + 1}."),
    (r"\bpaths\.(\d\d)\.0\.", r"conv\1."),
    (r"^tail\.from_quarter\.", "merge_tail.conv13."),
    (r"^tail\.from_half\.", "merge_tail.conv23."),
    (r"^tail\.merge\.", "merge_tail.conv_merge."),
    (r"^tail\.narrow\.", "merge_tail.conv_tail1."),
    (r"^tail\.last\.", "merge_tail.conv_tail2."),
)
COPY, SHIFT = "LTE_copy.", "LTE.sub_mean."


class TTSRKeyMap(RegressionKeyMap):
    """The `KeyMap` of TTSR. Files do not tell the residual scale: 1, as published."""

    marker = "MainNet.SFE.conv_head.weight"

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        bands = tensors["MainNet.merge_tail.conv_tail2.weight"].shape[0]
        return Problem(scale=4, bands=bands, lr_bands=tensors[self.marker].shape[1])

    def infer(self, tensors: Mapping[str, Tensor]) -> TTSRConfig:
        blocks = [count_of(tensors, rf"MainNet\.{name}\.(\d+)\.") for name in (r"SFE\.RBs", "RB11", "RB21", "RB31")]
        textures = [tensors[f"LTE.{name}.weight"].shape[0] for name in ("slice1.0", "slice2.5", "slice3.10")]
        network = TTSRNetConfig(
            width=tensors[self.marker].shape[0],
            blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
            texture_channels=(textures[0], textures[1], textures[2]),
        )
        return TTSRConfig(network=network)

    def networks(self, config: TTSRConfig, problem: Problem) -> dict[str, nn.Module]:
        return {
            "network.": TTSRNet(problem.bands, problem.lr_bands, config.network),
            "extractor.": TextureExtractor(problem.bands, config.network.texture_channels),
        }

    def naming(self, config: TTSRConfig, keys: Collection[str]) -> Name:
        return name_of_parts(
            Part("network.", "MainNet.", lambda key: renamed(key, NETWORK)), Part("extractor.", "LTE.", lambda key: renamed(key, EXTRACTOR))
        )

    def complete(self, tensors: dict[str, Tensor], config: TTSRConfig | None) -> dict[str, Tensor]:
        for key, value in shift(self.problem(tensors).bands).items():
            if key in tensors and not torch.allclose(tensors[key].float(), value, atol=1e-5):
                raise UserError(f"the file's '{key}' is not the shift by ImageNet's mean; the file is damaged.")
        return {key: value for key, value in tensors.items() if not key.startswith((COPY, SHIFT))}

    def from_ours(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**tensors, **shift(tensors[self.marker].shape[1])}

    def to_published(self, config: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See KeyMap; the discriminator, which published files lack, is left out."""
        kept = {key: value for key, value in state_dict.items() if not key.startswith("discriminator.")}
        return super().to_published(config, kept)


def shift(bands: int) -> dict[str, Tensor]:
    """Return the convolution that brings images in [0, 1] to VGG19's range, a constant of files for RGB."""
    if bands != len(VGG_MEAN):
        return {}
    std = torch.tensor(VGG_STD)
    return {f"{SHIFT}weight": (torch.eye(3) / std[:, None])[..., None, None], f"{SHIFT}bias": -torch.tensor(VGG_MEAN) / std}
