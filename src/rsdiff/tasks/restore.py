"""task=restore: enlarge whole rasters with a checkpoint, georeferenced, without seams, continued after a kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from rsdiff.config import ConfigError, UserError
from rsdiff.data.opening import without_warnings
from rsdiff.inference.many_scenes import readable_inputs, require_ours, require_space, restore_scenes
from rsdiff.inference.scene_input import SceneReader
from rsdiff.inference.scene_job import Restorer, SceneResult
from rsdiff.inference.scene_output import ENDINGS
from rsdiff.methods.base import Problem
from rsdiff.reporting.scene_page import page_of, write_preview
from rsdiff.runs import calibrations
from rsdiff.runs.console import say
from rsdiff.runs.inputs import outputs_of
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks import plan
from rsdiff.tasks.experiment import make_accelerator, methods_beside, say_scales, weights_beside
from rsdiff.tasks.options import RestoreTask
from rsdiff.tasks.speeding import sped_up
from rsdiff.tracking import Tracker
from rsdiff.training.built import build_method, method_from
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.training.origin import origin_of
from rsdiff.training.processes import Processes


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Restore every raster that `input` names."""
    task = settings.task
    assert isinstance(task, RestoreTask)
    assert settings.options.input is not None
    assert settings.output is not None
    accelerator = make_accelerator(tf32=task.tf32)
    inputs = settings.inputs
    places = dict(
        zip(inputs, outputs_of(inputs, settings.options.input, settings.output, settings.scale, ENDINGS[task.format]), strict=True)
    )
    if not task.overwrite:
        require_ours(list(places.values()))
    readable, failures = readable_inputs(inputs, task)
    stored = calibration_of(settings, task)
    restorer = restorer_of(settings, readable[0], task, accelerator, stored)
    task = sped_up(task, settings, folder, restorer.method, restorer.problem, accelerator)
    if accelerator.is_main_process:
        folder.require_space(require_space({path: places[path] for path in readable}, settings.scale, task, restorer.problem.bands))
        say([plan.restoration(settings, restorer.method.parameter_count(), readable, accelerator)])
    results, failures = restore_scenes(
        restorer, places, failures, task, folder.path / "scenes", Processes(accelerator), tracker.progress, write_preview
    )
    return told(results, failures, calibrations.sentences(stored, task.samples)) if accelerator.is_main_process else TaskResult([])


def calibration_of(settings: RunSettings, task: RestoreTask) -> calibrations.Stored | None:
    """Return the calibration of the run's samples, if there is one; raises UserError where a level was typed that needs one."""
    stored = calibrations.find(settings.scale, settings.sampler, settings.starting_point, task.calibration, task.samples, settings.beside)
    if stored is None and task.samples > 1 and task.level != RestoreTask().level:
        raise UserError(
            f"task.level={task.level:g} is of calibrated samples, and there is no calibration of {task.samples} samples at this scale with "
            "this sampler; make one with task=calibrate, or leave task.level out."
        )
    return stored


def restorer_of(
    settings: RunSettings, first: Path, task: RestoreTask, accelerator: Accelerator, stored: calibrations.Stored | None
) -> Restorer:
    """Return what restores: the checkpoint and those beside it, or a method without weights (bicubic) for the bands of the first raster."""
    if settings.checkpoint is not None:
        checkpoint = read_checkpoint(settings.checkpoint)
        trained = method_from(checkpoint, settings.scale, settings.model)
        say_scales(checkpoint, settings.scale)
        method, problem, normaliser, wavelengths = trained.method, trained.problem, trained.normaliser, trained.wavelengths
        beside, origin = methods_beside(settings, checkpoint, task.samples), origin_of(checkpoint, (), method)
    elif not settings.model.is_ready:
        raise ConfigError(
            f"model={settings.choices['model']} has weights to learn, so task=restore needs checkpoint=RUN_FOLDER; "
            "or leave model= out and give checkpoint=zoo:any_scale."
        )
    else:
        with without_warnings(), SceneReader(first, task.view()) as reader:
            problem = Problem(settings.scale, len(reader.bands), len(reader.bands))
        method, normaliser, wavelengths = build_method(settings.model, problem, settings.seed).eval(), None, ()
        beside = methods_beside(settings, None, task.samples)
        origin = origin_of(None, settings.model.files, method)
    for one in (method, *beside):
        one.to(accelerator.device)
        if task.channels_last:
            one.to(memory_format=torch.channels_last)
    return Restorer(
        method=method,
        problem=problem,
        scale=settings.scale,
        sampler=settings.sampler,
        trained=normaliser,
        needs=settings.model.requires - {"hr", "lr"},
        seed=settings.seed,
        device=accelerator.device,
        identity=settings.choices["model"],
        weights="; ".join(["" if origin is None else str(origin), *weights_beside(settings, beside)]),
        wavelengths=wavelengths,
        beside=beside,
        calibration=None if stored is None else stored.calibration,
    )


def told(results: Mapping[Path, SceneResult], failures: Mapping[Path, str], said: Sequence[str]) -> TaskResult:
    """Return the lines to print; `said` are sentences on the run."""
    messages = []
    for source, result in results.items():
        (h, w), (H, W) = result.input_size, result.size
        seams = "" if np.isnan(result.seam_score) else f", seam score {result.seam_score:.3f}"
        tiles = "one tile" if result.tiles == 1 else f"{result.tiles} tiles"
        messages.append(f"{source.name}: {w} x {h} to {W} x {H} pixels in {tiles} of {result.tile}{seams}")
        if result.outside:
            messages.append(f"  {result.outside_told}")
        messages += [f"  {path}" for path in result.outputs]
    first = next(iter(results.values()))
    page = page_of(first.outputs[0])
    if page.exists():
        messages.append(f"before and after: {page}")
    messages += said
    messages += [f"{source} failed: {reason}" for source, reason in failures.items()]
    scores = [result.seam_score for result in results.values() if not np.isnan(result.seam_score)]
    summary: dict[str, float | int | str] = {
        "scenes": len(results),
        "megapixels": round(sum(result.size[0] * result.size[1] for result in results.values()) / 1e6, 3),
        "seam_score": max(scores) if scores else float("nan"),
        "values_outside": sum(result.outside for result in results.values()),
    }
    made = [path for result in results.values() for path in result.outputs]
    failure = ""
    if failures:
        source, reason = next(iter(failures.items()))
        failure = f"{len(failures)} of {len(results) + len(failures)} scenes failed, first {source.name}: {reason}"
    return TaskResult(messages, summary, page if page.exists() else first.outputs[0], made, failure)
