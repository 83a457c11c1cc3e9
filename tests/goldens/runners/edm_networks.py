"""EDM's networks, augmentation and snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rsdiff.diffusion.augmentation import AugmentationConfig, draw_augmentation
from rsdiff.diffusion.edm import EdmDenoiser
from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.foreign import read_checkpoint
from rsdiff.networks.edm_unet import Init, ResampledConv2d
from rsdiff.weights.edm_pickle import denoiser_in
from rsdiff.weights.keymaps.edm import build_network, preconditioning_of
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


@runner("edm", "resample_convs")
def resample_convs(case: Case) -> Mapping[str, Any]:
    x, weights = case.tensor("x"), case.weights()
    out_channels, in_channels, kernel_size = weights["weight"].shape[:3]
    outputs = {}
    for name in case.spec["outputs"]:  # up11, down1331_fused: direction, filter, mode
        direction = "up" if name.startswith("up") else "down"
        taps = [int(digit) for digit in name.removeprefix(direction).removesuffix("_fused")]
        layer = ResampledConv2d(in_channels, out_channels, kernel_size, direction, taps, Init("xavier_uniform"), name.endswith("_fused"))
        layer.load_state_dict(weights)
        outputs[name] = layer(x)
    return outputs


@runner("edm", "songunet_ddpmpp", "songunet_ncsnpp", "songunet_skip", "dhariwal_adm", "dhariwal_iddpm", "ddpmpp_published")
def network(case: Case) -> Mapping[str, Any]:
    return run_denoiser(case, case.config["cls"], case.config["constructor"], case.weights())


@runner("edm", "tiny_network_snapshot")
def snapshot(case: Case) -> Mapping[str, Any]:
    published = denoiser_in(read_checkpoint(case.path.parent / case.config["file"]))
    return run_denoiser(case, published.class_name, published.arguments, published.state)


def run_denoiser(case: Case, class_name: str, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Raw output, denoised image and the mean and deviation of every entry's output."""
    built = build_network(class_name, arguments, state)
    labels = [case.tensor(name) if name in case.arrays else None for name in ("labels", "augment_labels")]
    observed = Observed(built)
    denoiser = EdmDenoiser(lambda x, level: observed(x, level, *labels), preconditioning_of(class_name, arguments))
    with torch.no_grad():
        denoised = denoiser(case.tensor("x"), case.tensor("sigma").to(torch.float64))
    return {"F": observed.output, "D": denoised, "block_stats": torch.tensor(observed.statistics)}


class Observed:
    """A U-Net whose output, and the mean and deviation of every entry of its encoder and decoder, are kept."""

    def __init__(self, built: nn.Module) -> None:
        self.built = built
        self.statistics: list[tuple[float, float]] = []
        self.output: Tensor | None = None
        for half in (built.encoder, built.decoder):
            for entry in half.entries.values():
                entry.register_forward_hook(
                    lambda _module, _inputs, output: self.statistics.append((float(output.mean()), float(output.std())))
                )

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        self.output = self.built(*inputs)
        return self.output


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
