"""EDM's augmentation: random transforms of the training image whose parameters the network receives, so that it does not imitate them.

Draw and application are apart, so that one transform serves all images of a sample (target, upsampled LR, reference).
Source: Karras et al., arXiv 2206.00364, app. F.2 and table 6; the transforms are those of StyleGAN2-ADA (arXiv 2006.06676, app. B).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_0, ReadWith
from rsdiff.data.precision import in_float32
from rsdiff.data.transfer import constant, to_device
from rsdiff.diffusion.noise import NoiseSource

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466, 0.787641141030194,
    0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""Low-pass filter of the symlet of order 6: the resampling filter of the geometric transforms."""
FILTER_MARGIN = len(SYM6) // 4


_DRAWN = ("probability", (ABOVE_0,))
_STRENGTHS = {"shift_max": "shift", "scale_std": "scale", "rotation_max": "rotation", "stretch_std": "stretch"}
_STRENGTHS |= {"stretch_turn_probability": "stretch", "translation_std": "translation", "brightness_std": "brightness"}
_STRENGTHS |= {"contrast_std": "contrast", "hue_max": "hue", "saturation_std": "saturation"}
"""Options of a transform's strength, which are read where its factor is above 0."""


@config
class AugmentationConfig:
    """Which transforms occur how often, and how strong they are. A transform occurs with probability `probability` x its own factor.

    The defaults are those EDM trains with: nine label entries. A factor of 0 removes the transform and its label entries.
    """

    read_with: ClassVar[ReadWith] = {
        **dict.fromkeys((*_STRENGTHS.values(), "luma_flip", "x_flip", "y_flip", "quarter_turn"), _DRAWN),
        **{strength: (_DRAWN, (factor, (ABOVE_0,))) for strength, factor in _STRENGTHS.items()},
    }

    probability: float = 0.12
    """Common probability of all transforms; the published models use 0 to 0.15."""
    x_flip: float = 1e8
    """Factor of mirroring left and right; so large that only the fair coin of the flip itself remains."""
    y_flip: float = 1.0
    """Factor of mirroring top and bottom."""
    quarter_turn: float = 0.0
    """Factor of rotating by multiples of 90 degrees."""
    shift: float = 0.0
    """Factor of shifting by whole pixels, mirrored at the border."""
    scale: float = 1.0
    """Factor of isotropic scaling."""
    rotation: float = 1.0
    """Factor of rotating by any angle."""
    stretch: float = 1.0
    """Factor of stretching along one axis and squeezing along the other."""
    translation: float = 1.0
    """Factor of shifting by fractions of pixels."""
    brightness: float = 0.0
    """Factor of adding a constant."""
    contrast: float = 0.0
    """Factor of multiplying all bands."""
    luma_flip: float = 0.0
    """Factor of inverting the luminance."""
    hue: float = 0.0
    """Factor of rotating colours about the grey axis."""
    saturation: float = 0.0
    """Factor of scaling the distance from the grey axis."""
    shift_max: float = 0.125
    """Largest whole-pixel shift, in image sizes."""
    scale_std: float = 0.2
    """Standard deviation of log2 of the scale."""
    rotation_max: float = 1.0
    """Largest rotation, in half turns."""
    stretch_std: float = 0.2
    """Standard deviation of log2 of the stretch."""
    stretch_turn_probability: float = 0.5
    """Probability that the stretched axis is not the horizontal one."""
    translation_std: float = 0.125
    """Standard deviation of the translation, in image sizes."""
    brightness_std: float = 0.2
    """Standard deviation of the added constant, for images in [-1, 1]."""
    contrast_std: float = 0.5
    """Standard deviation of log2 of the contrast."""
    hue_max: float = 1.0
    """Largest turn of the hue, in half turns."""
    saturation_std: float = 1.0
    """Standard deviation of log2 of the saturation."""

    def __post_init__(self) -> None:
        if self.probability < 0:
            raise UserError(f"probability={self.probability} is negative; give 0 for no augmentation, or up to 1.")

    @property
    def label_width(self) -> int:
        """Entries of the label that the network receives."""
        single = (self.x_flip, self.y_flip, self.scale, self.brightness, self.contrast, self.luma_flip, self.saturation)
        double = (self.quarter_turn, self.shift, self.rotation, self.stretch, self.translation, self.hue)
        return sum(factor > 0 for factor in single) + 2 * sum(factor > 0 for factor in double)


TOUCHED = 1e-3
"""Share of a missing pixel in an interpolated one from which on that one is missing, too."""


@dataclass(frozen=True)
class Augmentation:
    """The transforms drawn for B images.

    x_flip, y_flip  (B,) bool
    quarter_turns   (B,) int64, 0..3
    shift           (B, 2) int64, pixels to the right and upwards
    geometry        (B, 3, 3), output position -> input position in centred pixels (x, y, 1), or None for none
    colour          (B, 4, 4), maps (r, g, b, 1), or None for none
    labels          (B, n), what the network receives; 0 = no transform
    """

    x_flip: Tensor
    y_flip: Tensor
    quarter_turns: Tensor
    shift: Tensor
    geometry: Tensor | None
    colour: Tensor | None
    labels: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Return the transformed images (B, C, H, W); values in [-1, 1] where colours are transformed (then C is 1 or 3)."""
        moved = [to_device(drawn, images.device)[:, None, None, None] for drawn in (self.x_flip, self.y_flip, self.quarter_turns)]
        x_flip, y_flip, turns = moved
        images = torch.where(x_flip, images.flip(3), images)
        images = torch.where(y_flip, images.flip(2), images)
        if self.quarter_turns.any():
            images = _quarter_turn(images, turns)
        if self.shift.any():
            images = _shift(images, to_device(self.shift, images.device))
        if self.geometry is not None:
            images = _warp(images, self.geometry.to(images.dtype))
        if self.colour is not None:
            images = _recolour(images, to_device(self.colour, images.device, images.dtype))
        return images

    def apply_validity(self, valid: Tensor) -> Tensor:
        """Return which pixels (B, C, H, W) of transformed images are made of known ones alone, of all bands where colours are mixed."""
        if self.colour is not None:
            valid = valid.amin(1, keepdim=True).expand_as(valid)
        moved = replace(self, colour=None).apply((valid <= 0.5).float())
        return (moved.abs() < TOUCHED).float()


def draw_augmentation(options: AugmentationConfig, noise: NoiseSource, batch: int, size: tuple[int, int]) -> Augmentation:
    """Draw the transforms of `batch` images of (H, W) pixels.

    For each transform with a positive factor, in the order of the options: its value(s), then the uniform number that decides whether it
    takes place (stretch: value, direction, decision, decision on the direction). Shapes are (B,), or (B, 2) for x and y.
    """
    draws = _Draws(options, noise, batch)
    x_flip = draws.choice(2, options.x_flip)
    draws.tell(x_flip)
    y_flip = draws.choice(2, options.y_flip)
    draws.tell(y_flip)
    turns = draws.choice(4, options.quarter_turn)
    draws.tell(None if turns is None else (turns == 1) | (turns == 2), None if turns is None else (turns == 2) | (turns == 3))
    shift = _draw_shift(draws, size)
    geometry = _draw_geometry(draws, size)
    colour = _draw_colour(draws)
    none = torch.zeros(batch, dtype=torch.int64)
    return Augmentation(
        x_flip=(none if x_flip is None else x_flip) == 1,
        y_flip=(none if y_flip is None else y_flip) == 1,
        quarter_turns=none if turns is None else turns,
        shift=torch.zeros(batch, 2, dtype=torch.int64) if shift is None else shift,
        geometry=geometry,
        colour=colour,
        labels=torch.cat([torch.zeros(batch, 0), *draws.labels], dim=1),
    )


class _Draws:
    """Draws values that are 0 where their transform does not take place, and collects the labels.

    Every draw returns None, and draws nothing, for a transform whose factor is 0.
    """

    def __init__(self, options: AugmentationConfig, noise: NoiseSource, batch: int) -> None:
        self.options = options
        self.noise = noise
        self.batch = batch
        self.labels: list[Tensor] = []

    def tell(self, *values: Tensor | None) -> None:
        """Append label entries (B,) or (B, 2)."""
        self.labels += [value.to(torch.float32).reshape(self.batch, -1) for value in values if value is not None]

    def choice(self, count: int, factor: float) -> Tensor | None:
        return self._gated(self.noise.integers(0, count, (self.batch,)), factor) if factor > 0 else None

    def normal(self, factor: float, entries: int = 1) -> Tensor | None:
        return self._gated(self.noise.normal(self._shape(entries)), factor) if factor > 0 else None

    def uniform(self, factor: float, largest: float, entries: int = 1) -> Tensor | None:
        """Uniform in [-largest, largest)."""
        return self._gated((self.noise.uniform(self._shape(entries)) * 2 - 1) * largest, factor) if factor > 0 else None

    def _shape(self, entries: int) -> tuple[int, ...]:
        return (self.batch,) if entries == 1 else (self.batch, entries)

    def _gated(self, value: Tensor, factor: float) -> Tensor:
        takes_place = self.noise.uniform((self.batch,)) < factor * self.options.probability
        return torch.where(takes_place.reshape(-1, *[1] * (value.ndim - 1)), value, torch.zeros_like(value))

    def stretch(self) -> tuple[Tensor, Tensor]:
        """Strength (B,) and angle (B,) of the stretched axis; both are drawn before either is decided on."""
        options = self.options
        strength = self.noise.normal((self.batch,))
        axis = (self.noise.uniform((self.batch,)) * 2 - 1) * math.pi
        strength = self._gated(strength, options.stretch)
        turned = self.noise.uniform((self.batch,)) < options.stretch_turn_probability
        return strength, torch.where(turned, axis, torch.zeros_like(axis))


def _draw_shift(draws: _Draws, size: tuple[int, int]) -> Tensor | None:
    fraction = draws.uniform(draws.options.shift, 1.0, entries=2)
    if fraction is None:
        return None
    largest = torch.tensor([size[1], size[0]]) * draws.options.shift_max
    pixels = (fraction * largest).round()
    draws.tell(pixels / largest)
    return pixels.to(torch.int64)


def _draw_geometry(draws: _Draws, size: tuple[int, int]) -> Tensor | None:
    """Return (B, 3, 3): the inverse of all drawn transforms, the first drawn applied last to output positions."""
    options = draws.options
    inverse: list[Tensor] = []
    if (scale := draws.normal(options.scale)) is not None:
        shrink = (-scale * options.scale_std).exp2()
        inverse.append(_scaling(shrink, shrink))
        draws.tell(scale)
    if (angle := draws.uniform(options.rotation, math.pi * options.rotation_max)) is not None:
        inverse.append(_rotation(angle))
        draws.tell(angle.cos() - 1, angle.sin())
    if options.stretch > 0:
        stretch, axis = draws.stretch()
        factor = (stretch * options.stretch_std).exp2()
        inverse += [_rotation(-axis), _scaling(1 / factor, factor), _rotation(axis)]
        draws.tell(stretch * axis.cos(), stretch * axis.sin())
    if (offset := draws.normal(options.translation, entries=2)) is not None:
        inverse.append(_translation(-offset * torch.tensor([size[1], size[0]]) * options.translation_std))
        draws.tell(offset)
    return _product(inverse) if inverse else None


def _draw_colour(draws: _Draws) -> Tensor | None:
    """Return (B, 4, 4): the product of all drawn colour transforms, the first drawn applied first."""
    options = draws.options
    grey = torch.tensor([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)
    onto_grey = grey.outer(grey)
    forward: list[Tensor] = []
    if (brightness := draws.normal(options.brightness)) is not None:
        matrix = torch.eye(4).repeat(draws.batch, 1, 1)
        matrix[:, :3, 3] = (brightness * options.brightness_std)[:, None]
        forward.append(matrix)
        draws.tell(brightness)
    if (contrast := draws.normal(options.contrast)) is not None:
        factor = (contrast * options.contrast_std).exp2()[:, None]
        forward.append(torch.diag_embed(torch.cat([factor.expand(-1, 3), torch.ones_like(factor)], dim=1)))
        draws.tell(contrast)
    if (flip := draws.choice(2, options.luma_flip)) is not None:
        forward.append(torch.eye(4) - 2 * onto_grey * flip[:, None, None])
        draws.tell(flip)
    if (hue := draws.uniform(options.hue, math.pi * options.hue_max)) is not None:
        forward.append(_turn_about_grey(hue))
        draws.tell(hue.cos() - 1, hue.sin())
    if (saturation := draws.normal(options.saturation)) is not None:
        factor = (saturation * options.saturation_std).exp2()[:, None, None]
        forward.append(onto_grey + (torch.eye(4) - onto_grey) * factor)
        draws.tell(saturation)
    return _product(forward[::-1]) if forward else None


def _product(matrices: list[Tensor]) -> Tensor:
    return functools.reduce(_times, matrices)


@in_float32
def _times(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=-1))


def _rotation(angle: Tensor) -> Tensor:
    matrix = torch.eye(3).repeat(len(angle), 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0] = angle.sin()
    matrix[:, 0, 1] = -angle.sin()
    return matrix


def _translation(offset: Tensor) -> Tensor:
    """(B, 2) of x, y -> (B, 3, 3)."""
    matrix = torch.eye(3, dtype=offset.dtype, device=offset.device).repeat(len(offset), 1, 1)
    matrix[:, :2, 2] = offset
    return matrix


def _turn_about_grey(angle: Tensor) -> Tensor:
    """Rodrigues' formula about (1, 1, 1) / sqrt(3), as (B, 4, 4)."""
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    matrix = torch.eye(4).repeat(len(angle), 1, 1)
    matrix[:, :3, :3] = cosine * torch.eye(3) + sine * cross + (1 - cosine) / 3
    return matrix


def _quarter_turn(images: Tensor, turns: Tensor) -> Tensor:
    if images.shape[2] != images.shape[3]:
        raise UserError(
            f"images of {images.shape[2]} x {images.shape[3]} pixels cannot be turned by 90 degrees; use square crops or quarter_turn=0."
        )
    images = torch.where((turns == 1) | (turns == 2), images.flip(3), images)
    images = torch.where((turns == 2) | (turns == 3), images.flip(2), images)
    return torch.where((turns == 1) | (turns == 3), images.transpose(2, 3), images)


def _shift(images: Tensor, pixels: Tensor) -> Tensor:
    batch, _, H, W = images.shape

    def mirrored(position: Tensor, length: int) -> Tensor:
        return length - 1 - (length - 1 - position % (2 * length - 2)).abs()

    columns = mirrored(torch.arange(W, device=images.device) - pixels[:, :1], W)
    rows = mirrored(torch.arange(H, device=images.device) + pixels[:, 1:], H)
    which = torch.arange(batch, device=images.device)[:, None, None]
    return images.movedim(1, -1)[which, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


@in_float32
def _warp(images: Tensor, geometry: Tensor) -> Tensor:
    """Resample images at `geometry` (on the CPU, where its margins are known) times their output positions, through a 2x finer grid and
    the symlet filter."""
    H, W = images.shape[2:]
    left, top, right, bottom = _margins(geometry, H, W)
    images = F.pad(images, [left, right, top, bottom], mode="reflect")
    theta = _translation(geometry.new_tensor([[(left - right) / 2, (top - bottom) / 2]])) @ geometry
    images = _refine(_refine(images, 3), 2)
    # Positions on the finer grid: doubled, and moved by half a fine pixel because pixel centres count.
    fine = geometry.new_tensor([[2.0, 0.0, -0.5], [0.0, 2.0, -0.5], [0.0, 0.0, 1.0]])
    theta = fine @ theta @ torch.linalg.inv(fine)
    size = (2 * (H + 2 * FILTER_MARGIN), 2 * (W + 2 * FILTER_MARGIN))
    from_unit = torch.diag(geometry.new_tensor([size[1] / 2, size[0] / 2, 1.0]))
    to_unit = torch.diag(geometry.new_tensor([2 / images.shape[3], 2 / images.shape[2], 1.0]))
    theta = to_device((to_unit @ theta @ from_unit)[:, :2], images.device)
    grid = F.affine_grid(theta, [*images.shape[:2], *size], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _coarsen(_coarsen(images, 3), 2)


def _margins(geometry: Tensor, H: int, W: int) -> tuple[int, int, int, int]:
    """Pixels (left, top, right, bottom) that the transformed corners of any image of the batch need, at most the image's size - 1."""
    x, y = (W - 1) / 2, (H - 1) / 2
    corners = geometry.new_tensor([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]])
    reached = (geometry @ corners.T)[:, :2].movedim(1, 0).flatten(1)
    beyond = torch.cat([-reached, reached]).amax(1) + geometry.new_tensor([2 * FILTER_MARGIN - x, 2 * FILTER_MARGIN - y] * 2)
    largest = geometry.new_tensor([W - 1, H - 1] * 2)
    left, top, right, bottom = (int(margin) for margin in beyond.clamp(min=0).minimum(largest).ceil())
    return left, top, right, bottom


def _filter(images: Tensor, axis: int, taps: tuple[float, ...], stride: int, padding: int) -> Tensor:
    channels = images.shape[1]
    shape, strides, pads = ([1, 1], [1, 1], [0, 0])
    shape[axis - 2], strides[axis - 2], pads[axis - 2] = len(taps), stride, padding
    kernel = constant(taps, images.device, images.dtype).reshape(1, 1, *shape).expand(channels, 1, -1, -1)
    return F.conv2d(images, kernel, stride=strides, padding=pads, groups=channels)


def _refine(images: Tensor, axis: int) -> Tensor:
    """Insert zeros between neighbours along `axis` and filter."""
    doubled = torch.stack([images, torch.zeros_like(images)], dim=axis + 1).flatten(axis, axis + 1)
    return _filter(doubled.narrow(axis, 0, doubled.shape[axis] - 1), axis, SYM6[::-1], stride=1, padding=(len(SYM6) + 1) // 2)


def _coarsen(images: Tensor, axis: int) -> Tensor:
    """Filter and keep every second pixel along `axis`, less the filter's margin."""
    halved = _filter(images, axis, SYM6, stride=2, padding=(len(SYM6) - 1) // 2)
    return halved.narrow(axis, FILTER_MARGIN, halved.shape[axis] - 2 * FILTER_MARGIN)


@in_float32
def _recolour(images: Tensor, colour: Tensor) -> Tensor:
    bands = images.shape[1]
    if bands == 3:
        return torch.einsum("bij,bjhw->bihw", colour[:, :3, :3], images) + colour[:, :3, 3][:, :, None, None]
    if bands == 1:
        grey = colour[:, :3].mean(1)
        return images * grey[:, :3].sum(1)[:, None, None, None] + grey[:, 3][:, None, None, None]
    raise UserError(f"colours of images with {bands} bands cannot be augmented; set the colour factors to 0 or use 1 or 3 bands.")
