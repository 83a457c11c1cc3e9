"""Released files of DANv2: `Restorer.*`, `Estimator.*`, the kernel basis `encoder` and two constants that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.degradations.pca import KernelBasisConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.danv2 import DANv2Config
from rsdiff.weights.keymaps.regression import RegressionKeyMap, enlargement_of
from rsdiff.weights.keymaps.renaming import Rule, count_of

RULES: tuple[Rule, ...] = (
    (r"^restorer\.head_image\.", "Restorer.head1."),
    (r"^restorer\.head_code\.", "Restorer.head2."),
    (r"^restorer\.groups\.", "Restorer.body."),
    (r"^estimator\.head_lr\.", "Estimator.head_LR.0."),
    (r"^estimator\.head_sr\.", "Estimator.head_HR.0."),
    (r"^estimator\.group\.", "Estimator.body."),
    (r"^estimator\.widen\.", "Estimator.tail.0."),
    (r"^estimator\.taps\.", "Estimator.tail.2."),
    (r"^restorer\.", "Restorer."),
    (r"^basis$", "encoder"),
    (r"\bblocks\.", "body."),
    (r"\bimage\.(?=\d)", "body1."),
    (r"\bcondition\.(?=\d)", "body2."),
)


class DANv2KeyMap(RegressionKeyMap):
    """The `KeyMap` of DANv2. Files do not tell the number of loops: 4, as published."""

    marker = "Restorer.head1.weight"
    table = RULES

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        first, last = tensors["Estimator.head_LR.0.weight"], tensors["Estimator.head_HR.0.weight"]
        return Problem(scale=(last.shape[-1] - 1) // 4, bands=last.shape[1], lr_bands=first.shape[1])

    def infer(self, tensors: Mapping[str, Tensor]) -> DANv2Config:
        taps = tensors["Estimator.tail.2.weight"]
        width = tensors[self.marker].shape[0]
        if enlargement_of(tensors, "Restorer.upscale.", width) != self.problem(tensors).scale:
            raise UserError("the file's restorer and estimator are of different scales; choose a file of one network.")
        return DANv2Config(
            width=width,
            groups=count_of(tensors, r"Restorer\.body\.(\d+)\."),
            blocks=count_of(tensors, r"Restorer\.body\.0\.body\.(\d+)\."),
            estimator_width=taps.shape[1],
            estimator_blocks=count_of(tensors, r"Estimator\.body\.body\.(\d+)\."),
            basis=KernelBasisConfig(kernel_size=math.isqrt(taps.shape[0]), code_length=tensors["Restorer.head2.weight"].shape[1]),
        )

    def networks(self, config: DANv2Config, problem: Problem) -> dict[str, nn.Module]:
        return {"network.": config.network(problem)}

    def complete(self, tensors: dict[str, Tensor], config: DANv2Config | None) -> dict[str, Tensor]:
        kept = {key: value for key, value in tensors.items() if not key.startswith("init_")}
        if "encoder" not in kept:
            raise UserError("the file lacks 'encoder', the kernel basis it was trained with; its weights are useless without.")
        kept["encoder"] = kept["encoder"].flatten(0, -2)
        expected = _constants(kept["encoder"])
        for key, value in expected.items():
            if key in tensors and not (tensors[key].shape == value.shape and torch.allclose(tensors[key], value, atol=1e-6)):
                raise UserError(f"the file's '{key}' does not follow from its 'encoder'; the file is damaged.")
        return kept

    def from_ours(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**tensors, "encoder": tensors["encoder"][None], **_constants(tensors["encoder"])}


def _constants(basis: Tensor) -> dict[str, Tensor]:
    """Return the first kernel, a delta, and its code, as DANv2's files hold them."""
    size = math.isqrt(len(basis))
    delta = torch.zeros(1, size, size)
    delta[:, size // 2, size // 2] = 1
    return {"init_kernel": delta, "init_ker_map": delta.flatten(1) @ basis.float()}
