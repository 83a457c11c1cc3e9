"""A published table, made again: what was printed beside what was measured, as Markdown, LaTeX and CSV (HTML: `published_page`)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rsdiff.data.frames import markdown_of
from rsdiff.metrics import Metric
from rsdiff.reporting.tables import ARROWS, number

MACHINERY = (
    "Quick budget: this checks the machinery, not the methods. Tiny models, a few training steps, generated data where none are given."
)
CSV_COLUMNS = (
    "table", "method", "model", "setting", "metric", "unit", "direction", "published", "ours", "difference", "spread", "seeds", "images",
    "budget", "seconds_per_image", "missing", "reports",
)  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A figure of ours: mean over `seeds` trainings and their sample standard deviation (None for one)."""

    mean: float
    spread: float | None
    seeds: int


@dataclass(frozen=True)
class Pictures:
    """Pictures of one test image, all of the target's size (PNG files)."""

    image: str
    lr: Path
    restored: Path
    hr: Path | None


@dataclass(frozen=True)
class CellResult:
    """A method under one setting.

    values     by metric; a metric that could not be computed is missing
    published  by metric, where the publication prints one
    reason     the sentence why there are no values, or only those of some seeds; '' for a complete cell
    apart      the sentence why the published values are not subtracted; '' where they are of the same images and protocol
    reports    of the evaluations, one per seed
    """

    values: Mapping[str, Value]
    published: Mapping[str, float]
    reason: str
    reports: tuple[Path, ...] = ()
    images: int = 0
    seconds_per_image: float | None = None
    pictures: Pictures | None = None
    apart: str = ""

    def difference(self, metric: str) -> float | None:
        """Return ours - published, where both are there and may be compared."""
        ours, printed = self.values.get(metric), self.published.get(metric)
        return None if ours is None or printed is None or self.apart else ours.mean - printed

    @property
    def is_complete(self) -> bool:
        """Whether every seed's evaluation is finished."""
        return not self.reason and bool(self.reports)


@dataclass(frozen=True)
class RowResult:
    """A method: its cells by setting; a setting it is not evaluated at is missing."""

    name: str
    model: str
    note: str
    cells: Mapping[str, CellResult]


@dataclass(frozen=True)
class Printed:
    """Figures that no run is compared with, as text."""

    title: str
    source: str
    protocol: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class TableResult:
    """A whole table.

    protocol     in words, as summaries describe it
    settings     headings by setting
    circumstances  by setting, on which images and how the published values and ours were measured, a sentence each
    unavailable  metrics that could not be computed, with the reason
    command      what makes this table
    commit       version of the code
    """

    name: str
    title: str
    source: str
    budget: Literal["quick", "paper"]
    protocol: str
    metrics: tuple[Metric, ...]
    settings: Mapping[str, str]
    rows: tuple[RowResult, ...]
    unavailable: Mapping[str, str]
    seeds: int
    command: str
    commit: str
    printed: Sequence[Printed] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    circumstances: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def remarks(self) -> list[str]:
        """Everything a reader must know, one sentence or more each."""
        titles = {metric.name: metric.title for metric in self.metrics}
        seeds = f"mean and standard deviation over {self.seeds} seeds" if self.seeds > 1 else "seed 0"
        return [
            *([MACHINERY] if self.budget == "quick" else []),
            f"Cells: ours ({seeds}), then the published value in brackets, and the difference ours - published where data set, "
            "degradation, scale, images, channel and border are the same.",
            f"Protocol {self.protocol}. Budget {self.budget}.",
            f"Source of published values: {self.source}",
            *self.notes,
            *(f"{titles[name]} was not computed: {reason}" for name, reason in self.unavailable.items()),
            *(f"{row.name}: {row.note}" for row in self.rows if row.note),
            *missing_sentences(self),
            *apart_sentences(self),
        ]


def missing_sentences(result: TableResult) -> list[str]:
    """Return why cells are empty, each reason once with the methods it concerns."""
    concerned: dict[str, list[str]] = {}
    for row in result.rows:
        for cell in row.cells.values():
            if cell.reason and row.name not in concerned.setdefault(cell.reason, []):
                concerned[cell.reason].append(row.name)
    return [f"Not run: {', '.join(names)}: {reason}" for reason, names in concerned.items()]


def apart_sentences(result: TableResult) -> list[str]:
    """Return why published values are not subtracted, each reason once with the settings it concerns."""
    concerned: dict[str, dict[str, None]] = {}
    for row in result.rows:
        for setting, cell in row.cells.items():
            if cell.apart:
                concerned.setdefault(cell.apart, {})[result.settings[setting]] = None
    return [f"{', '.join(settings)}: {reason}" for reason, settings in concerned.items()]


def heading(metric: Metric) -> str:
    """Return 'PSNR (dB) ↑'."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.title}{unit} {ARROWS[metric.direction]}".rstrip()


def cell_text(metric: Metric, cell: CellResult | None, plus_minus: str = "±") -> str:
    """Return '27.19 ± 0.02 (27.31, -0.12)': ours, spread, published, difference; '-' for what there is not."""
    if cell is None:
        return ""
    ours, printed = cell.values.get(metric.name), cell.published.get(metric.name)
    text = number(metric, ours.mean) if ours is not None else "-"
    if ours is not None and ours.spread is not None:
        text += f" {plus_minus} {number(metric, ours.spread)}"
    if printed is not None:
        difference = cell.difference(metric.name)
        text += f" ({number(metric, printed)}" + (")" if difference is None else f", {number(metric, difference, signed=True)})")
    return text


def markdown(result: TableResult, folder: Path) -> str:
    """Return the table as Markdown, one part per setting, for a file in `folder`."""
    lines = [f"# {result.title}", "", *(f"> {remark}" for remark in result.remarks[:1]), ""]
    for setting, title in result.settings.items():
        lines += [f"## {title}", "", *(f"{said}\n" for said in result.circumstances.get(setting, ()))]
        columns = ["Method", *map(heading, result.metrics), "s/image", "Runs"]
        rows = []
        for row in result.rows:
            cell = row.cells.get(setting)
            if cell is None:
                continue
            links = ", ".join(f"[{number_}]({link(report, folder)})" for number_, report in enumerate(cell.reports)) or "-"
            rows.append([row.name, *(cell_text(metric, cell) for metric in result.metrics), seconds_text(cell), links])
        lines += [markdown_of(columns, rows, columns[1:-1]), ""]
    for printed in result.printed:
        lines += [
            f"## {printed.title}",
            "",
            markdown_of(printed.columns, printed.rows),
            "",
            f"Source: {printed.source}. {printed.protocol}",
            "",
        ]
    lines += ["## Remarks", "", *(f"- {remark}" for remark in result.remarks), f"- Made by `{result.command}` at commit {result.commit}."]
    return "\n".join(lines) + "\n"


def latex(result: TableResult) -> str:
    """Return the table in LaTeX (needs the package booktabs), one tabular per setting."""
    import pandas

    columns = ["Method", *map(heading, result.metrics)]
    written = str.maketrans(
        {character: f"\\{character}" for character in "&%$#_{}"}
        | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "°": r"$^\circ$"}
        | {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    )

    def safe(text: str) -> str:
        return text.translate(written)

    lines = [*(f"% {remark}" for remark in result.remarks), f"% Made by {result.command} at commit {result.commit}."]
    for setting, title in result.settings.items():
        shown = [row for row in result.rows if setting in row.cells]
        cells = [[row.name, *(cell_text(metric, row.cells[setting]) for metric in result.metrics)] for row in shown]
        frame = pandas.DataFrame([list(map(safe, row)) for row in cells], columns=list(map(safe, columns)))
        warning = f" {MACHINERY}" if result.budget == "quick" else ""
        table = frame.style.hide(axis="index").to_latex(
            hrules=True,
            position_float="centering",
            column_format="l" + "r" * len(result.metrics),
            caption=safe(f"{result.title}, {title}.{warning} Ours (published, difference)."),
            label="tab:" + "".join(character if character.isalnum() else "-" for character in f"{result.name}-{setting}"),
        )
        lines += [*(f"% {said}" for said in result.circumstances.get(setting, ())), str(table)]
    return "\n".join(lines) + "\n"


def comma_separated(result: TableResult, folder: Path) -> str:
    """Return one line per method, setting and metric under `CSV_COLUMNS`."""
    import pandas

    lines: list[dict[str, Any]] = []
    for row in result.rows:
        for setting, cell in row.cells.items():
            for metric in result.metrics:
                ours, printed = cell.values.get(metric.name), cell.published.get(metric.name)
                lines.append(
                    {
                        "table": result.name,
                        "method": row.name,
                        "model": row.model,
                        "setting": setting,
                        "metric": metric.name,
                        "unit": metric.unit,
                        "direction": metric.direction,
                        "published": printed,
                        "ours": None if ours is None else ours.mean,
                        "difference": cell.difference(metric.name),
                        "spread": None if ours is None else ours.spread,
                        "seeds": 0 if ours is None else ours.seeds,
                        "images": cell.images,
                        "budget": result.budget,
                        "seconds_per_image": cell.seconds_per_image,
                        "missing": cell.reason or ("" if ours is not None else result.unavailable.get(metric.name, "")),
                        "reports": " ".join(link(report, folder) for report in cell.reports),
                    }
                )
    return str(pandas.DataFrame(lines, columns=list(CSV_COLUMNS)).to_csv(index=False))


def link(report: Path, folder: Path) -> str:
    """Return the address of a report from a page in `folder`."""
    return os.path.relpath(report, folder).replace(os.sep, "/")


def seconds_text(cell: CellResult) -> str:
    """Return the seconds of an image, or '-'."""
    seconds = cell.seconds_per_image
    return "-" if seconds is None or math.isnan(seconds) else f"{seconds:.3g}"
