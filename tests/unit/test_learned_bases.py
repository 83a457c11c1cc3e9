"""A base that learns is shown the training batches by every method that takes one, or the method refuses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from rsdiff.config import UserError, config_from_mapping
from rsdiff.data.modality import Modality
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.regression_base import Regression
from rsdiff.methods import METHODS
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.networks.restorers import RestorerConfig
from rsdiff.networks.running_regression import RunningRegression

SONG = {"model_channels": 16, "channel_mult": [1], "num_blocks": 1, "attention_levels": []}
UNET = {"width": 8, "multipliers": [1, 1], "blocks": 1, "norm_groups": 4}
GAN = {"perceptual": {"weight": 0.0}, "discriminator": {"kind": "patch", "width": 4, "layers": 1}}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "awan": {"width": 16, "blocks": 1},
    "edm_sr": {"song": SONG},
    "esrgan": {"network": {"kind": "edsr", "width": 4, "blocks": 1}, **GAN},
    "hat": {"width": 12, "blocks": [1], "heads": [2], "window": 8, "squeeze": 2, "head_width": 4},
    "highresnet": {"width": 4, "blocks": 1},
    "hscnn_plus": {"blocks": 1},
    "idm": {**UNET, "encoder": {"width": 8, "blocks": 1}, "prediction": "clean"},
    "mst_l": {"width": 8, "blocks": [1, 1]},
    "mstpp": {"stages": 1, "width": 8, "blocks": [1, 1]},
    "refdiff": {"network": {"trunk": SONG, "modulation_width": 4}},
    "rrdb": {"network": {"kind": "edsr", "width": 4, "blocks": 1}},
    "sadn": {},
    "scdm": {**UNET, "time_width": 8, "strides": [2, 1], "attention_levels": [1]},
    "spectral_cnn": {"width": 4, "blocks": 1},
    "spsr": {"network": {"kind": "spsr", "width": 4, "blocks": 1, "growth": 4, "taps": [1]}, **GAN},
}
PROBLEM = Problem(1, 8, 8)
TAUGHT_BEFORE = {"residual_quantiles"}
"""Methods whose base was taught by the training that they start from, and learns no more."""
REFUSED = {"sadn": "set model.base=enlarged or none.", "spsr": "a scale from 2 on."}


def test_every_method_that_takes_a_base_is_among_these() -> None:
    assert {kind for kind in METHODS if any(field.name == "base" for field in dataclasses.fields(METHODS[kind]))} == set(
        SMALL
    ) | TAUGHT_BEFORE


@pytest.mark.parametrize("kind", SMALL)
def test_a_regression_learns_from_a_training_step_or_is_refused(kind: str) -> None:
    config = config_from_mapping(METHODS[kind], {**SMALL[kind], "base": "regression"}, "model")
    torch.manual_seed(0)
    if kind == "spectral_cnn":
        with pytest.raises(UserError, match=r"set model\.base=none"):
            config.build(PROBLEM)
        return
    sentence = config.refuse(PROBLEM)
    if sentence is not None:
        assert sentence.endswith(REFUSED[kind])
        return
    method = config.build(PROBLEM).train()
    images = {name: torch.rand(2, 8, 32, 32) for name in ("lr", "hr", "ref")}
    looks = {"looks": Modality(images["lr"][:, None].expand(-1, 2, -1, -1, -1))} if kind == "highresnet" else {}
    batch = Batch(
        [SampleMeta("a"), SampleMeta("b", 1)], (32, 32), (32, 32), **images, change_mask=torch.zeros(2, 1, 32, 32), modalities=looks
    )
    stage = method.stages()[-1]
    for part in method.passes(stage):
        method.losses(batch, part, SeededNoise([(0,), (1,)]))
    method.after_step(stage, 0)
    learned = [module.regression for module in method.modules() if isinstance(module, Regression)]
    assert learned
    assert all(bool(regression.solution.any()) for regression in learned)


IMAGES, BANDS = Problem(2, 3, 3), Problem(1, 8, 3)
NETWORKS: Mapping[str, tuple[Problem, Mapping[str, Any]]] = {
    "awan": (BANDS, SMALL["awan"]),
    "edsr": (IMAGES, {"width": 4, "blocks": 1}),
    "hat": (IMAGES, SMALL["hat"]),
    "hscnn_plus": (BANDS, SMALL["hscnn_plus"]),
    "mst_l": (BANDS, {**SMALL["mst_l"], "width": 12}),  # of the bands' own width they add their first features, as published
    "mstpp": (BANDS, {**SMALL["mstpp"], "width": 12}),
    "rdn": (IMAGES, {"width": 4, "blocks": 1, "layers": 1, "growth": 4}),
    "rrdb": (IMAGES, {"width": 4, "blocks": 1, "growth": 4}),
    "spectral_cnn": (BANDS, SMALL["spectral_cnn"]),
    "spsr": (IMAGES, {**SMALL["spsr"]["network"], "head": "stages"}),
    "swinir": (IMAGES, {"width": 12, "depths": [1], "heads": [2], "window": 4, "out_channels": 4}),
}


def test_every_network_is_among_these() -> None:
    assert set(RestorerConfig.kinds) == set(NETWORKS)


def on_a_base(kind: str) -> tuple[MethodConfig, Problem]:
    problem, sizes = NETWORKS[kind]
    base = "enlarged" if problem is IMAGES else "regression"
    return config_from_mapping(METHODS["rrdb"], {"network": {"kind": kind, **sizes}, "base": base}, "model"), problem


@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind != "spectral_cnn"])
def test_a_fresh_network_adds_nothing_to_what_it_is_added_to(kind: str) -> None:
    config, problem = on_a_base(kind)
    method = config.build(problem).eval()
    lr = torch.rand(1, problem.lr_bands, 16, 16)
    added = method.get_submodule("network")(lr).detach().abs().max()
    assert float(added) < 1e-6


def test_a_network_that_begins_elsewhere_is_refused_on_a_base() -> None:
    config, problem = on_a_base("spectral_cnn")
    with pytest.raises(UserError, match=r"set model\.base=none"):
        config.build(problem)


def test_a_regression_that_saw_no_known_pixel_is_zero() -> None:
    regression = RunningRegression(3, 4, 1e-4)
    regression.accumulate(torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4, 4), torch.zeros(1, 1, 4, 4))
    regression.solve()
    assert not bool(regression.solution.any())
