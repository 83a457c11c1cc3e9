"""A camera in between: unprocess to raw, mosaic, shot and read noise, demosaic, process again. Ours, not part of any published code.

BSRGAN's paper has such a stage and its code only an empty slot for it. The pipeline follows T. Brooks et al., "Unprocessing images for
learned raw denoising" (CVPR 2019), equations 1 to 5 and section 3: the tone curve 3x^2 - 2x^3 and its inverse, sRGB's gamma, colour
matrices of four cameras mixed at random, white balance gains, and their model of noise levels. Highlights are not protected from
clipping by the gains beyond limiting the raw values to [0, 1]; demosaicing is bilinear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.data.transfer import like
from rsdiff.degradations.base import RecordValue
from rsdiff.degradations.blur import mirror_padded
from rsdiff.degradations.draws import Draws
from rsdiff.degradations.stages import Stage

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

XYZ_TO_CAMERA: tuple[Matrix, ...] = (
    ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),  # Sony ILCE-7R
    ((0.4913, -0.0541, -0.0202), (-0.6130, 1.3513, 0.2906), (-0.1564, 0.2151, 0.7183)),  # Olympus E-M10
    ((0.8380, -0.2630, -0.0639), (-0.2887, 1.0725, 0.2496), (-0.0627, 0.1427, 0.5438)),  # Sony RX100 IV
    ((0.6596, -0.2079, -0.0562), (-0.4782, 1.3016, 0.1933), (-0.0970, 0.1581, 0.5181)),  # Huawei Nexus 6P
)
"""Matrices of the cameras in the Darmstadt Noise Dataset, as their DNG files state them."""
SRGB_TO_XYZ: Matrix = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
RED, GREEN, BLUE = 0, 1, 2
LOWEST_GAMMA_INPUT = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraNoise(Stage):
    """The camera of one image.

    shot_noise, read_noise  variance of a raw value x in [0, 1]: shot_noise * x + read_noise
    brightness              gain of all bands from raw to white-balanced values
    red_gain, blue_gain     white balance
    mixture                 weight of each of XYZ_TO_CAMERA, sum 1
    field                   (1, H, W) standard normal
    """

    mixes_bands: ClassVar[bool] = True
    shot_noise: float
    read_noise: float
    brightness: float
    red_gain: float
    blue_gain: float
    mixture: tuple[float, ...]
    field: Tensor

    @property
    def radius(self) -> int:
        return 1

    def renewed(self, draws: Draws) -> Self:
        return replace(self, field=draws.normal(*self.field.shape))

    def run(self, images: Tensor, stages: Sequence[Self]) -> Tensor:
        matrices = like(torch.stack([colour_matrix(stage.mixture) for stage in stages]), images)
        gains = images.new_tensor([(s.red_gain * s.brightness, s.brightness, s.blue_gain * s.brightness) for s in stages])[..., None, None]
        linear = inverse_gamma(inverse_tone_curve(images.clamp(0, 1)))
        raw = (mix_bands(linear, matrices) / gains).clamp(0, 1)
        levels = images.new_tensor([(s.shot_noise, s.read_noise) for s in stages])[..., None, None, None]
        values = mosaic(raw)
        fields = like(torch.stack([stage.field for stage in stages]), images)
        noisy = (values + (levels[:, 0] * values + levels[:, 1]).sqrt() * fields).clamp(0, 1)
        balanced = demosaic(noisy) * gains
        return tone_curve(gamma(mix_bands(balanced, torch.linalg.inv(matrices)).clamp(0, 1)))

    def record(self) -> dict[str, RecordValue]:
        return {name: getattr(self, name) for name in ("shot_noise", "read_noise", "brightness", "red_gain", "blue_gain")}


def draw_camera(draws: Draws, name: str, size: tuple[int, int]) -> CameraNoise:
    """Draw a camera for an image of size (H, W), distributed as in the paper's section 3."""
    weights = [-math.log(1 - draws.share()) for _ in XYZ_TO_CAMERA]  # uniform over all mixtures
    log_shot = draws.uniform(math.log(1e-4), math.log(0.012))
    gain, spread = (float(value) for value in draws.normal(2))
    return CameraNoise(
        name=name,
        shot_noise=math.exp(log_shot),
        read_noise=math.exp(2.18 * log_shot + 1.20 + 0.26 * spread),
        brightness=1 / min(max(0.8 + 0.1 * gain, 0.3), 1.2),
        red_gain=draws.uniform(1.9, 2.4),
        blue_gain=draws.uniform(1.5, 1.9),
        mixture=tuple(weight / sum(weights) for weight in weights),
        field=draws.normal(1, *size),
    )


def colour_matrix(mixture: Sequence[float]) -> Tensor:
    """Return the (3, 3) float64 matrix from linear sRGB to a camera's bands; rows sum to 1, so grey stays grey."""
    cameras = torch.tensor(XYZ_TO_CAMERA, dtype=torch.float64)
    mixed = (cameras * torch.tensor(mixture, dtype=torch.float64)[:, None, None]).sum(0)
    matrix = mixed @ torch.tensor(SRGB_TO_XYZ, dtype=torch.float64)
    return matrix / matrix.sum(1, keepdim=True)


def mix_bands(images: Tensor, matrices: Tensor) -> Tensor:
    """Return images (N, 3, H, W) whose bands are mixed by matrices (N, 3, 3)."""
    return torch.einsum("ndc,nchw->ndhw", matrices, images)


def tone_curve(x: Tensor) -> Tensor:
    """Return 3 x^2 - 2 x^3 for x in [0, 1]."""
    return x.square() * (3 - 2 * x)


def inverse_tone_curve(y: Tensor) -> Tensor:
    """Return the x in [0, 1] with tone_curve(x) = y."""
    return 0.5 - torch.sin(torch.asin((1 - 2 * y).clamp(-1, 1)) / 3)


def gamma(x: Tensor) -> Tensor:
    """Return x^(1/2.2), with the slope limited near 0."""
    return x.clamp(min=LOWEST_GAMMA_INPUT) ** (1 / 2.2)


def inverse_gamma(y: Tensor) -> Tensor:
    """Return y^2.2."""
    return y.clamp(min=LOWEST_GAMMA_INPUT) ** 2.2


def mosaic(images: Tensor) -> Tensor:
    """Return (N, 1, H, W): of each pixel of images (N, 3, H, W) the band that a sensor with the pattern RG/GB has there."""
    return (images * _pattern(images)).sum(1, keepdim=True)


def demosaic(values: Tensor) -> Tensor:
    """Return (N, 3, H, W) of a mosaic (N, 1, H, W): every band interpolated linearly from its own pixels, borders mirrored."""
    known = _pattern(values)
    sparse, dense = ((1, 2, 1), (2, 4, 2), (1, 2, 1)), ((0, 1, 0), (1, 4, 1), (0, 1, 0))  # of red and blue, and of green
    weights = values.new_tensor((sparse, dense, sparse))[:, None]
    # Mirroring at the edge pixel keeps the pattern's parity, so that mirrored pixels carry the band the pattern gives them.
    total = F.conv2d(mirror_padded(values * known, 1, 1), weights, groups=3)
    return total / F.conv2d(mirror_padded(known, 1, 1), weights, groups=3)


def _pattern(images: Tensor) -> Tensor:
    """Return (1, 3, H, W): 1 where the sensor has the band, else 0."""
    pattern = images.new_zeros(1, 3, *images.shape[-2:])
    pattern[:, RED, 0::2, 0::2] = 1
    pattern[:, GREEN, 0::2, 1::2] = 1
    pattern[:, GREEN, 1::2, 0::2] = 1
    pattern[:, BLUE, 1::2, 1::2] = 1
    return pattern
