"""MST++ and its toolbox: networks through the importer, loss, metrics, self-ensemble, patches and augmentation of the ARAD_1K reader."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from rsdiff.data.augmentation import augment
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.stretching import own_range
from rsdiff.data.views import crop_positions
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import Combination, combined, pad_to_multiple
from rsdiff.losses.images import relative_error
from rsdiff.methods.base import Method, Problem
from rsdiff.methods.regression import AWANConfig, HSCNNPlusConfig, MSTLConfig, MSTPlusPlusConfig, RegressionMethodConfig
from rsdiff.metrics.psnr import psnr
from rsdiff.metrics.spectral import mrae, rmse
from rsdiff.weights.importer import import_weights

from ..case import Case, runner

ZERO_REPLACEMENT = 1e-8


def load(case: Case, kind: str, config: RegressionMethodConfig, bands: int, lr_bands: int) -> Method:
    """Return the method with the case's weights. From the file alone, the importer must tell the sizes that `config` has."""
    config, state = import_weights(kind, case.weights(), config)
    inferred, _ = import_weights(kind, case.weights())
    assert inferred == (replace(config, mask_of_first=False) if isinstance(config, MSTLConfig) else config)
    method = config.build(Problem(scale=1, bands=bands, lr_bands=lr_bands))
    method.load_state_dict(state)
    return method.eval()


@torch.no_grad()
def restored(method: Method, batch: Batch) -> Tensor:
    """Return what the method makes of a batch of any size, not clamped."""
    image = method.restore(pad_to_multiple(batch, method.pixel_multiple()), SamplerConfig(), ReplayNoise([]))
    return image[..., : batch.size[0], : batch.size[1]]


def batch_of(lr: Tensor, scale: int = 1) -> Batch:
    h, w = lr.shape[-2:]
    return Batch([SampleMeta(str(i)) for i in range(len(lr))], size=(scale * h, scale * w), lr_size=(h, w), lr=lr)


@runner("spectral_baselines", "mst_plus_plus")
def mst_plus_plus(case: Case) -> dict[str, Any]:
    config = case.config
    assert config["n_feat"] == config["out_channels"], "the features are added to the result: they are as many as its bands"
    method = load(case, "mstpp", MSTPlusPlusConfig(stages=config["stage"]), config["out_channels"], config["in_channels"])
    return {"y": restored(method, batch_of(case.tensor("x")))}


@runner("spectral_baselines", "mst_l")
def mst_l(case: Case) -> dict[str, Any]:
    config = case.config
    assert len(config["num_blocks"]) == config["stage"] + 1
    made = MSTLConfig(blocks=tuple(config["num_blocks"]), mask_of_first=True)
    method = load(case, "mst_l", made, config["dim"], case.spec["keys"]["embedding_1.weight"][1])
    return {"y": restored(method, batch_of(case.tensor("x")))}


def hscnn_plus_of(case: Case) -> Method:
    config = case.config
    return load(case, "hscnn_plus", HSCNNPlusConfig(blocks=config["num_blocks"]), config["out_channels"], config["in_channels"])


@runner("spectral_baselines", "hscnn_plus")
def hscnn_plus(case: Case) -> dict[str, Any]:
    return {"y": restored(hscnn_plus_of(case), batch_of(case.tensor("x")))}


@runner("spectral_baselines", "awan")
def awan(case: Case) -> dict[str, Any]:
    config = case.config
    method = load(case, "awan", AWANConfig(width=config["channels"], blocks=config["n_DRBs"]), config["planes"], config["inplanes"])
    return {"y": restored(method, batch_of(case.tensor("x")))}


@runner("spectral_baselines", "self_ensemble")
def self_ensemble(case: Case) -> dict[str, Any]:
    method, batch = hscnn_plus_of(case), batch_of(case.tensor("x"))
    return {rule: combined(lambda variant, _: restored(method, variant), batch, rule) for rule in get_args(Combination)}


@runner("spectral_baselines", "losses_metrics")
def losses_metrics(case: Case) -> dict[str, Any]:
    prediction, label = np.float32(1.2) * case.tensor("pred") - np.float32(0.1), np.float32(0.9) * case.tensor("label") + np.float32(0.05)
    with_zeros = label.clone()
    with_zeros[:, 0, 0, :3] = 0
    # The metrics are of single images; the published ones pool a batch, which is an image of more bands.
    whole, whole_label = prediction.flatten(0, 1), label.flatten(0, 1)
    np.testing.assert_allclose(mrae(whole, whole_label), relative_error(prediction, label), rtol=1e-5)
    limited = [image.clamp(0, 1) for image in (prediction, label)]
    return {
        "mrae": relative_error(prediction, label),
        "mrae_custom": relative_error(prediction, label, ZERO_REPLACEMENT),
        "mrae_custom_zero": relative_error(prediction, with_zeros, ZERO_REPLACEMENT),
        "rmse": rmse(whole, whole_label),
        "psnr": np.mean([psnr(image, target, peak=1.0) for image, target in zip(*limited, strict=True)]),
    }


@runner("spectral_baselines", "patches")
def patches(case: Case) -> dict[str, Any]:
    config, image = case.config, case.tensor("image")
    rows, columns = (crop_positions(config[side], config["crop_size"], config["stride"]) for side in ("height", "width"))
    assert (len(rows), len(columns)) == (config["patches_per_column"], config["patches_per_line"])
    shape = (max(config["indices"]) // (len(rows) * len(columns)) + 1, len(rows), len(columns))
    places = np.stack(np.unravel_index(config["indices"], shape), axis=1)
    offsets = [(number, rows[row], columns[column]) for number, row, column in places]
    rgb = np.round(np.float32(200) * case.input("rgb_u8") + np.float32(20)).astype(np.uint8)
    return {
        "offsets": np.array(offsets),
        "augmented": torch.stack([augment(image, *symmetry(*combination)) for combination in config["combos_rot_v_h"]]),
        "rgb": own_range(rgb).normalise(rgb),
    }


def symmetry(quarter_turns: int, flips_columns: int, flips_rows: int) -> tuple[bool, bool, bool]:
    """Return the flips and transpose (`augment`) that equal counter-clockwise turns, then a flip of the last axis, then of the rows."""
    horizontal, vertical, transpose = [(False, False, False), (True, False, True), (True, True, False), (False, True, True)][quarter_turns]
    if transpose:  # a flip after the transpose is one of the other axis before it
        flips_columns, flips_rows = flips_rows, flips_columns
    return horizontal != bool(flips_columns), vertical != bool(flips_rows), transpose
