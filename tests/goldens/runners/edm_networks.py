"""EDM's networks, augmentation and snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.diffusion.augmentation import AugmentationConfig, draw_augmentation
from rsdiff.diffusion.noise import ReplayNoise
from tests.goldens.case import Case, runner

AUGMENTATION_NAMES = {
    "p": "probability",
    "xflip": "x_flip",
    "yflip": "y_flip",
    "rotate_int": "quarter_turn",
    "translate_int": "shift",
    "translate_int_max": "shift_max",
    "scale": "scale",
    "scale_std": "scale_std",
    "rotate_frac": "rotation",
    "rotate_frac_max": "rotation_max",
    "aniso": "stretch",
    "aniso_std": "stretch_std",
    "aniso_rotate_prob": "stretch_turn_probability",
    "translate_frac": "translation",
    "translate_frac_std": "translation_std",
    "brightness": "brightness",
    "brightness_std": "brightness_std",
    "contrast": "contrast",
    "contrast_std": "contrast_std",
    "lumaflip": "luma_flip",
    "hue": "hue",
    "hue_max": "hue_max",
    "saturation": "saturation",
    "saturation_std": "saturation_std",
}
TRANSFORMS = ("xflip", "yflip", "rotate_int", "translate_int", "scale", "rotate_frac", "aniso", "translate_frac")
COLOURS = ("brightness", "contrast", "lumaflip", "hue", "saturation")


@runner("edm", "augment_geometric", "augment_blit_color")
def augment(case: Case) -> Mapping[str, Any]:
    images = case.tensor("images")
    given = {AUGMENTATION_NAMES[name]: value for name, value in case.config.items() if name != "draw_kinds"}
    absent = {AUGMENTATION_NAMES[name]: 0.0 for name in (*TRANSFORMS, *COLOURS) if name not in case.config}
    draws = [case.tensor(f"draw_{index:02}") for index in range(len(case.config["draw_kinds"]))]
    noise = ReplayNoise([_batch_first(draw, len(images)) for draw in draws])
    drawn = draw_augmentation(AugmentationConfig(**absent, **given), noise, len(images), (images.shape[2], images.shape[3]))
    return {"out": drawn.apply(images), "labels": drawn.labels}


def _batch_first(draw: Tensor, batch: int) -> Tensor:
    """Published draws are (B, 1, ...), (1, B, ...) or, for x and y, (2, B, ...); ours are (B,) or (B, 2)."""
    if draw.shape[0] == batch and draw.numel() == batch:
        return draw.flatten()
    return draw.flatten() if draw.shape[0] == 1 else draw.reshape(2, batch).T
