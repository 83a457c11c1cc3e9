"""What flows through rsdiff: a `Sample` leaves the data set, a `Batch` enters a method.

Images are float32 in [0, 1], channels first. H, W are target (HR) pixels, h, w are input (LR) pixels; C counts HR bands, c LR bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.missing import fill_missing, validity_at
from rsdiff.data.modality import Modality, stacked


@dataclass(frozen=True)
class Georeference:
    """Where a raster lies: coordinate system (WKT or 'EPSG:n') and the six affine coefficients, pixel (column, row) -> (x, y)."""

    crs: str
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class SampleMeta:
    """What is known of a sample besides its pixels.

    name         unique within the data set and split, used for files and result rows
    index        position in the data set
    epoch        epoch the crop and the degradation were drawn for; 0 in evaluation
    labels       free attributes copied to the result row, e.g. {"class": "airport"}
    wavelengths  band centres of the HR in nanometres, or empty
    """

    name: str
    index: int = 0
    epoch: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    wavelengths: tuple[float, ...] = ()
    georeference: Georeference | None = None


@dataclass
class Sample:
    """One training or test item.

    hr           (C, H, W) in [0, 1], or None for LR-only data
    lr           (c, h, w) in [0, 1] where the dataset has its own LR, else None until the degradation makes it
    lr_size      (h, w) that the degradation shall produce (the size rule of the data set decides)
    ref          (C, H, W), co-registered HR image of another date
    change_mask  (1, H, W) in [0, 1], land-cover code or change of every pixel; 0 = unchanged unless the data set says otherwise
    hr_views     (V-1, C, H, W), further crops of the same image that share the sample's degradation (contrastive encoders)
    valid        (C, H, W) of 0/1, values of hr that are known and count in losses and metrics (missing = 0); None means all. A mask of
                 one band stands for every band
    lr_valid     (c, h, w) of 0/1, the same of an lr that the data set brings
    ref_valid    (C, H, W) of 0/1, the same of ref
    views_valid  (V-1, C, H, W) of 0/1, the same of hr_views
    decisions    one entry per view (first: hr, then hr_views), what the degradation drew; see rsdiff.degradations
    hr_size      (H, W) of the target before it was extended by zeros at the bottom and right, where it was; else None
    size         (H, W) that a sample without hr shall be restored to; None where hr tells it
    modalities   what else there is, by name
    """

    meta: SampleMeta
    hr: Tensor | None = None
    lr: Tensor | None = None
    lr_size: tuple[int, int] | None = None
    ref: Tensor | None = None
    change_mask: Tensor | None = None
    hr_views: Tensor | None = None
    valid: Tensor | None = None
    lr_valid: Tensor | None = None
    ref_valid: Tensor | None = None
    views_valid: Tensor | None = None
    decisions: Sequence[Any] = ()
    hr_size: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    modalities: Mapping[str, Modality] = field(default_factory=dict)


VALIDITY = {"hr": "valid", "lr": "lr_valid", "ref": "ref_valid", "hr_views": "views_valid"}
"""Image field of a batch -> field that says which of its pixels are known."""


@dataclass
class Batch:
    """A batch of samples, after the degradation. Shapes as in `Sample` with a leading B.

    valid        (B, C, H, W) of 0/1: values of hr that count in losses and metrics. After the degradation, those whose surroundings are
                 known as far as it mixes pixels; None means all
    lr_valid     (B, c, h, w) of 0/1, the same of lr
    size         (H, W) of the target; the scale is derived from it and lr's size
    lr_views     (B, V-1, c, h, w), LR of hr_views
    kernel       (B, k, k) blur kernels, sum 1, where the degradation has one
    noise_level  (B,) standard deviation of the LR noise, in units of [0, 1]
    lr_clean     (B, c, h, w), the LR before noise and rounding, when the degradation offers it
    code         (B, ...) what a method estimates of the whole scene (Method.degradation_code), where that was done before; else None
    decisions    decisions[b][v], see Sample
    sizes        (H, W) of every target before it was extended to `size`, where the images of a batch differ in scale
    given_scale  the scale of images whose size is no multiple of it (restored elsewhere); None means the ratio of `size` and `lr_size`
    step_images  images of the optimiser step that this micro-batch is a part of; None stands for its own
    modalities   what else there is, by name; see `modality`
    """

    metas: list[SampleMeta]
    size: tuple[int, int]
    lr_size: tuple[int, int]
    hr: Tensor | None = None
    lr: Tensor | None = None
    ref: Tensor | None = None
    change_mask: Tensor | None = None
    hr_views: Tensor | None = None
    lr_views: Tensor | None = None
    valid: Tensor | None = None
    lr_valid: Tensor | None = None
    ref_valid: Tensor | None = None
    views_valid: Tensor | None = None
    kernel: Tensor | None = None
    noise_level: Tensor | None = None
    lr_clean: Tensor | None = None
    code: Tensor | None = None
    decisions: list[Sequence[Any]] = field(default_factory=list)
    sizes: list[tuple[int, int]] | None = None
    given_scale: float | None = None
    step_images: int | None = None
    modalities: Mapping[str, Modality] = field(default_factory=dict)
    _filled: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.metas)

    @property
    def scale(self) -> float:
        """Ratio of target to input height."""
        return self.size[0] / self.lr_size[0] if self.given_scale is None else self.given_scale

    @property
    def whole_pixels(self) -> Tensor | None:
        """(B, 1, H, W) of 0/1, pixels of which every band of target and input is known, where both have one size; None means all."""
        masks = [mask.amin(1, keepdim=True) for mask in (self.valid, self.lr_valid) if mask is not None]
        return torch.stack(masks).amin(0) if masks else None

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with every tensor on `device`; the host does not wait for tensors of pinned memory."""
        return self._mapped(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory. PyTorch's data loaders ask for it by this name."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed = {f.name: change(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        others = {name: modality.mapped(change) for name, modality in self.modalities.items()}
        return replace(self, modalities=others, **changed)  # type: ignore[arg-type]

    def modality(self, name: str) -> Modality:
        """Return what the batch holds under `name` besides its own fields; raises UserError if it holds nothing of the kind."""
        if name not in self.modalities:
            raise UserError(f"this method needs '{name}', which neither the data set nor the degradation gives.")
        return self.modalities[name]

    def with_memory_format(self, memory_format: torch.memory_format) -> Batch:
        """Return the batch with every image (four-axis tensor) stored in `memory_format`."""
        stored = {
            f.name: value.contiguous(memory_format=memory_format)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor) and value.dim() == 4
        }
        return replace(self, **stored)  # type: ignore[arg-type]

    def need(self, name: str) -> Tensor:
        """Return the tensor field `name`, images with their missing pixels filled; raises UserError if this batch does not hold it.

        Whoever looks beyond a pixel takes images by this function, so that what stands in missing pixels reaches nothing.
        """
        value = getattr(self, name)
        if not isinstance(value, Tensor):
            raise UserError(f"this method needs '{name}', which neither the data set nor the degradation gives.")
        valid = getattr(self, VALIDITY[name]) if name in VALIDITY else None
        if valid is None:
            return value
        found = self._filled.get(name)
        if found is None or found[0] is not value or found[1] is not valid:
            flat = fill_missing(value, valid) if value.dim() == 4 else fill_missing(value.flatten(0, 1), valid.flatten(0, 1))
            found = self._filled[name] = (value, valid, flat.view_as(value))
        return found[2]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of equal sizes into a batch whose LR still has to be made (`rsdiff.degradations.degrade`) unless the data bring it.

    Where an LR that the data bring is missing, nothing is known of the target: it does not count there.
    """
    first = samples[0]

    def stack(name: str) -> Tensor | None:
        values = [getattr(sample, name) for sample in samples]
        present = [value for value in values if value is not None]
        if not present:
            return None
        if len(present) != len(values):
            raise UserError(f"some samples of a batch have '{name}' and others have not: {', '.join(s.meta.name for s in samples)}.")
        return torch.stack(present)

    def validity(image: str) -> Tensor | None:
        """Stack masks, one per band; a sample without one has all its pixels."""
        masks = [getattr(sample, VALIDITY[image]) for sample in samples]
        images = [getattr(sample, image) for sample in samples]
        if all(mask is None for mask in masks) or any(value is None for value in images):
            return None
        whole = zip(images, masks, strict=True)
        return torch.stack([torch.ones_like(value) if mask is None else mask.to(value).expand_as(value) for value, mask in whole])

    if first.hr is None and (first.lr is None or first.size is None):
        raise UserError(f"sample {first.meta.name} has neither hr nor lr with the size of its target.")
    valid, lr_valid = validity("hr"), validity("lr")
    if lr_valid is not None and first.hr is not None:
        seen = validity_at(lr_valid.amin(1, keepdim=True), (first.hr.shape[-2], first.hr.shape[-1])).expand(-1, len(first.hr), -1, -1)
        valid = seen if valid is None else valid * seen
    size = (first.hr.shape[-2], first.hr.shape[-1]) if first.hr is not None else first.size
    assert size is not None
    lr_size = first.lr_size or (tuple(first.lr.shape[-2:]) if first.lr is not None else None)
    if lr_size is None:
        raise UserError(f"sample {first.meta.name} has no lr and no lr_size.")
    return Batch(
        metas=[sample.meta for sample in samples],
        size=(int(size[0]), int(size[1])),
        lr_size=(int(lr_size[0]), int(lr_size[1])),
        hr=stack("hr"),
        lr=stack("lr"),
        ref=stack("ref"),
        change_mask=stack("change_mask"),
        hr_views=stack("hr_views"),
        valid=valid,
        lr_valid=lr_valid,
        ref_valid=validity("ref"),
        views_valid=validity("hr_views"),
        decisions=[sample.decisions for sample in samples],
        modalities=stacked([sample.modalities for sample in samples]),
        sizes=None if first.hr_size is None else [sample.hr_size for sample in samples if sample.hr_size is not None],
    )
