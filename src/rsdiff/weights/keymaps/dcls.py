"""Released files of DCLS: `Restorer.*` and `Estimator.*`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from rsdiff.methods.base import Problem
from rsdiff.methods.dcls import DCLSConfig
from rsdiff.networks.dcls import HIDDEN
from rsdiff.weights.keymaps.regression import RegressionKeyMap, enlargement_of
from rsdiff.weights.keymaps.renaming import Rule, count_of

RULES: tuple[Rule, ...] = (
    (r"^restorer\.features\.", "Restorer.feature_block."),
    (r"^restorer\.head_plain\.", "Restorer.head1."),
    (r"^restorer\.head_deblurred\.", "Restorer.head2."),
    (r"^restorer\.groups\.", "Restorer.body."),
    (r"^restorer\.", "Restorer."),
    (r"^estimator\.head\.", "Estimator.head.0."),
    (r"^estimator\.body\.", "Estimator.body.0."),
    (r"^estimator\.tail\.4\.", "Estimator.tail.4."),
    (r"^estimator\.filters\.", "Estimator.dec."),
    (r"^estimator\.", "Estimator."),
    (r"\bblocks\.", "body."),
    (r"\bdeblurred\.(?=\d)", "body1."),
    (r"\bplain\.(?=\d)", "body2."),
    (r"\bmix\.", "CA_body1.1."),
    (r"\bgate_deblurred\.squeeze\.", "CA_body1.2.conv_du.0."),
    (r"\bgate_deblurred\.excite\.", "CA_body1.2.conv_du.2."),
    (r"\bgate_plain\.squeeze\.", "CA_body2.conv_du.0."),
    (r"\bgate_plain\.excite\.", "CA_body2.conv_du.2."),
    (r"\breduce\.", "reduce_feature."),
    (r"\bsmoother\.", "grad_filter."),
    (r"\bexpand\.", "expand_feature."),
)


class DCLSKeyMap(RegressionKeyMap):
    """The `KeyMap` of DCLS."""

    marker = "Restorer.conv_first.weight"
    table = RULES

    def problem(self, tensors: Mapping[str, Tensor]) -> Problem:
        width, bands = tensors[self.marker].shape[:2]
        return Problem(scale=enlargement_of(tensors, "Restorer.upscale.", width), bands=bands, lr_bands=bands)

    def infer(self, tensors: Mapping[str, Tensor]) -> DCLSConfig:
        width, bands = tensors[self.marker].shape[:2]
        layers = count_of(tensors, r"Estimator\.dec\.(\d+)\.")
        lengths = [tensors[f"Estimator.dec.{i}.weight"].shape[0] for i in range(layers)]
        outer = (HIDDEN * bands, *(HIDDEN * HIDDEN,) * (layers - 2), HIDDEN * bands)
        sides = [math.isqrt(length // channels) for length, channels in zip(lengths, outer, strict=True)]
        return DCLSConfig(
            width=width,
            groups=count_of(tensors, r"Restorer\.body\.(\d+)\."),
            blocks=count_of(tensors, r"Restorer\.body\.0\.body\.(\d+)\."),
            reduction=width // tensors["Restorer.head1.weight"].shape[0],
            latent=tensors["Estimator.dec.0.weight"].shape[1],
            kernel_size=1 + sum(side - 1 for side in sides),
        )

    def networks(self, config: DCLSConfig, problem: Problem) -> dict[str, nn.Module]:
        return {"network.": config.network(problem)}
