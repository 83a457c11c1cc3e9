"""Training crops and test images of a source, with every random choice keyed by (seed, epoch, index) or (seed, name)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.data import Dataset

from rsdiff.data.augmentation import augment
from rsdiff.data.missing import fill_missing
from rsdiff.data.sample import Sample
from rsdiff.data.scales import Kept, crop_sides, lr_sides, target_sides
from rsdiff.data.seeding import keyed_generator
from rsdiff.data.source import DataError, ImageSource, SizeRule, SmallRule, Window

Draw = Callable[[Generator, tuple[int, int, int], tuple[int, int], int], Sequence[Any]]
"""Degradation.draw: (generator, shape (C, H, W), LR size (h, w), views) -> one entry of decisions per view."""


Counting = Callable[[Tensor, Any], Tensor]
"""(known pixels of a target (C, H, W), one entry of decisions) -> those whose surroundings are known as far as the degradation mixes."""


MakeLr = Callable[[Tensor, Sequence[Any]], Tensor]
"""Degradation.apply without what is not LR: (hr (N, C, H, W), N decisions) -> lr (N, c, h, w)."""


DRAWS = 16
"""Crops that are drawn at most to find one with enough known pixels."""


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Which training sample: image `index` in `epoch`; `step` keys what a whole batch shares (a drawn scale)."""

    epoch: int
    index: int
    step: int


class TrainingSamples(Dataset[Sample]):
    """Square crops of the training images of `source`, one per SampleKey.

    patch        side of the HR crop; a multiple of an integer `scale` (for others, the crop is the largest that fits it)
    draw         the degradation's draw, or None where the data bring their LR
    views        crops per image under one degradation; all get the image's own flips
    augment      flip and transpose, each with probability 1/2
    crop_step    crops begin at multiples of so many pixels
    small        what happens to images smaller than the crop
    scale_range  (lowest, highest): the scale is drawn anew for every step
    scale_keeps  lr: with a range of scales the LR crop keeps patch // highest pixels; hr: the HR crop keeps `patch`
    make_lr      given, every image draws a scale of its own: its LR is made here, and its HR extended by zeros to `patch`
    counting     the degradation's rule of what counts beside missing pixels; None where the data bring their LR
    least_valid  share of a crop's values that must count; a crop with less is drawn again, DRAWS times at most, and the best one kept
    """

    def __init__(
        self,
        source: ImageSource,
        scale: float,
        patch: int,
        seed: int,
        draw: Draw | None,
        *,
        views: int = 1,
        augment: bool = True,
        crop_step: int = 1,
        small: SmallRule = "refuse",
        scale_range: tuple[float, float] | None = None,
        scale_keeps: Kept = "lr",
        make_lr: MakeLr | None = None,
        counting: Counting | None = None,
        least_valid: float = 0.5,
    ) -> None:
        if "hr" not in source.gives:
            raise DataError("these data have no targets (hr), so nothing can be trained on them; choose data with HR images.")
        if draw is not None and "lr" in source.gives:
            raise DataError(
                "this dataset has LR images of its own, which cannot be degraded; use degradation=paired, or drop the LR by "
                "dataset.lr_folder=''."
            )
        if scale_range is not None and ("lr" in source.gives or not 1 <= scale_range[0] <= scale_range[1]):
            raise DataError(f"scales from {scale_range} cannot be drawn; give two numbers from 1 on, in order, and data without LR images.")
        if make_lr is not None and (draw is None or views > 1 or {"ref", "change_mask"} & source.gives):
            raise DataError(
                "a scale per image needs data with HR images alone and a method that takes one crop of each; draw one per batch."
            )
        self._make_lr, self._counting, self._least_valid = make_lr, counting, least_valid
        self._source, self._seed, self._draw = source, seed, draw
        self._crop_step = crop_step
        self._views, self._augment, self._pads = views, augment, small == "pad"
        self._scale, self._scale_range = scale, scale_range
        self._kept: Kept = scale_keeps
        highest = scale if scale_range is None else scale_range[1]
        self._lr_patch = lr_patch_of(patch, highest)
        self._patch = patch if scale_range is not None and scale_keeps == "hr" else round(self._lr_patch * highest)
        self._indices = usable_images(source, self._patch, small)

    def __len__(self) -> int:
        return len(self._indices)

    def crop_sizes(self, step: int) -> tuple[int, int]:
        """Return the sides (HR, LR) of the crops of a step."""
        if self._scale_range is None:
            return round(self._lr_patch * self._scale), self._lr_patch
        scale = self._drawn_scale(keyed_generator(self._seed, "scale", step))
        return crop_sides(scale, self._lr_patch if self._kept == "lr" else self._patch, self._kept, "down")

    def _drawn_scale(self, generator: Generator) -> float:
        assert self._scale_range is not None
        low, high = self._scale_range
        return low + float(torch.rand((), generator=generator, dtype=torch.float64)) * (high - low)

    def __getitem__(self, key: SampleKey) -> Sample:
        index = self._indices[key.index]
        generator = keyed_generator(self._seed, "sample", key.epoch, index)
        best, most = None, -1.0
        for _ in range(DRAWS):
            sample = self._drawn(key, index, generator)
            share = self._share(sample)
            if share > most:
                best, most = sample, share
            if most >= self._least_valid:
                break
        assert best is not None
        return best if self._make_lr is None else self._with_own_lr(best, self._make_lr)

    def _drawn(self, key: SampleKey, index: int, generator: Generator) -> Sample:
        patch, lr_patch = self.crop_sizes(key.step)
        if self._make_lr is not None:
            patch, lr_patch = crop_sides(self._drawn_scale(generator), self._lr_patch, "lr", "nearest")
        first = self._crop(index, patch, lr_patch, generator)
        others = [self._crop(index, patch, lr_patch, generator) for _ in range(self._views - 1)]
        flips = torch.randint(0, 2, (3,), generator=generator).tolist() if self._augment else (0, 0, 0)

        def turned(image: Tensor | None) -> Tensor | None:
            return None if image is None else augment(image, *map(bool, flips)).contiguous()

        assert first.hr is not None
        sample = replace(
            first,
            meta=replace(first.meta, index=index, epoch=key.epoch),
            lr_size=(lr_patch, lr_patch),
            hr=turned(first.hr),
            lr=turned(first.lr),
            ref=turned(first.ref),
            change_mask=turned(first.change_mask),
            valid=turned(first.valid),
            lr_valid=turned(first.lr_valid),
            ref_valid=turned(first.ref_valid),
            hr_views=turned(_stacked([other.hr for other in others])),
            views_valid=turned(_stacked([other.valid for other in others])),
        )
        if self._draw is not None:
            sample.decisions = self._draw(generator, (first.hr.shape[0], patch, patch), (lr_patch, lr_patch), self._views)
        return sample

    def _share(self, sample: Sample) -> float:
        """Return the smallest share of values that count of a sample's crops (and of the known ones of its own LR); 1 where all do."""
        masks = [
            (sample.valid, 0),
            *((mask, view) for view, mask in enumerate(() if sample.views_valid is None else sample.views_valid, 1)),
        ]
        shares = [float(self._counted(mask, sample, view).mean()) for mask, view in masks if mask is not None and not bool(mask.all())]
        if sample.lr_valid is not None:
            shares.append(float(sample.lr_valid.float().mean()))
        return min(shares, default=1.0)

    def _counted(self, valid: Tensor, sample: Sample, view: int = 0) -> Tensor:
        if self._counting is None or not sample.decisions:
            return (valid > 0.5).float()
        return self._counting(valid, sample.decisions[view])

    def _with_own_lr(self, sample: Sample, make_lr: MakeLr) -> Sample:
        """Return the sample with its LR, and its HR extended to the size that all targets of a batch can have."""
        assert sample.hr is not None
        H, W = sample.hr.shape[-2:]
        missing = (0, self._patch - W, 0, self._patch - H)
        valid = None if sample.valid is None else sample.valid.expand_as(sample.hr)
        hr = fill_missing(sample.hr[None], None if valid is None else valid[None])
        lr = make_lr(hr, sample.decisions)[0]
        counts = None if valid is None else F.pad(self._counted(valid, sample), missing)
        return replace(sample, hr=F.pad(hr[0], missing), lr=lr, decisions=(), hr_size=(H, W), valid=counts)

    def _crop(self, index: int, patch: int, lr_patch: int, generator: Generator) -> Sample:
        """Return a crop at a drawn position; beside an LR image, positions are multiples of the scale, too."""
        H, W = self._source.size(index)
        step = math.lcm(self._crop_step, patch // lr_patch if "lr" in self._source.gives else 1)
        top, left = (step * draw_integer(len(crop_positions(side, patch, step)) - 1, generator) for side in (H, W))
        window = Window(top, left, min(patch, H), min(patch, W))
        sample = self._source.read(index, window)
        return padded(sample, patch, lr_patch) if self._pads and (patch > H or patch > W) else sample


class TestSamples(Dataset[Sample]):
    """Whole test images of `source`, degraded by decisions that depend on (seed, name) alone.

    size_rule  'crop': HR is cut bottom and right to a multiple of the scale (for fractions: to round(h scale) of h = floor(H / scale));
               'keep': HR stays whole and the LR has floor(H / scale) rows
    limit      most images
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    def __init__(
        self, source: ImageSource, scale: float, seed: int, draw: Draw | None, *, size_rule: SizeRule = "crop", limit: int | None = None
    ) -> None:
        self.source = self._source = source
        self._scale, self._seed, self._draw, self._size_rule = scale, seed, draw, size_rule
        self._length = len(source) if limit is None else min(limit, len(source))
        for index in range(self._length):
            if min(self._source.size(index)) < scale:
                raise DataError(
                    f"{source.name(index)} is {'x'.join(map(str, source.size(index)))} pixels, too small for scale={scale:g}; delete it."
                )

    def __len__(self) -> int:
        return self._length

    def name(self, index: int) -> str:
        """Return the name of an image."""
        return self._source.name(index)

    def sizes(self, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return target size (H, W) and LR size (h, w) of an image, without reading it."""
        H, W = self._source.size(index)
        if "lr" in self._source.gives:  # the source has made H, W multiples of its LR
            return (H, W), (round(H / self._scale), round(W / self._scale))
        return target_sides((H, W), self._scale, self._size_rule), lr_sides((H, W), self._scale)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._length:
            raise IndexError(index)
        (H, W), lr_size = self.sizes(index)
        whole = self._source.size(index) == (H, W)
        sample = self._source.read(index, None if whole else Window(0, 0, H, W))
        size = (H, W) if sample.hr is None else None
        sample = replace(sample, meta=replace(sample.meta, index=index), lr_size=lr_size, size=size)
        if self._draw is not None and sample.lr is None and sample.hr is not None:
            generator = keyed_generator(self._seed, "test", sample.meta.name)
            sample.decisions = self._draw(generator, (sample.hr.shape[0], H, W), lr_size, 1)
        return sample


def _stacked(images: Sequence[Tensor | None]) -> Tensor | None:
    """Stack the images that exist; None if there are none."""
    present = [image for image in images if image is not None]
    return torch.stack(present) if present else None


def lr_patch_of(patch: int, scale: float) -> int:
    """Return the side of the LR crop of an HR crop of `patch` pixels; raises DataError where an integer scale does not divide it."""
    if patch < scale:
        raise DataError(
            f"trainer.patch={patch} is smaller than one LR pixel at scale={scale:g}; set trainer.patch={math.ceil(scale) * 16}."
        )
    if scale == int(scale) and patch % int(scale):
        fitting = max(1, round(patch / scale)) * int(scale)
        raise DataError(f"trainer.patch={patch} is not a multiple of scale={scale:g}; set trainer.patch={fitting}.")
    return math.floor(patch / scale)


def crop_positions(side: int, patch: int, step: int) -> range:
    """Return where crops of `patch` pixels may begin along a side of an image, `step` pixels apart; none where it is smaller."""
    return range(0, side - patch + 1, step)


def usable_images(source: ImageSource, patch: int, small: SmallRule) -> list[int]:
    """Return the indices of images that training can crop; raises DataError naming one that is too small, unless `small` allows it."""
    fits = [min(source.size(index)) >= patch for index in range(len(source))]
    if small == "refuse" and not all(fits):
        index = fits.index(False)
        H, W = source.size(index)
        raise DataError(
            f"{source.name(index)} is {H}x{W} pixels, smaller than the training crop of {patch}x{patch} ({fits.count(False)} of "
            f"{len(fits)} images are); set trainer.patch={min(H, W)} or lower, or dataset.small=skip or pad."
        )
    chosen = [index for index, large in enumerate(fits) if large or small == "pad"]
    if not chosen:
        raise DataError(f"all {len(fits)} images are smaller than the training crop of {patch}x{patch}; lower trainer.patch.")
    return chosen


def draw_integer(highest: int, generator: Generator) -> int:
    """Return an integer in 0..highest inclusive (0 where highest is negative)."""
    return int(torch.randint(0, highest + 1, (), generator=generator)) if highest > 0 else 0


def padded(sample: Sample, patch: int, lr_patch: int) -> Sample:
    """Extend a crop at the bottom and right by mirroring (edge repeated, as often as needed) until it has the full size."""

    def extend(image: Tensor | None, side: int) -> Tensor | None:
        if image is None:
            return None
        rows, columns = (mirror_indices(length, side) for length in image.shape[-2:])
        return image[..., rows, :][..., columns]

    return replace(
        sample,
        hr=extend(sample.hr, patch),
        lr=extend(sample.lr, lr_patch),
        ref=extend(sample.ref, patch),
        change_mask=extend(sample.change_mask, patch),
        valid=extend(sample.valid, patch),
        lr_valid=extend(sample.lr_valid, lr_patch),
        ref_valid=extend(sample.ref_valid, patch),
    )


def mirror_indices(length: int, wanted: int) -> Tensor:
    """Return `wanted` positions that walk 0..length-1 and back: 0 1 2 2 1 0 0 1 ... for length 3."""
    positions = torch.arange(max(wanted, length)) % (2 * length)
    return torch.minimum(positions, 2 * length - 1 - positions)
