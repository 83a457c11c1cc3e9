"""Released files of HAT ({"params_ema", "params"}) <-> our `hat`, whose network has the published names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.methods.base import Problem
from rsdiff.methods.regression import HATConfig
from rsdiff.weights.keymaps.regression import RegressionKeyMap, enlargement_of
from rsdiff.weights.keymaps.renaming import count_of

GROUP = "layers.{}.residual_group."
BLOCK = GROUP.format(0) + "blocks.0."


class HATKeyMap(RegressionKeyMap):
    """The `KeyMap` of HAT. The tables of indices are constants: a file may lack them, and must agree where it has them."""

    marker = GROUP.format(0) + "overlap_attn.relative_position_bias_table"

    def infer(self, tensors: Mapping[str, Tensor]) -> HATConfig:
        """What no file contains, the weight of the convolutional branch, has its published value."""
        width, groups = tensors["conv_first.weight"].shape[0], count_of(tensors, r"layers\.(\d+)\.")
        window = (math.isqrt(tensors[BLOCK + "attn.relative_position_bias_table"].shape[0]) + 1) // 2
        larger = math.isqrt(tensors[self.marker].shape[0]) + 1 - window
        return HATConfig(
            width=width,
            blocks=tuple(count_of(tensors, rf"layers\.{group}\.residual_group\.blocks\.(\d+)\.") for group in range(groups)),
            heads=tuple(tensors[GROUP.format(group) + "overlap_attn.relative_position_bias_table"].shape[1] for group in range(groups)),
            window=window,
            overlap=(larger - window) / window,
            compression=width // tensors[BLOCK + "conv_block.cab.0.weight"].shape[0],
            squeeze=width // tensors[BLOCK + "conv_block.cab.3.attention.1.weight"].shape[0],
            mlp_ratio=tensors[BLOCK + "mlp.fc1.weight"].shape[0] / width,
            head_width=tensors["conv_last.weight"].shape[1],
        )

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        bands = tensors["conv_first.weight"].shape[1]
        return Problem(enlargement_of(tensors, "upsample.", tensors["conv_last.weight"].shape[1]), bands=bands, lr_bands=bands)

    def networks(self, config: HATConfig, problem: Problem) -> dict[str, nn.Module]:
        # spandrel's class asks tensors for their values, which the meta device does not have.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return {"network.": config.build_network(problem)}

    def complete(self, tensors: dict[str, Tensor], config: HATConfig | None) -> dict[str, Tensor]:
        options = config or self.infer(tensors)
        smallest = replace(options, blocks=(1,), heads=options.heads[:1])
        state = self.networks(smallest, self.problem(tensors))["network."].state_dict()
        tables = {key: value for key, value in state.items() if not value.is_floating_point()}
        for key, table in tables.items():
            if key in tensors and not torch.equal(tensors[key].to(table), table):
                raise UserError(f"the file's '{key}' is not that of this window and overlap; choose the model the file was trained with.")
        return tensors | tables
