"""The contract of every degradation: decisions are drawn from a generator, and a pure function applies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.missing import eroded
from rsdiff.data.modality import Modality
from rsdiff.data.sample import Batch
from rsdiff.data.source import Window
from rsdiff.degradations.resizing import CPU_BACKENDS

RecordValue = float | int | str


@dataclass
class Degraded:
    """What a degradation makes of N images.

    lr           (N, c, h, w) float32 in [0, 1] (or beyond, where a published degradation does not clamp)
    hr           (N, C, H, W), the target that belongs to it: the input itself, or its cropped, sharpened or band-reduced form
    kernel       (N, k, k) or None
    noise_level  (N,) in units of [0, 1] or None
    lr_clean     (N, c, h, w) before noise and rounding, or None
    windows      the part of the given images that became hr, where that is not the whole; in target pixels, one per image
    modalities   what else was made, by name: several LR images of every place, for example
    """

    lr: Tensor
    hr: Tensor
    kernel: Tensor | None = None
    noise_level: Tensor | None = None
    lr_clean: Tensor | None = None
    windows: Sequence[Window] | None = None
    modalities: Mapping[str, Modality] = field(default_factory=dict)


@dataclass(frozen=True)
class Reach:
    """What a degradation mixes.

    pixels  target pixels, along rows or columns, from any pixel under an LR pixel to the farthest one that the LR pixel depends on; where
            the target is made, too (sharpened), the same for its pixels. What depends on an image as a whole (the level of Poisson noise
            that follows the number of its grey levels) does not count
    bands   whether a band of the LR depends on other bands of the target than its own
    """

    pixels: int
    bands: bool = False


class Degradation(Protocol):
    """Makes LR images from HR images. Stateless; used in loader workers, on the accelerator, for fixed test sets and for guidance."""

    @property
    def gives(self) -> frozenset[str]:
        """Batch fields it fills besides lr, e.g. {'kernel', 'noise_level'}."""
        ...

    def draw(self, generator: torch.Generator, hr_shape: tuple[int, int, int], lr_size: tuple[int, int], views: int = 1) -> list[Any]:
        """Draw the decisions for one sample of shape (C, H, W): one entry per view.

        Views share what belongs to the scene (kernel, noise level) and differ in what does not (the noise itself). Everything random is
        in the decisions, LR noise arrays included, as CPU tensors or plain numbers. A decision of None keeps the LR that the data set
        brings (degradation "paired").
        """
        ...

    def apply(self, hr: Tensor, decisions: Sequence[Any]) -> Degraded:
        """Degrade hr (N, C, H, W) in [0, 1] by N decisions, on hr's device. Pure, and differentiable where the operation is."""
        ...

    def reach(self, decisions: Any, scale: float) -> Reach:
        """Return how far one image's decisions mix pixels; `scale` is target pixels per LR pixel."""
        ...

    def record(self, decisions: Any) -> dict[str, RecordValue]:
        """Return the scalars of one image's decisions for its result row, e.g. {'sigma': 1.2, 'noise': 15.0}."""
        ...


class DegradationConfig:
    """Base of every degradation's config class (see rsdiff.config.typed.config), which holds all its options and builds it.

    A class overrides what differs from these defaults.
    """

    @property
    def requires(self) -> frozenset[str]:
        """Batch fields of the data set that it cannot do without."""
        return frozenset({"hr"})

    @property
    def kernel_size(self) -> int | None:
        """Side of the blur kernels it gives, None where it gives none."""
        return None

    def lr_bands(self, bands: int) -> int:
        """Return how many bands the LR of an image of `bands` bands has."""
        return bands

    @property
    def in_workers(self) -> bool:
        """Whether training applies it in the loader's workers, on the CPU, instead of on the accelerator."""
        return getattr(self, "resize", None) in CPU_BACKENDS

    def for_tests(self) -> Self:
        """Return the options for test images, which are degraded whole: without what only crops training patches."""
        return self

    def for_wavelengths(self, wavelengths: Sequence[float]) -> Self:
        """Return the options for images whose files say their band centres in nm (empty where they do not)."""
        return self

    def build(self) -> Any:
        """Return the `Degradation` (for a list of test sets, see rsdiff.degradations.grid, the `DegradationGrid`)."""
        raise NotImplementedError


def common_lr_size(images: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the LR size (h, w) that the decisions of a batch share; raises UserError if they differ or are not one per image."""
    if len(sizes) != images or len(set(sizes)) != 1:
        raise UserError(f"{images} images need as many decisions of one LR size; {len(sizes)} of sizes {sorted(set(sizes))} were given.")
    return sizes[0]


def degrade(batch: Batch, degradation: Degradation) -> Batch:
    """Return the batch with lr (and kernel, noise_level, lr_views, ...) made by `degradation` from hr and the batch's decisions.

    A batch without decisions, or with decisions of None, keeps the lr of its data set. Missing pixels are filled before; what was made
    of them does not count afterwards, in the target and in the LR.
    """
    if all(not views or views[0] is None for views in batch.decisions):
        batch.need("lr")
        return batch
    hr = batch.need("hr")
    made = degradation.apply(hr, [views[0] for views in batch.decisions])
    lr_views = None
    if batch.hr_views is not None:
        hr_views = batch.need("hr_views")
        count, views = hr_views.shape[:2]
        flat = degradation.apply(hr_views.flatten(0, 1), [d for per_view in batch.decisions for d in per_view[1:]])
        lr_views = flat.lr.unflatten(0, (count, views))
    if batch.valid is not None:
        masks = zip(batch.valid, (views[0] for views in batch.decisions), strict=True)
        batch = replace(batch, valid=torch.stack([counted_by(degradation, batch.scale, mask, one) for mask, one in masks]))
    batch = batch if made.windows is None else _cut(batch, made.windows)
    return replace(
        batch,
        hr=made.hr,
        lr=made.lr,
        lr_valid=None if batch.valid is None else _lr_validity(batch.valid, made.lr),
        size=(int(made.hr.shape[-2]), int(made.hr.shape[-1])),
        lr_size=(int(made.lr.shape[-2]), int(made.lr.shape[-1])),
        kernel=made.kernel,
        noise_level=made.noise_level,
        lr_clean=made.lr_clean,
        lr_views=lr_views,
        modalities={**batch.modalities, **made.modalities},
    )


def _cut(batch: Batch, windows: Sequence[Window]) -> Batch:
    """Return the batch with what lies beside the target, pixel by pixel, cut to one window per image."""

    def parts(images: Tensor | None) -> Tensor | None:
        if images is None:
            return None
        return torch.stack([cut(image, window) for image, window in zip(images, windows, strict=True)])

    return replace(
        batch,
        ref=parts(batch.ref),
        ref_valid=parts(batch.ref_valid),
        change_mask=parts(batch.change_mask),
        valid=parts(batch.valid),
    )


def counting(valid: Tensor, reach: Reach) -> Tensor:
    """Return which pixels of a target (C, H, W) have known surroundings as far as the degradation mixes them."""
    known = eroded(valid, reach.pixels)
    return known.amin(0, keepdim=True).expand_as(known) if reach.bands else known


def counted_by(degradation: Degradation, scale: float, valid: Tensor, decisions: Any) -> Tensor:
    """Return `counting` beside one image's decisions."""
    return counting(valid, degradation.reach(decisions, scale))


def _lr_validity(counts: Tensor, lr: Tensor) -> Tensor:
    """Return which pixels of the LR were made of known ones alone, (B, c, h, w): a target pixel that counts vouches for what is over it."""
    known = F.interpolate(counts, size=lr.shape[-2:], mode="nearest-exact")
    return known if known.shape == lr.shape else known.amin(1, keepdim=True).expand_as(lr)


def cut(image: Tensor, window: Window) -> Tensor:
    """Return the window of an image (..., H, W), without copying."""
    return image[..., window.top : window.top + window.height, window.left : window.left + window.width]
