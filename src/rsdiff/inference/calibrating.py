"""Errors and spreads of several restorations of test images, of which intervals are calibrated; kept as they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from rsdiff.config.errors import during
from rsdiff.data.durable import write_arrays
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations.test_sets import TestSet
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.draws import restored_draws
from rsdiff.inference.images import Restored, restore_images
from rsdiff.inference.scene_job import Team
from rsdiff.methods.base import Method
from rsdiff.metrics.calibration import Pixels

PIXELS = 20_000
"""Values of an image that are looked at, drawn at random."""


def measure_pixels(
    methods: Sequence[Method],
    sets: Sequence[TestSet],
    sampler: SamplerConfig,
    seed: int,
    samples: int,
    folder: Path,
    team: Team,
    progress: Callable[[int, int], None],
) -> dict[str, Pixels]:
    """Return errors and spreads of pixels of every image by its name, over all test sets of one split; of images with a valid pixel.

    methods  take turns to restore the `samples` restorations, on the device that they are on
    folder   keeps what is measured, so that a killed run goes on
    progress called by the first process of the team with the images done and in all
    """
    device = next(iter(methods[0].parameters()), torch.zeros(0)).device
    count = len(sets[0].samples)
    mine = range(team.rank, count, team.count)
    total, done = count * len(sets), 0
    for number, tested in enumerate(sets):
        waiting = [index for index in mine if not (folder / f"{number}_{index}.npz").exists()]
        done += len(mine) - len(waiting)
        views = (tested.samples[index] for index in waiting)
        restoring = restore_images(methods[0], views, tested.degradation, sampler, seed, device)
        with during("calibration"):
            for index, restored in zip(waiting, restoring, strict=True):
                drawn = restored_draws(methods, restored.batch, sampler, seed, samples, restored.image)
                pixels = pixels_of(restored, drawn, seed)
                folder.mkdir(parents=True, exist_ok=True)
                write_arrays(folder / f"{number}_{index}.npz", {"error": pixels.error, "spread": pixels.spread})
                done += 1
                if team.rank == 0:
                    progress(min(done * team.count, total), total)
    team.any(False)
    return dict(_measured(sets, folder))


def _measured(sets: Sequence[TestSet], folder: Path) -> Iterator[tuple[str, Pixels]]:
    first = sets[0].samples
    for index in range(len(first)):
        parts = [np.load(folder / f"{number}_{index}.npz") for number in range(len(sets))]
        error, spread = (np.concatenate([part[name] for part in parts]).astype(np.float64) for name in ("error", "spread"))
        if len(error):
            yield first.name(index), Pixels(error, spread)


def pixels_of(restored: Restored, draws: torch.Tensor, seed: int) -> Pixels:
    """Return errors of the mean and spreads of values of a batch of one image, drawn at random among the valid ones."""
    hr = restored.batch.need("hr")[0]
    error, spread = (hr - draws[:, 0].mean(0)).cpu(), draws[:, 0].std(0).cpu()
    if restored.batch.valid is not None:
        counted = restored.batch.valid[0].expand_as(hr).cpu() > 0.5
        error, spread = error[counted], spread[counted]
    generator = keyed_generator(seed, "calibrate", restored.batch.metas[0].name)
    chosen = torch.randperm(error.numel(), generator=generator)[:PIXELS]
    return Pixels(error.flatten()[chosen].double().numpy(), spread.flatten()[chosen].double().numpy())
