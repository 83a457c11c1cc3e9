"""What a metric is: a described function of one image as a protocol shows it (or, for set metrics, of features of a whole set)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.metrics.calibration import Calibration
from rsdiff.metrics.colour import Space, border_width, crop, luma, quantise, rgb_planes, to_space
from rsdiff.metrics.inception import Preset
from rsdiff.metrics.opensr import OpensrConfig
from rsdiff.metrics.protocol import ProtocolConfig

T = TypeVar("T")


class Sharing:
    """What is computed once and shared by the metrics that name it alike."""

    shared: dict[str, Any]

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return compute(), computed once under this name."""
        if name not in self.shared:
            self.shared[name] = compute()
        value: T = self.shared[name]
        return value


@dataclass(frozen=True)
class View(Sharing):
    """One image as the metrics see it.

    image         (C, H, W) the image that is judged, in [0, 1], not rounded
    hr            (C, H, W) its reference or None
    lr            (c, h, w) what it was made from, or None
    valid         (C, H, W) bool, values that count, or None for all
    lr_valid      (c, h, w) bool, values of `lr` that were made of known pixels alone, or None for all
    scale         target pixels per input pixel
    draws         (N, C, H, W) restorations drawn of the image, of which `image` is the first, or None where there is one alone
    are_quantiles whether the draws are quantiles of every pixel instead of images that could be
    calibration   of the intervals that the draws give, or None for what they say themselves
    degrade       the operator that made `lr`, without its noise, for one image (C, H, W) -> (c, h, w); None where it is not known
    """

    image: Tensor
    hr: Tensor | None
    lr: Tensor | None
    valid: Tensor | None
    scale: float
    protocol: ProtocolConfig
    rgb_bands: tuple[int, int, int] = (0, 1, 2)
    degrade: Callable[[Tensor], Tensor] | None = None
    lr_valid: Tensor | None = None
    draws: Tensor | None = None
    are_quantiles: bool = False
    calibration: Calibration | None = None
    shared: dict[str, Any] = field(default_factory=dict)

    def reference(self) -> Tensor:
        """Return hr; raises UserError where there is none."""
        if self.hr is None:
            raise UserError("this metric compares with the HR image and the data set has none; choose metrics=no_reference.")
        return self.hr

    def pair(self, space: Space | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (image, reference, valid) quantised, in the protocol's space and without its border: what PSNR compares."""
        chosen = space or self.protocol.space
        width = border_width(self.protocol.border, self.scale)

        def prepare(image: Tensor) -> Tensor:
            return crop(to_space(self.quantised(image), chosen, self.rgb_bands, self.protocol.peak), width)

        reference = self.reference()
        image, hr = self.once(f"pair {chosen}", lambda: (prepare(self.image), prepare(reference)))
        valid = self.valid if chosen == "bands" else self.valid_pixels
        return image, hr, None if valid is None else crop(valid, width)

    @property
    def valid_pixels(self) -> Tensor | None:
        """(1, H, W) bool, pixels of which every band that is seen as colour counts, or None for all."""
        return None if self.valid is None else rgb_planes(self.valid, self.rgb_bands).all(0, keepdim=True)

    def leave_out(self, metric: str, bands: Tensor) -> None:
        """Note how many bands (C,) bool a metric could not use, for the result row."""
        self.shared.setdefault("left out", {})[metric] = int(bands.sum())

    def quantised(self, image: Tensor) -> Tensor:
        """Return an image of [0, 1] in units of the protocol's peak, quantised by its rule, float64."""
        return quantise(image, self.protocol.quantise, self.protocol.peak)

    def gray(self) -> Tensor:
        """Return the (1, H, W) full-range gray of the 8-bit image, 0..255, not rounded (mean of the bands if there are two)."""
        planes = rgb_planes(quantise(self.image), self.rgb_bands)
        return planes.mean(0, keepdim=True) if planes.shape[0] == 2 else luma(planes, "y_full")

    def rgb(self, image: Tensor, with_border: bool = True) -> Tensor:
        """Return `image` as perceptual networks see it: (3, H, W) float32 of the 8-bit image on [0, 1]; one band is shown as gray.

        Pixels that do not count are black, in the image as in its reference.
        """
        planes = rgb_planes(quantise(image), self.rgb_bands).float() / 255
        planes = planes.expand(3, -1, -1) if planes.shape[0] == 1 else planes
        if self.valid_pixels is not None:
            planes = torch.where(self.valid_pixels, planes, torch.zeros((), device=planes.device))
        return planes if with_border else crop(planes, border_width(self.protocol.border, self.scale))


class MetricOptions(Protocol):
    """The options that metrics read; `rsdiff.metrics.MetricsConfig` has them, with a sentence each."""

    @property
    def metrics(self) -> tuple[str, ...]: ...
    @property
    def protocol(self) -> ProtocolConfig: ...
    @property
    def rgb_bands(self) -> tuple[int, int, int]: ...
    @property
    def baseline(self) -> bool: ...
    @property
    def fid_preset(self) -> Preset: ...
    @property
    def niqe_min_blocks(self) -> int: ...
    @property
    def opensr(self) -> OpensrConfig: ...
    @property
    def seam_interval(self) -> int: ...
    @property
    def weight_folders(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Context(Sharing):
    """What metrics may use when they are prepared for a run: options, device, and the weight files found (by metric)."""

    options: MetricOptions
    device: torch.device
    files: dict[str, Path]
    shared: dict[str, Any] = field(default_factory=dict)


ImageScore = Callable[[View], float]
ImageFeatures = Callable[[View], Tensor]


@dataclass(frozen=True)
class SetScore:
    """How a value of a set of images is computed.

    features  of one view, (n, D) on the CPU; n may differ between images
    distance  of the features of the judged images and of the references (None where there are none), all images stacked
    """

    features: ImageFeatures
    distance: Callable[[Tensor, Tensor | None], float]


@dataclass(frozen=True)
class Metric:
    """A metric's description and how it is prepared.

    title      as printed in tables
    direction  which way is better; 'none' for descriptive numbers
    low, high  bounds of its values
    needs      among 'hr', 'lr', 'degradation' (the operator that made the LR), 'rgb' (one band or at least three) and 'samples' (several
               restorations of an image)
    files      names of a weight file, any of which will do; empty if it needs none
    build      prepares the function of one View; None for values of a set
    build_set  prepares a value of a set; None for values of an image
    enough     images from which on a value of a set says something; with fewer, results carry a caution
    on_hr      whether the value of the reference itself is recorded beside it: a ceiling or a natural level; for values of a set, the
               distance between two halves of the references, which is the part of the value that their number alone causes
    """

    name: str
    title: str
    meaning: str
    unit: str = ""
    direction: Literal["higher", "lower", "none"] = "higher"
    low: float = 0.0
    high: float = float("inf")
    needs: frozenset[str] = frozenset({"hr"})
    files: tuple[str, ...] = ()
    build: Callable[[Context], ImageScore] | None = None
    build_set: Callable[[Context], SetScore] | None = None
    enough: int = 0
    on_hr: bool = False

    @property
    def of_set(self) -> bool:
        """Whether it is a value of a whole set of images."""
        return self.build_set is not None


__all__ = ["Context", "ImageScore", "Metric", "SetScore", "View"]
