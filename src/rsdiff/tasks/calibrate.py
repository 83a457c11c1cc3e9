"""task=calibrate: how wide intervals must be to hold the share of HR pixels that they name; fitted on some images, tried on the others.

The calibration is stored with the checkpoint. From then on task=evaluate and task=restore with the same number of samples use it.
"""

from __future__ import annotations

from rsdiff.config import ConfigError, UserError
from rsdiff.data.digests import short_digests
from rsdiff.data.durable import write_json
from rsdiff.data.splits import name_position
from rsdiff.inference.calibrating import measure_pixels
from rsdiff.metrics.calibration import LEAST_IMAGES, as_drawn, coverages, fitted
from rsdiff.reporting.calibration import by_class, calibration_text
from rsdiff.reporting.records import write_text
from rsdiff.reporting.uncertainty import reliability_figure
from rsdiff.runs import calibrations
from rsdiff.runs.command import next_command
from rsdiff.runs.console import say
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import make_accelerator, methods_beside, problem_of, sets_to_test, tested_method
from rsdiff.tasks.options import CalibrateTask
from rsdiff.tracking import Tracker
from rsdiff.training.processes import Processes
from rsdiff.weights.stores import is_zoo


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
    found = measure_pixels(
        methods,
        sets_to_test(settings, source),
        settings.sampler,
        settings.seed,
        task.samples,
        folder.path / "pixels",
        Processes(accelerator),
        lambda done, total: tracker.progress("restoring", done, total),
    )
    if not accelerator.is_main_process:
        return TaskResult([])
    say([f"caution  {name} has no valid pixel and is left out" for name in names if name not in found])
    fit_on = [name for name in fit_on if name in found]
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
    before, after = (coverages(tried.values(), one) for one in (as_drawn(task.samples, method.predicts_quantiles), calibration))
    what = "quantiles" if method.predicts_quantiles else "samples"
    text = calibration_text(calibration, before, after, by_class(tried, labels, calibration), len(tried), what)
    write_text(folder.path / "results.md", text)
    series = {"calibrated": after, "uncalibrated": before} if tried else {}
    write_text(folder.path / "reliability.svg", reliability_figure(series, standalone=True) or "")
    write_json(folder.path / calibrations.FILE, stored.to_json())
    kept = folder.path / calibrations.FILE if is_zoo(checkpoint.folder) else calibrations.keep(stored, checkpoint)
    use = [f"task.calibration={folder.path}"] if is_zoo(checkpoint.folder) else []
    restore = ["task=restore", f"checkpoint={checkpoint.name}", f"task.samples={task.samples}", *use]
    return TaskResult(
        messages=[
            text.strip(),
            f"stored   {kept}",
            f"next     {next_command(*restore, 'input=IMAGE', 'output=RESTORED.tif')}",
        ],
        summary={"images": len(fit_on), "tried": len(tried), "coverage": after[0.9], "coverage_as_drawn": before[0.9]},
        report=folder.path / "results.md",
        files=[folder.path / calibrations.FILE, kept],
    )
