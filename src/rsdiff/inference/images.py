"""Restoring test images: padding, batching images of one size, per-image noise, geometric self-ensembles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.config.computing import Precision
from rsdiff.data.precision import mixed
from rsdiff.data.sample import Batch, Sample, collate
from rsdiff.data.transfer import has_queue, wait_for
from rsdiff.degradations.base import Degradation, degrade
from rsdiff.diffusion.noise import NoiseSource, SeededNoise, TileNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.compilation import Compile, compile_regions, compiling
from rsdiff.inference.tiling import Axis, Grid, even_side, exact_scale, rounded_up, tile_multiple
from rsdiff.methods.base import Method

Combination = Literal["mean", "median"]
Ensemble = Literal["none", "mean", "median"]
Transform = tuple[bool, bool, bool]  # flip rows, flip columns, transpose
VARIANTS: Sequence[Transform] = [(rows, columns, swap) for swap in (False, True) for columns in (False, True) for rows in (False, True)]
"""The eight geometric variants of an image."""
OVERLAP = 16
"""Input pixels that neighbouring tiles of an image share, as many as those of scenes do by default."""


@dataclass(frozen=True)
class Execution:
    """How the networks compute; the sampler and what surrounds them stay as they are."""

    precision: Precision = "no"
    compile: Compile = False
    channels_last: bool = False


@dataclass
class Restored:
    """A degraded batch, its restoration (B, C, H, W) and the seconds one image took."""

    batch: Batch
    image: Tensor
    seconds: float


def restore(method: Method, batch: Batch, sampler: SamplerConfig, noise: NoiseSource, precision: Precision = "no") -> Tensor:
    """Return (B, C, H, W) float32 in [0, 1] for any LR size: pads by reflection to what the method needs, restores, crops and clamps."""
    padded = pad_to_multiple(batch, method.pixel_multiple())
    with mixed(precision, padded.need("lr").device), compiling():
        image = method.restore(padded, sampler, noise)
    return image[..., : batch.size[0], : batch.size[1]].float().clamp(0, 1)


def pad_to_multiple(batch: Batch, multiple: int) -> Batch:
    """Extend lr at the bottom and right by reflection to multiples of `multiple`, and everything of HR size accordingly."""
    h, w = batch.lr_size
    rows, columns = -h % multiple, -w % multiple
    if not rows and not columns:
        return batch
    H, W = batch.size

    def extended(image: Tensor) -> Tensor:
        """Extend an image of any grid by the same share."""
        return extend(image, round(rows * image.shape[-2] / h), round(columns * image.shape[-1] / w))

    # Images with their missing pixels filled, which a reflection then repeats: what is missing is known by `batch` alone.
    large = {name: extended(batch.need(name)) for name in ("ref", "change_mask") if isinstance(getattr(batch, name), Tensor)}
    return replace(
        batch,
        lr=extended(batch.need("lr")),
        lr_valid=None,
        ref_valid=None,
        valid=None,
        lr_size=(h + rows, w + columns),
        size=(H + round(rows * H / h), W + round(columns * W / w)),
        hr=None,
        modalities={name: modality.mapped(extended) for name, modality in batch.modalities.items()},
        **large,  # type: ignore[arg-type]
    )


def extend(image: Tensor, rows: int, columns: int) -> Tensor:
    """Append `rows` and `columns` to images (..., C, H, W) by reflection; an image too small to reflect repeats its edge."""
    H, W = image.shape[-2:]
    mode = "reflect" if rows < H and columns < W else "replicate"
    return F.pad(image.flatten(0, -4), (0, columns, 0, rows), mode=mode).unflatten(0, image.shape[:-3])


def restore_images(
    method: Method,
    samples: Iterable[Sample],
    degradation: Degradation,
    sampler: SamplerConfig,
    seed: int,
    device: torch.device,
    batch_size: int = 1,
    ensemble: Ensemble = "none",
    execution: Execution = Execution(),
    warms_up: bool = False,
    say: Callable[[Sequence[str]], None] = print,
    tile: int = 0,
) -> Iterator[Restored]:
    """Degrade and restore test samples in order; images of equal size that follow each other share a batch.

    An image's result depends on (seed, name) only, not on the batch it was in. `ensemble` combines those of the eight flips and transposes;
    larger images are restored in tiles of `tile` input pixels, 0 for whole.
    With `warms_up` an accelerator restores the first batch twice and the second time counts: the first loads kernels and reserves memory.
    """
    is_cold, precision = warms_up and has_queue(device), execution.precision
    is_compiled = not execution.compile
    for group in batches_of_equal_size(samples, batch_size):
        batch = collate(group).to(device)
        if batch.lr is None:
            batch = degrade(batch, degradation)
        if execution.channels_last:
            batch = batch.with_memory_format(torch.channels_last)
        if not is_compiled:
            say([compiled_for(method, batch, sampler, execution)])
            is_compiled, is_cold = True, warms_up
        for _ in range(2 if is_cold else 1):
            wait_for(device)  # the clock counts neither the copy nor the degradation, which may still be queued
            start = time.perf_counter()
            with torch.no_grad():
                if ensemble == "none":
                    image = restore_seeded(method, batch, sampler, seed, precision=precision, tile=tile)
                else:
                    image = restore_ensemble(method, batch, sampler, seed, ensemble, precision, tile)
            wait_for(device)
            seconds = time.perf_counter() - start
        is_cold = False
        yield Restored(batch, image, seconds / len(batch))


def compiled_for(method: Method, batch: Batch, sampler: SamplerConfig, execution: Execution) -> str:
    """Compile what the restoration of `batch` calls, and return a sentence of what that is."""

    def run() -> None:
        with torch.no_grad():
            restore_seeded(method, batch, shortened(sampler), 0, precision=execution.precision)

    found = compile_regions(method, execution.compile, run, batch.need("lr").device)
    return f"task.compile={str(execution.compile).lower()}: {found}"


def shortened(sampler: SamplerConfig) -> SamplerConfig:
    """Return a sampler of as few steps as it can take, for trials."""
    return replace(sampler, steps=min(2, sampler.steps)) if sampler.grid != "list" else sampler


def restore_seeded(
    method: Method, batch: Batch, sampler: SamplerConfig, seed: int, draw: int = 0, precision: Precision = "no", tile: int = 0
) -> Tensor:
    """Restore with noise keyed by (seed, image name); `draw` numbers independent restorations of one image.

    tile  side in input pixels of the tiles that larger images are restored in; 0 restores them whole
    """
    if tile and max(batch.lr_size) > tile:
        parts = [restore_tiles(method, one, sampler, (seed, "restore", one.metas[0].name, draw), tile, precision) for one in singles(batch)]
        return torch.cat(parts)
    noise = SeededNoise([(seed, "restore", meta.name, draw) for meta in batch.metas], shared=(seed, "restore", draw))
    return restore(method, batch, sampler, noise, precision)


def restore_ensemble(
    method: Method, batch: Batch, sampler: SamplerConfig, seed: int, combine: Combination, precision: Precision = "no", tile: int = 0
) -> Tensor:
    """Restore the eight geometric variants of the input, each with noise of its own, and combine the results."""
    return combined(lambda variant, number: restore_seeded(method, variant, sampler, seed, number, precision, tile), batch, combine)


def singles(batch: Batch) -> Iterator[Batch]:
    """Yield the LR images of a batch one by one; raises UserError where there is more than LR to restore from."""
    more = [name for name in ("ref", "change_mask") if getattr(batch, name) is not None] + list(batch.modalities)
    if more:
        raise UserError(f"task.tile cuts LR images alone and these come with {', '.join(more)}; leave task.tile out.")
    for index, meta in enumerate(batch.metas):
        yield Batch([meta], batch.size, batch.lr_size, lr=batch.need("lr")[index : index + 1])


def restore_tiles(
    method: Method, batch: Batch, sampler: SamplerConfig, key: Sequence[int | str], tile: int, precision: Precision = "no"
) -> Tensor:
    """Return the restoration (1, C, H, W) of a batch of one LR image, made in overlapping tiles as task=restore makes scenes.

    Noise is keyed by `key` and its place, and what a method estimates once per image is estimated of the whole image.
    """
    lr, (h, w), (H, W) = batch.need("lr"), batch.lr_size, batch.size
    scale = exact_scale(H / h)
    multiple = tile_multiple(method.pixel_multiple(), scale, method.target_multiple())

    def axis(length: int) -> Axis:
        side = min(rounded_up(tile, multiple), rounded_up(length, multiple))
        shared = min(rounded_up(OVERLAP, multiple), side // 2 // multiple * multiple)
        return Axis(length, even_side(length, side, shared, multiple), shared, scale)

    rows, columns = axis(h), axis(w)
    grid = Grid(rows, columns, max(rows.target_length, columns.target_length))
    reach = [one.start(one.count - 1) + one.tile - one.length for one in (rows, columns)]
    lr, code = extend(lr, *reach), method.degradation_code(pad_to_multiple(batch, multiple))
    size, made = (rows.target_tile, columns.target_tile), []
    for place in (grid.place(number) for number in grid.tiles_of(0)):
        top, left = rows.start(place[0]), columns.start(place[1])
        part = lr[..., top : top + rows.tile, left : left + columns.tile]
        one = Batch(batch.metas, size, (rows.tile, columns.tile), lr=part, code=code)
        noise = TileNoise(key, [(rows.target_start(place[0]), columns.target_start(place[1]))], size)
        made.append(restore(method, one, sampler, noise, precision)[0].cpu().numpy())
    return torch.from_numpy(grid.blend(0, made))[None, :, :H, :W].to(lr.device)


def combined(restore_variant: Callable[[Batch, int], Tensor], batch: Batch, combine: Combination) -> Tensor:
    """Return the mean or the median of what `restore_variant` (batch, number of the variant) makes of the eight variants of a batch.

    The median is the lower one of the two in the middle: the fourth smallest value.
    """
    images = (undo(restore_variant(transformed(batch, transform), number), transform) for number, transform in enumerate(VARIANTS))
    if combine == "mean":
        return sum(images, torch.zeros((), device=batch.need("lr").device)) / len(VARIANTS)
    return torch.stack(list(images)).median(0).values


def transformed(batch: Batch, transform: Transform) -> Batch:
    """Return the batch with every image flipped and transposed."""
    names = ("hr", "lr", "ref", "change_mask", "valid", "lr_valid", "ref_valid", "kernel", "lr_clean")
    images: dict[str, Any] = {name: turn(value, transform) for name in names if isinstance(value := getattr(batch, name), Tensor)}
    images["modalities"] = {name: modality.mapped(lambda value: turn(value, transform)) for name, modality in batch.modalities.items()}
    swap = transform[2]
    size, lr_size = (batch.size[::-1], batch.lr_size[::-1]) if swap else (batch.size, batch.lr_size)
    return replace(batch, size=size, lr_size=lr_size, **images)


def turn(image: Tensor, transform: Transform) -> Tensor:
    """Flip rows, flip columns, transpose, in this order."""
    rows, columns, swap = transform
    axes = [axis for axis, flip in ((-2, rows), (-1, columns)) if flip]
    image = image.flip(axes) if axes else image
    return image.transpose(-2, -1) if swap else image


def undo(image: Tensor, transform: Transform) -> Tensor:
    """Inverse of `turn`."""
    rows, columns, swap = transform
    image = image.transpose(-2, -1) if swap else image
    axes = [axis for axis, flip in ((-2, rows), (-1, columns)) if flip]
    return image.flip(axes) if axes else image


def batches_of_equal_size(samples: Iterable[Sample], batch_size: int) -> Iterator[Sequence[Sample]]:
    """Yield runs of consecutive samples of one size, at most `batch_size` long."""
    group: list[Sample] = []
    for sample in samples:
        if group and (len(group) == batch_size or sizes(sample) != sizes(group[0])):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def sizes(sample: Sample) -> tuple[object, ...]:
    """What must be equal for samples to share a batch."""
    shapes = [None if image is None else tuple(image.shape) for image in (sample.hr, sample.lr, sample.ref, sample.change_mask)]
    shapes += [tuple(modality.values.shape) for modality in sample.modalities.values()]
    return (*shapes, sample.lr_size, sample.size)
