"""task=calibrate: how wide intervals must be to hold the share of HR pixels that they name; fitted on some images, tried on the others.

The calibration is stored with the checkpoint. From then on task=evaluate and task=restore with the same number of samples use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from rsdiff.config import ConfigError, UserError
from rsdiff.config.errors import during
from rsdiff.data.digests import short_digests
from rsdiff.data.durable import write_arrays, write_json
from rsdiff.data.seeding import keyed_generator
from rsdiff.data.source import ImageSource
from rsdiff.data.splits import name_position
from rsdiff.data.views import TestSamples
from rsdiff.degradations import named_cases
from rsdiff.inference.draws import restored_draws
from rsdiff.inference.images import Restored, restore_images
from rsdiff.methods.base import Method
from rsdiff.metrics.calibration import LEAST_IMAGES, LEVELS, Calibration, Pixels, as_drawn, coverages, fitted
from rsdiff.reporting.records import write_text
from rsdiff.reporting.uncertainty import reliability_figure
from rsdiff.runs.console import say
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks import calibrations
from rsdiff.tasks.experiment import degradation_for, draw_of, make_accelerator, methods_beside, problem_of, tested_method
from rsdiff.tasks.options import CalibrateTask
from rsdiff.tracking import Tracker
from rsdiff.training.processes import wait_for_all
from rsdiff.weights.stores import is_zoo, typed_name

PIXELS = 20_000
"""Values of an image that are looked at, drawn at random."""
ByImage = Mapping[str, Pixels]


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Calibrate the intervals of `settings.checkpoint` on the test images of the data set."""
    task = settings.task
    assert isinstance(task, CalibrateTask)
    if settings.checkpoint is None:
        raise ConfigError("task=calibrate stores what it finds with the weights it is of; add checkpoint=RUN_FOLDER.")
    accelerator, source = make_accelerator(), settings.split("test")
    if "hr" not in source.gives:
        raise UserError(
            f"dataset={settings.choices['dataset']} has no HR images, with which intervals are compared; choose data that have."
        )
    method, checkpoint = tested_method(settings, problem_of(settings, source))
    assert checkpoint is not None
    names = sorted((source.name(index) for index in range(len(source))), key=name_position)
    fit_on = names[: round(task.share * len(names))]
    if len(fit_on) < LEAST_IMAGES:
        raise UserError(
            f"{len(fit_on)} of {len(names)} images would be calibrated on and {LEAST_IMAGES} are needed; raise task.share, or choose data "
            "with more images."
        )
    methods = (method, *methods_beside(settings, checkpoint, task.samples))
    for one in methods:
        one.to(accelerator.device)
    found = gather(settings, task.samples, methods, source, folder.path / "pixels", accelerator, tracker)
    if not accelerator.is_main_process:
        return TaskResult([])
    calibration = fitted([found[name] for name in fit_on], task.samples)
    contents = dict(zip((source.name(index) for index in range(len(source))), source.contents(), strict=True))
    stored = calibrations.Stored(
        calibration,
        calibrations.fits_of(settings.scale, settings.sampler, task.samples, settings.beside),
        short_digests(contents[name] for name in fit_on),
        f"{settings.choices['dataset']}, {settings.choices['degradation']}",
    )
    tried = {name: pixels for name, pixels in found.items() if name not in set(fit_on)}
    labels = {source.name(index): dict(source.meta(index).labels).get("class", "") for index in range(len(source))}
    before, after = (coverages(tried.values(), one) for one in (as_drawn(task.samples), calibration))
    text = told(calibration, before, after, by_class(tried, labels, calibration), len(tried))
    write_text(folder.path / "results.md", text)
    series = {"calibrated": after, "as drawn": before} if tried else {}
    write_text(folder.path / "reliability.svg", reliability_figure(series, standalone=True) or "")
    write_json(folder.path / calibrations.FILE, stored.to_json())
    kept = folder.path / calibrations.FILE if is_zoo(checkpoint.folder) else calibrations.keep(stored, checkpoint)
    use = f" task.calibration={folder.path}" if is_zoo(checkpoint.folder) else ""
    return TaskResult(
        messages=[
            text.strip(),
            f"stored   {kept}",
            f"next     python run.py task=restore checkpoint={typed_name(checkpoint.folder)} task.samples={task.samples}{use} "
            "input=IMAGE output=RESTORED.tif",
        ],
        summary={"images": len(fit_on), "tried": len(tried), "coverage": after[0.9], "coverage_as_drawn": before[0.9]},
        report=folder.path / "results.md",
        files=[folder.path / calibrations.FILE, kept],
    )


def gather(
    settings: RunSettings,
    samples: int,
    methods: Sequence[Method],
    source: ImageSource,
    folder: Path,
    accelerator: Accelerator,
    tracker: Tracker,
) -> dict[str, Pixels]:
    """Return errors and spreads of pixels of every image by its name, over all degradations of a grid.

    folder  keeps them as they are made, so that a killed run goes on
    """
    cases = named_cases(degradation_for(settings, source).for_tests().build())
    mine = range(accelerator.process_index, len(source), accelerator.num_processes)
    total, done = len(source) * len(cases), 0
    for number, (_, degradation) in enumerate(cases):
        views = TestSamples(source, settings.scale, settings.seed, draw_of(degradation, source), size_rule=settings.dataset.size_rule)
        waiting = [index for index in mine if not (folder / f"{number}_{index}.npz").exists()]
        done += len(mine) - len(waiting)
        restoring = restore_images(
            methods[0], (views[index] for index in waiting), degradation, settings.sampler, settings.seed, accelerator.device
        )
        with during("calibration"):
            for index, restored in zip(waiting, restoring, strict=True):
                drawn = restored_draws(methods, restored.batch, settings.sampler, settings.seed, samples, restored.image)
                pixels = pixels_of(restored, drawn, settings.seed)
                folder.mkdir(parents=True, exist_ok=True)
                write_arrays(folder / f"{number}_{index}.npz", {"error": pixels.error, "spread": pixels.spread})
                done += 1
                if accelerator.is_main_process:
                    tracker.progress("restoring", min(done * accelerator.num_processes, total), total)
    wait_for_all(accelerator)
    found = {}
    for index in range(len(source)):
        parts = [np.load(folder / f"{number}_{index}.npz") for number in range(len(cases))]
        error, spread = (np.concatenate([part[name] for part in parts]).astype(np.float64) for name in ("error", "spread"))
        if len(error):
            found[source.name(index)] = Pixels(error, spread)
        else:
            say([f"caution  {source.name(index)} has no valid pixel and is left out"])
    return found


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


def by_class(images: ByImage, labels: Mapping[str, str], calibration: Calibration) -> dict[str, tuple[int, float]]:
    """Return (images, coverage of 90 %) by class folder; nothing for data without classes."""
    classes = sorted({labels[name] for name in images} - {""})
    members = {label: [pixels for name, pixels in images.items() if labels[name] == label] for label in classes}
    return {label: (len(own), coverages(own, calibration)[0.9]) for label, own in members.items()}


def told(
    calibration: Calibration,
    before: Mapping[float, float],
    after: Mapping[float, float],
    classes: Mapping[str, tuple[int, float]],
    tried: int,
) -> str:
    """Return what was found, in Markdown."""
    lines = [
        f"# Intervals of {calibration.samples} samples",
        "",
        f"Fitted on {calibration.images} images: error = hypot({calibration.factor:.3g} x spread, {calibration.floor:.3g} of the range).",
        "",
    ]
    if tried:
        lines += [
            f"Share of HR values within the intervals, over {tried} images that they were not fitted on:",
            "",
            "| level | calibrated | as drawn | reaches, in errors |",
            "|---:|---:|---:|---:|",
            *(
                f"| {level:g} | {_share(after[level])} | {_share(before[level])} | {calibration.reaches[level]:.3g} |"
                for level in LEVELS
                if math.isfinite(calibration.reaches[level])
            ),
        ]
    if classes:
        lines += ["", "| class | images | within 90 % |", "|---|---:|---:|"]
        lines += [f"| {label} | {count} | {_share(share)} |" for label, (count, share) in classes.items()]
    beyond = [level for level in LEVELS if not math.isfinite(calibration.reaches[level])]
    if beyond:
        lines += ["", f"Levels {', '.join(f'{level:g}' for level in beyond)} take more images."]
    others = calibration.images - calibration.images // 4
    extreme = [level for level in LEVELS if math.isfinite(calibration.reaches[level]) and level > (others - 1) / (others + 1)]
    if extreme:
        lines += [
            "",
            f"Intervals of {', '.join(f'{level:g}' for level in extreme)} reach about as far as the largest error of {others} images; "
            "calibrate on more images for narrower ones.",
        ]
    return "\n".join([*lines, ""])


def _share(value: float) -> str:
    return f"{value:.3f}"
