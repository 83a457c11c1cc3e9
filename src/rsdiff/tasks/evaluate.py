"""task=evaluate: score a checkpoint, or a method without weights (bicubic), on the test images and write the report."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from PIL import Image
from rich.console import Console
from torch import Tensor

from rsdiff.config import ConfigError
from rsdiff.data.source import DataError
from rsdiff.inference.images import Restored
from rsdiff.methods.base import Method
from rsdiff.metrics.baseline import BICUBIC, bicubic
from rsdiff.metrics.summary import Summary
from rsdiff.reporting import RunFacts, console_table, markdown_table, write_records, write_report
from rsdiff.reporting.records import CSV, PARQUET, write_summaries, write_text
from rsdiff.runs.console import say
from rsdiff.runs.provenance import provenance
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks import used_data
from rsdiff.tasks.baseline import baseline_for, needs_training_images
from rsdiff.tasks.evaluation import CaseResult, Row, TestCase, build_test_cases, evaluate_case
from rsdiff.tasks.experiment import build_method, make_accelerator, method_from, problem_of
from rsdiff.tracking import Tracker, read_history
from rsdiff.training.checkpoints import Checkpoint, read_checkpoint
from rsdiff.training.origin import origin_of


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Evaluate `settings.checkpoint`, or the method with its initial weights where it has none to learn."""
    accelerator = make_accelerator()
    checkpoint = read_checkpoint(settings.checkpoint) if settings.checkpoint is not None else None
    test = settings.split("test")
    used_data.require_new(settings, test, checkpoint)
    problem = problem_of(settings, test)
    if checkpoint is not None:
        trained = method_from(checkpoint, settings.scale, settings.model)
        method = trained.method
        if (trained.problem.bands, trained.problem.lr_bands) != (problem.bands, problem.lr_bands):
            raise ValueError(
                f"the checkpoint was trained on {trained.problem.lr_bands} to {trained.problem.bands} bands and "
                f"dataset={settings.choices['dataset']} has {problem.lr_bands} to {problem.bands}; choose data with as many bands."
            )
    else:
        if not settings.model.is_ready:
            raise ConfigError(f"model={settings.choices['model']} has weights to learn, so task=evaluate needs checkpoint=RUN_FOLDER.")
        method = build_method(settings.model, problem, settings.seed)
        method.eval()
    method.to(accelerator.device)
    baseline = BICUBIC
    if needs_training_images(settings, problem):
        try:
            baseline = baseline_for(settings, problem, settings.split("train"))
        except DataError as reason:
            say([f"the linear regression is left out: {reason}"])
    cases = build_test_cases(settings, test, problem.bands, accelerator.device, baseline)
    said = used_data.sentences(settings, test, checkpoint=checkpoint)
    if accelerator.is_main_process:
        tracker.rewind(0)
        say(said)
        say(cases[0].evaluator.check())
    return report(settings, method, cases, checkpoint, folder, tracker, accelerator, said)


def report(
    settings: RunSettings,
    method: Method,
    cases: Sequence[TestCase],
    checkpoint: Checkpoint | None,
    folder: RunFolder,
    tracker: Tracker,
    accelerator: Accelerator,
    said: Sequence[str],
) -> TaskResult:
    """Evaluate every test case and write records, tables and the report into the run's folder; print the table.

    said  sentences about the data that were used
    """
    results = []
    for case in cases:

        def progress(done: int, total: int, name: str = case.name) -> None:
            if accelerator.is_main_process:
                tracker.progress("evaluating" + (f" {name}" if name else ""), done, total)

        place = folder.path / "evaluation" / case.name if case.name else folder.path / "evaluation"
        results.append(evaluate_case(settings, method, case, place, accelerator, settings.metrics.panels, progress))
    rows = [named_row(result, row) for result in results for row in result.rows]
    summary = cases[0].evaluator.summary(rows)
    figures = summary_row(summary)
    if not accelerator.is_main_process:
        return TaskResult([], figures)
    facts = run_facts(settings, method, checkpoint, folder, said)
    records = write_records(folder.path / "evaluation", rows)
    by_case = [(result.name, result.summary) for result in results if result.name]
    write_summaries(folder.path / "evaluation", summary, by_case)
    panels = [panel for result in results for panel in result.panels]
    page = write_report(folder.path, facts, summary, records, panels, read_history(folder.path), by_case)
    tables = markdown_table(summary) + "".join(f"\n### {name}\n\n{markdown_table(part)}" for name, part in by_case)
    named = [f"weights {facts.weights}"] if facts.weights is not None else []
    write_text(folder.path / "results.md", f"# {facts.title}\n\n" + "".join(f"    {line}\n" for line in [*said, *named]) + f"\n{tables}")
    tracker.table("results", [figures] if not by_case else [{"degradation": name, **summary_row(part)} for name, part in by_case])
    for panel in panels[:4]:
        tracker.image(f"panels/{panel.stem}", read_picture(panel.with_suffix(".sr.png")))
    shown = [as_text(part, name) for name, part in by_case] or [as_text(summary, facts.title)]
    return TaskResult(
        messages=[
            *shown,
            f"seed {settings.seed}",
            *([f"weights  {facts.weights}"] if facts.weights is not None else []),
            f"report   {page}",
            f"records  {folder.path / 'evaluation' / 'records.csv'}",
            *(
                [f"next     python run.py task=restore checkpoint={checkpoint.folder} input=IMAGE output=RESTORED.tif"]
                if checkpoint
                else []
            ),
        ],
        summary=figures,
        report=page,
        files=[page, folder.path / "results.md", folder.path / "evaluation" / CSV, folder.path / "evaluation" / PARQUET],
    )


def named_row(result: CaseResult, row: Row) -> Row:
    """Return a row whose name is unique over the test cases."""
    return row if not result.name else {**row, "name": f"{result.name}/{row['name']}", "degradation": result.name}


def summary_row(summary: Summary) -> dict[str, float | int | str]:
    """Return the means as one flat row: psnr, bicubic_psnr (or linear_psnr), ..., images, seconds_per_image."""
    row: dict[str, float | int | str] = {}
    for entry in summary.metrics:
        row[entry.metric.name] = entry.mean
        if entry.baseline is not None:
            row[f"{summary.baseline}_{entry.metric.name}"] = entry.baseline
    return {**row, "images": summary.images, "seconds_per_image": summary.seconds_per_image}


def run_facts(settings: RunSettings, method: Method, checkpoint: Checkpoint | None, folder: RunFolder, said: Sequence[str]) -> RunFacts:
    """Return what the report says of the run besides its figures."""
    card = checkpoint.card if checkpoint is not None else {}
    weights = origin_of(checkpoint, settings.model.files, method)
    origin = provenance(folder.command, folder.repository)
    git = origin["git"]
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
        }
    released = f" ({weights.file})" if weights is not None and weights.is_foreign else ""
    return RunFacts(
        title=f"{settings.choices['model']}{released} on {settings.choices['dataset']}, x{settings.scale:g}",
        budget=weights.budget if weights is not None else "none",
        weights=str(weights) if weights is not None else None,
        facts=tuple(facts.items()),
        versions=(("rsdiff", origin["rsdiff"]), ("python", origin["python"]), *origin["packages"].items()),
        command=shlex.join(["python", *folder.command]),
        config=yaml.safe_dump(dict(settings.resolved), sort_keys=False),
        commit="none" if git is None else git["commit"] + (" with uncommitted changes" if git["changed"] else ""),
        signature=settings.signature,
    )


def as_text(summary: Summary, title: str) -> str:
    """Return the result table as the terminal shows it."""
    stream = io.StringIO()
    terminal = sys.stdout.isatty()
    Console(file=stream, force_terminal=terminal, width=None if terminal else 140).print(console_table(summary, title))
    return stream.getvalue().rstrip()


def read_picture(path: Path) -> Tensor:
    """Return a PNG as (C, H, W) in [0, 1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


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
