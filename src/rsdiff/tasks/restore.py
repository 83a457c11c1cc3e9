"""task=restore: enlarge whole rasters with a checkpoint, georeferenced, without seams, continued after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
import rasterio.windows
import torch
from accelerate import Accelerator
from rasterio.enums import Resampling

from rsdiff.config import ConfigError, UserError
from rsdiff.data.durable import write_json
from rsdiff.data.normalisation import Normaliser
from rsdiff.data.opening import in_one_sentence, without_warnings
from rsdiff.data.source import DataError
from rsdiff.inference.scene_input import STRICT, SceneReader
from rsdiff.inference.scene_job import SceneJob, SceneResult
from rsdiff.inference.scene_output import ENDINGS, is_ours, output_form
from rsdiff.inference.scenes import restore_scene
from rsdiff.methods.base import Method, Problem
from rsdiff.reporting import BeforeAfter, write_scene_page
from rsdiff.reporting.display import busiest_window
from rsdiff.runs.console import say
from rsdiff.runs.inputs import outputs_of
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks import calibrations, plan
from rsdiff.tasks.experiment import build_method, make_accelerator, method_from, methods_beside, weights_beside
from rsdiff.tasks.options import RestoreTask
from rsdiff.tasks.speeding import sped_up
from rsdiff.tracking import Tracker
from rsdiff.training.checkpoints import find_checkpoint, read_checkpoint
from rsdiff.training.origin import origin_of
from rsdiff.training.processes import any_process, smallest_of_processes

PREVIEW_SIDE, DETAIL_SIDE = 900, 360
"""Longest side of the preview and side of the detail, in target pixels."""


@dataclass(frozen=True)
class Restorer:
    """What restores: a method, the problem it was built for, of the data it was trained on, if any, the normaliser and wavelengths, and
    which weights it has."""

    method: Method
    problem: Problem
    trained: Normaliser | None
    wavelengths: tuple[float, ...] = ()
    weights: str = ""


class Processes:
    """The team of an Accelerate launch."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank: int = accelerator.process_index
        self.count: int = accelerator.num_processes

    def any(self, mine: bool) -> bool:
        return any_process(self.accelerator, mine)

    def smallest(self, mine: int) -> int:
        return smallest_of_processes(self.accelerator, mine)


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Restore every raster that `input` names."""
    task = settings.task
    assert isinstance(task, RestoreTask)
    assert settings.options.input is not None
    assert settings.output is not None
    accelerator = make_accelerator(tf32=task.tf32)
    inputs = settings.inputs
    outputs = outputs_of(inputs, settings.options.input, settings.output, settings.scale, ENDINGS[task.format])
    if not task.overwrite:
        require_ours(outputs)
    failures: dict[Path, str] = {}
    with without_warnings():
        readable = readable_inputs(inputs, task, failures)
    restorer = build_restorer(settings, readable[0])
    beside = () if settings.checkpoint is None else methods_beside(settings, read_checkpoint(settings.checkpoint), task.samples)
    for one in (restorer.method, *beside):
        one.to(accelerator.device)
        if task.channels_last:
            one.to(memory_format=torch.channels_last)
    task = sped_up(task, settings, folder, restorer.method, restorer.problem, accelerator)
    adds_bands = restorer.problem.bands != restorer.problem.lr_bands
    options = replace(task, wavelengths=restorer.wavelengths) if adds_bands and not task.wavelengths else task
    if accelerator.is_main_process:
        with without_warnings():
            require_space({path: outputs[inputs.index(path)] for path in readable}, folder, settings.scale, task, restorer.problem.bands)
        say([plan.restoration(settings, restorer.method.parameter_count(), readable, accelerator)])
    place = None if settings.checkpoint is None else find_checkpoint(settings.checkpoint)
    stored = calibrations.find(settings.scale, settings.sampler, place, task.calibration, task.samples, settings.beside)
    if stored is None and task.samples > 1 and task.level != RestoreTask().level:
        raise UserError(
            f"task.level={task.level:g} is of calibrated samples, and there is no calibration of {task.samples} samples at this scale with "
            "this sampler; make one with task=calibrate, or leave task.level out."
        )
    results: dict[Path, SceneResult] = {}
    for number, (source, target) in enumerate(zip(inputs, outputs, strict=True)):
        if source in failures:
            continue
        what = f"restoring {source.name}" + (f" ({number + 1} of {len(inputs)})" if len(inputs) > 1 else "")
        job = SceneJob(
            input=source,
            output=target,
            scratch=folder.path / "scenes" / f"{number:04d}",
            method=restorer.method,
            problem=restorer.problem,
            scale=settings.scale,
            sampler=settings.sampler,
            options=options,
            trained=restorer.trained,
            needs=settings.model.requires - {"hr", "lr"},
            seed=settings.seed,
            device=accelerator.device,
            identity=settings.choices["model"],
            weights="; ".join([restorer.weights, *weights_beside(settings, beside)]),
            beside=beside,
            calibration=None if stored is None else stored.calibration,
        )
        try:
            results[source] = restore_or_skip(job, Processes(accelerator), folder, tracker, what)
        except UserError as error:
            # Several processes wait for each other within a scene: where one fails alone, the others cannot go on without it.
            if len(inputs) == 1 or accelerator.num_processes > 1 or isinstance(error, OSError):
                raise
            failures[source] = str(error)
    if not accelerator.is_main_process:
        return TaskResult([])
    if not results:
        raise UserError(next(iter(failures.values())))
    return told(settings, results, failures, calibrations.sentences(stored, task.samples))


def readable_inputs(inputs: Sequence[Path], task: RestoreTask, failures: dict[Path, str]) -> list[Path]:
    """Return the inputs that can be opened, and note why the others cannot; raises DataError where it is the only one, or all."""
    readable = []
    for path in inputs:
        try:
            with SceneReader(path, task.view()):
                readable.append(path)
        except DataError as error:
            failures[path] = str(error)
    if not readable:
        raise DataError(next(iter(failures.values())))
    return readable


def require_ours(outputs: Sequence[Path]) -> None:
    """Raise UserError where an output exists that rsdiff did not write."""
    foreign = [path for path in outputs if path.exists() and not is_ours(path)]
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise UserError(
            f"{foreign[0]}{more} exists and was not written by rsdiff; choose another output, or replace it with task.overwrite=true."
        )


def restore_or_skip(job: SceneJob, team: Processes, folder: RunFolder, tracker: Tracker, what: str) -> SceneResult:
    """Restore a scene, or return what an earlier process of this run wrote of it."""
    note = job.scratch.with_suffix(".json")
    earlier = SceneResult.from_json(note)
    if not team.any(earlier is None or not all(path.exists() for path in earlier.outputs)):
        assert earlier is not None
        if team.rank == 0 and job.options.preview and not page_of(earlier.outputs[0]).exists():
            with rasterio.Env(**STRICT), without_warnings():
                preview(job, earlier)
        return earlier

    def progress(done: int, total: int) -> None:
        if team.rank == 0:
            tracker.progress(f"{what}, percent", 100 * done // max(total, 1), 100)

    result = restore_scene(job, team, progress)
    if team.rank == 0:
        if job.options.preview:
            with rasterio.Env(**STRICT), without_warnings():
                preview(job, result)
        write_json(note, result.to_json())
    team.any(False)
    return result


def told(settings: RunSettings, results: Mapping[Path, SceneResult], failures: Mapping[Path, str], said: Sequence[str]) -> TaskResult:
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
    if settings.task.preview:  # type: ignore[attr-defined]
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


def build_restorer(settings: RunSettings, first: Path) -> Restorer:
    """Return the method of the checkpoint, or a method without weights (bicubic) for the bands of the first raster."""
    if settings.checkpoint is not None:
        checkpoint = read_checkpoint(settings.checkpoint)
        trained = method_from(checkpoint, settings.scale, settings.model)
        wavelengths = tuple(float(value) for value in checkpoint.card.get("wavelengths", ()))
        normaliser = Normaliser.from_json(checkpoint.card["normaliser"])
        return Restorer(trained.method, trained.problem, normaliser, wavelengths, str(origin_of(checkpoint, (), trained.method)))
    task = settings.task
    assert isinstance(task, RestoreTask)
    with without_warnings(), SceneReader(first, task.view()) as reader:
        bands = len(reader.bands)
    problem = Problem(settings.scale, bands, bands)
    if not settings.model.is_ready:
        raise ConfigError(f"model={settings.choices['model']} has weights to learn, so task=restore needs checkpoint=RUN_FOLDER.")
    method = build_method(settings.model, problem, settings.seed)
    method.eval()
    origin = origin_of(None, settings.model.files, method)
    return Restorer(method, problem, None, weights="" if origin is None else str(origin))


def require_space(outputs: Mapping[Path, Path], folder: RunFolder, scale: float, options: RestoreTask, bands: int) -> None:
    """Open every raster and raise an error in one sentence if one cannot be read, or if a disk has too little space for the results.

    outputs  raster -> what it becomes
    The finished blocks are stored uncompressed until the raster is written, beside two rows of tiles.
    """
    written, largest = 0, 0
    for path, output in outputs.items():
        with SceneReader(path, options.view()) as reader:
            form = output_form(reader, options, bands, output)
            pixels = round(reader.height * scale) * round(reader.width * scale)
            size = pixels * (form.stored_bands * form.dtype.itemsize + (8 * bands if options.samples > 1 else 0))
            rows = 2 * 1024 * round(reader.width * scale) * bands * 4 * options.samples
        written += size
        largest = max(largest, size + min(rows, 4 * pixels * bands * options.samples))
    folder.require_space(largest)
    first = next(iter(outputs.values()))
    place = next(parent for parent in first.resolve().parents if parent.exists())
    free = shutil.disk_usage(place).free
    needed = written if options.compress == "none" else written // 2
    if free < needed:
        raise OSError(
            f"the disk of output={first} has {free / 2**30:.1f} GiB left and the result may need {needed / 2**30:.1f} GiB; "
            "free some or choose another folder."
        )


def page_of(output: Path) -> Path:
    """Return the before/after page of an output."""
    return output.with_name(f"{output.stem}_preview.html")


def preview(job: SceneJob, result: SceneResult) -> None:
    """Write the preview PNG and the before/after page beside the output."""
    H, W = result.size
    share = min(1.0, PREVIEW_SIDE / max(H, W))
    whole = images_of(job, result, (0, 0, H, W), (max(1, round(H * share)), max(1, round(W * share))))
    top, left, side, _ = busiest_window(whole[1], share=0.1)
    centre = ((top + side / 2) / share, (left + side / 2) / share)
    extent = [min(DETAIL_SIDE, length) for length in (H, W)]
    first = [min(max(0, round(c - e / 2)), length - e) for c, e, length in zip(centre, extent, (H, W), strict=True)]
    detail = images_of(job, result, (first[0], first[1], extent[0], extent[1]), (extent[0], extent[1]))
    facts = [
        ("Input", f"{result.input_size[1]} x {result.input_size[0]} px"),
        ("Restored", f"{W} x {H} px"),
        ("Model", job.identity),
        *([("Weights", job.weights)] if job.weights else []),
        ("Scale", f"x{job.scale:g}"),
        ("Seed", str(job.seed)),
        ("Tiles", f"{result.tiles} of {result.tile} px"),
        ("Seam score", "none" if np.isnan(result.seam_score) else f"{result.seam_score:.3f}"),
    ]
    pairs = [BeforeAfter("Scene", *whole), BeforeAfter("Detail", *detail)]
    page = page_of(result.outputs[0])
    write_scene_page(page, page.with_suffix(".png"), f"{job.input.name}, x{job.scale:g}", facts, pairs, (0, 1, 2))


def images_of(
    job: SceneJob, result: SceneResult, window: tuple[int, int, int, int], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input and restored image in [0, 1] of a window (top, left, height, width) of target pixels, decimated to `size`.

    NaN marks missing pixels.
    """
    top, left, height, width = window
    with SceneReader(job.input, job.options.view()) as reader:
        low = [int(top // job.scale), int(left // job.scale)]
        high = [int(np.ceil((top + height) / job.scale)), int(np.ceil((left + width) / job.scale))]
        extent = [max(1, min(h, limit) - first) for h, limit, first in zip(high, (reader.height, reader.width), low, strict=True)]
        small = (max(1, min(extent[0], size[0])), max(1, min(extent[1], size[1])))
        before = reader.thumbnail(low[0], low[1], extent[0], extent[1], small)
    with in_one_sentence(result.outputs[0]), rasterio.open(result.outputs[0]) as file:
        part = rasterio.windows.Window(left, top, width, height)
        count = min(job.problem.bands, file.count)
        options = {"window": part, "out_shape": (count, *size), "resampling": Resampling.nearest}
        values = file.read(list(range(1, count + 1)), **options)
        valid = file.read_masks(list(range(1, count + 1)), **options) > 0
    if count < len(before[0]):  # a scene of one band that was shown to the model three times
        values, valid = values.repeat(len(before[0]), axis=0), valid.repeat(len(before[0]), axis=0)
    normaliser = Normaliser(*result.value_range)
    after = np.where(valid, normaliser.normalise(values), np.nan)
    shown = np.where(before[1], normaliser.normalise(before[0]), np.nan)
    return torch.from_numpy(shown), torch.from_numpy(after)
