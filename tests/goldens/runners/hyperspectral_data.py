"""Golden cases of hyperspectral data: spectral responses and the conversion to stored integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rsdiff.data.normalisation import as_integers
from rsdiff.degradations.spectral_response import gaussian_response, interpolated, project, weighted_by_width

from ..case import Case, runner


@runner("hyperspectral_data", "float_to_uint16", "float_to_integer")
def float_to_integer(case: Case) -> dict[str, Any]:
    values = case.input("value")
    return {name: as_integers(values, np.dtype(name)) for name in case.spec["outputs"]}


@runner("hyperspectral_data", "srf_projection")
def srf_projection(case: Case) -> dict[str, Any]:
    config = case.config
    cube, centres = case.input("cube"), case.input("cube_bands").astype(np.float64)

    def seen(weights: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(cube).double().permute(2, 0, 1)[None]
        return project(image, torch.from_numpy(np.asarray(weights, np.float64)))[0].permute(1, 2, 0).numpy()

    response = interpolated(centres, case.input("filter_bands").astype(np.float64), case.input("filter").astype(np.float64))
    projected = np.maximum(seen(response), 0)
    exposed = projected * config["typical_scene_reflectivity"] / projected.mean() * 255
    d700 = case.input("d700").astype(np.float64)
    bands = list(zip(config["gaussian_centres_nm"], config["gaussian_fwhm_nm"], strict=True))
    weights = weighted_by_width(centres, gaussian_response(centres, bands))
    return {
        "ntire_projected": projected,
        "ntire_rgb8": np.clip(exposed, 0, 255).astype(np.uint8),
        "d700_raw": seen(d700),
        "d700_normalised": seen(weighted_by_width(np.arange(len(d700), dtype=float), d700)),
        "gaussian_weights_ours": weights,
        "gaussian_projected_ours": seen(weights),
    }
