"""What evaluations leave behind: records, summaries, tables and the page, and what the terminal shows."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from PIL import Image
from rich.console import Console
from torch import Tensor

from rsdiff.degradations import RecordValue
from rsdiff.metrics.summary import Summary
from rsdiff.reporting import RunFacts, console_table, markdown_table, write_records, write_report
from rsdiff.reporting.records import CSV, PARQUET, write_summaries, write_text
from rsdiff.runs.command import shell_text
from rsdiff.runs.provenance import provenance
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tracking import Tracker, read_history

Row = dict[str, RecordValue]


@dataclass(frozen=True)
class Written:
    """The page, all files written, and the tables as the terminal shows them."""

    page: Path
    files: list[Path]
    shown: list[str]


def write_results(
    folder: RunFolder,
    tracker: Tracker,
    facts: RunFacts,
    summary: Summary,
    rows: Sequence[Mapping[str, RecordValue]],
    by_case: Sequence[tuple[str, Summary]],
    panels: Sequence[Path] = (),
    said: Sequence[str] = (),
    more: str = "",
) -> Written:
    """Write records, summaries, results.md and the page into the run's folder, and log the table.

    by_case  (name, summary) of parts of the rows that have a table of their own
    said     sentences about the data that were used
    more     further tables in Markdown
    """
    records = write_records(folder.path / "evaluation", rows)
    write_summaries(folder.path / "evaluation", summary, by_case)
    page = write_report(folder.path, facts, summary, records, panels, read_history(folder.path), by_case)
    tables = markdown_table(summary) + "".join(f"\n### {name}\n\n{markdown_table(part)}" for name, part in by_case) + more
    named = [f"weights {facts.weights}"] if facts.weights is not None else []
    write_text(folder.path / "results.md", f"# {facts.title}\n\n" + "".join(f"    {line}\n" for line in [*said, *named]) + f"\n{tables}")
    figures = summary_row(summary)
    tracker.table("results", [figures] if not by_case else [{"degradation": name, **summary_row(part)} for name, part in by_case])
    for panel in panels[:4]:
        tracker.image(f"panels/{panel.stem}", read_picture(panel.with_suffix(".sr.png")))
    shown = [as_text(part, name) for name, part in by_case] or [as_text(summary, facts.title)]
    return Written(page, [page, folder.path / "results.md", folder.path / "evaluation" / CSV, folder.path / "evaluation" / PARQUET], shown)


def page_facts(
    settings: RunSettings,
    folder: RunFolder,
    title: str,
    facts: Mapping[str, str],
    budget: Literal["quick", "paper", "none"] = "none",
    weights: str | None = None,
) -> RunFacts:
    """Return what a page says of a run besides its figures: `facts`, and what every run is known by."""
    origin = provenance(folder.command, folder.repository)
    git = origin["git"]
    return RunFacts(
        title=title,
        budget=budget,
        weights=weights,
        facts=tuple(facts.items()),
        versions=(("rsdiff", origin["rsdiff"]), ("python", origin["python"]), *origin["packages"].items()),
        command=shell_text(folder.command),
        config=yaml.safe_dump(dict(settings.resolved), sort_keys=False),
        commit="none" if git is None else git["commit"] + (" with uncommitted changes" if git["changed"] else ""),
        signature=settings.signature,
    )


def summary_row(summary: Summary) -> dict[str, float | int | str]:
    """Return the means as one flat row: psnr, bicubic_psnr (or linear_psnr), ..., images, seconds_per_image."""
    row: dict[str, float | int | str] = {}
    for entry in summary.metrics:
        row[entry.metric.name] = entry.mean
        if entry.baseline is not None:
            row[f"{summary.baseline}_{entry.metric.name}"] = entry.baseline
    return {**row, "images": summary.images, "seconds_per_image": summary.seconds_per_image}


def as_text(summary: Summary, title: str) -> str:
    """Return the result table as the terminal shows it."""
    stream = io.StringIO()
    terminal = sys.stdout.isatty()
    width = None if terminal else 140
    Console(file=stream, force_terminal=terminal, width=width, markup=False, emoji=False).print(console_table(summary, title))
    return stream.getvalue().rstrip()


def read_picture(path: Path) -> Tensor:
    """Return a PNG as (C, H, W) in [0, 1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
