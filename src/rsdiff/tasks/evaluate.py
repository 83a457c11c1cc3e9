"""task=evaluate: score a checkpoint, or a method without weights (bicubic), on the test images and write the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor

from rsdiff.data.source import DataError
from rsdiff.inference.images import Restored
from rsdiff.methods.base import Method
from rsdiff.metrics.baseline import BICUBIC, bicubic
from rsdiff.reporting import RunFacts
from rsdiff.reporting.uncertainty import uncertainty_tables
from rsdiff.runs import calibrations
from rsdiff.runs.command import restore_with
from rsdiff.runs.console import say, say_once
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks import plan, used_data
from rsdiff.tasks.baseline import baseline_for, needs_training_images
from rsdiff.tasks.evaluation import CaseResult, Row, TestCase, build_test_cases, evaluate_case
from rsdiff.tasks.experiment import make_accelerator, methods_beside, problem_of, tested_method, weights_beside
from rsdiff.tasks.options import EvaluateTask
from rsdiff.tasks.results import page_facts, summary_row, write_results
from rsdiff.tasks.speeding import sped_up
from rsdiff.tracking import Tracker
from rsdiff.training.checkpoints import Checkpoint
from rsdiff.training.origin import origin_of


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Evaluate `settings.checkpoint`, or the method with its initial weights where it has none to learn."""
    task = settings.task
    assert isinstance(task, EvaluateTask)
    accelerator = make_accelerator(tf32=task.tf32)
    test = settings.split("test")
    problem = problem_of(settings, test)
    method, checkpoint = tested_method(settings, problem)
    used_data.require_new(settings, test, checkpoint)
    beside = methods_beside(settings, checkpoint, task.samples)
    for one in (method, *beside):
        one.to(accelerator.device)
        if task.channels_last:
            one.to(memory_format=torch.channels_last)
    baseline = BICUBIC
    if needs_training_images(settings, problem):
        try:
            baseline = baseline_for(settings, problem, settings.split("train"))
        except DataError as reason:
            say([f"the linear regression is left out: {reason}"])
    task = sped_up(task, settings, folder, method, problem, accelerator)
    settings = replace(settings, task=task)
    place = None if checkpoint is None else checkpoint.folder
    stored = calibrations.find(settings.scale, settings.sampler, place, task.calibration, task.samples, settings.beside)
    cases = build_test_cases(settings, test, problem.bands, accelerator.device, baseline, stored, method.predicts_quantiles)
    said = [
        *used_data.sentences(settings, test, checkpoint=checkpoint),
        *weights_beside(settings, beside),
        *calibrations.sentences(stored, task.samples, test),
    ]
    if accelerator.is_main_process:
        tracker.rewind(0)
        say(said)
        say_once(cases[0].evaluator.check())
        say([plan.evaluation(settings, method.parameter_count(), len(test), accelerator)])
    return report(settings, method, cases, checkpoint, folder, tracker, accelerator, said, beside)


def report(
    settings: RunSettings,
    method: Method,
    cases: Sequence[TestCase],
    checkpoint: Checkpoint | None,
    folder: RunFolder,
    tracker: Tracker,
    accelerator: Accelerator,
    said: Sequence[str],
    beside: Sequence[Method] = (),
) -> TaskResult:
    """Evaluate every test case and write records, tables and the report into the run's folder; print the table.

    said    sentences about the data that were used
    beside  methods that restore further samples
    """
    results = []
    for case in cases:

        def progress(done: int, total: int, name: str = case.name) -> None:
            if accelerator.is_main_process:
                tracker.progress("evaluating" + (f" {name}" if name else ""), done, total)

        place = folder.path / "evaluation" / case.name if case.name else folder.path / "evaluation"
        results.append(evaluate_case(settings, method, case, place, accelerator, settings.metrics.panels, progress, beside))
    rows = [named_row(result, row) for result in results for row in result.rows]
    summary = cases[0].evaluator.summary(rows)
    figures = summary_row(summary)
    if not accelerator.is_main_process:
        return TaskResult([], figures)
    facts = run_facts(settings, method, checkpoint, folder, said)
    by_case = [(result.name, result.summary) for result in results if result.name]
    panels = [panel for result in results for panel in result.panels]
    samples = settings.task.samples if isinstance(settings.task, EvaluateTask) else 1
    uncertainty = uncertainty_tables(rows, math.inf if method.predicts_quantiles else samples)
    written = write_results(folder, tracker, facts, summary, rows, by_case, panels, said, uncertainty)
    return TaskResult(
        messages=[
            *written.shown,
            f"seed {settings.seed}",
            *([f"weights  {facts.weights}"] if facts.weights is not None else []),
            f"report   {written.page}",
            f"records  {folder.path / 'evaluation' / 'records.csv'}",
            *([f"next     {restore_with(checkpoint.name)}"] if checkpoint else []),
        ],
        summary=figures,
        report=written.page,
        files=written.files,
    )


def named_row(result: CaseResult, row: Row) -> Row:
    """Return a row whose name is unique over the test cases."""
    return row if not result.name else {**row, "name": f"{result.name}/{row['name']}", "degradation": result.name}


def run_facts(settings: RunSettings, method: Method, checkpoint: Checkpoint | None, folder: RunFolder, said: Sequence[str]) -> RunFacts:
    """Return what the report says of the run besides its figures."""
    card = checkpoint.card if checkpoint is not None else {}
    weights = origin_of(checkpoint, settings.model.files, method)
    facts = {
        "Model": settings.choices["model"],
        "Parameters": f"{method.parameter_count():,}".replace(",", " "),
        **(weights.facts() if weights is not None else {}),
        "Data set": settings.choices["dataset"],
        "Degradation": settings.choices["degradation"],
        "Scale": f"x{settings.scale:g}",
        "Sampler": settings.choices["sampler"],
        "Seed": str(settings.seed),
        "Data": " ".join(" ".join(said).split()).removeprefix("data "),
    }
    if checkpoint is not None and weights is not None and not weights.is_foreign:
        facts |= {
            "Training steps": str(card["step"]),
            "Images seen": str(card.get("images", "unknown")),
            "Checkpoint": checkpoint.folder.name,
            **({"Trained with": str(card["computed_with"])} if "computed_with" in card else {}),
        }
    released = f" ({weights.file})" if weights is not None and weights.is_foreign else ""
    return page_facts(
        settings,
        folder,
        f"{settings.choices['model']}{released} on {settings.choices['dataset']}, x{settings.scale:g}",
        facts,
        weights.budget if weights is not None else "none",
        str(weights) if weights is not None else None,
    )


def strip(restored: Restored, rgb_bands: tuple[int, int, int]) -> Tensor:
    """Return input (bicubic), restoration and target of a batch's first image side by side, (3, H, n W), for the log."""
    batch = restored.batch
    lr, image = batch.need("lr")[:1], restored.image[:1]
    parts = [image] if batch.hr is None else [image, batch.hr[:1]]
    if lr.shape[1] == image.shape[1]:
        parts.insert(0, bicubic(lr[0], batch.size)[None])
    shown = [
        part[:, list(rgb_bands)] if part.shape[1] > 3 else part[:, :1].expand(-1, 3, -1, -1) if part.shape[1] != 3 else part
        for part in parts
    ]
    return torch.cat([part[0].float().clamp(0, 1).cpu() for part in shown], dim=-1)
