"""The report of an evaluation: one HTML file that holds everything it shows and asks no other site for anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas

from rsdiff.metrics import METRICS, Summary
from rsdiff.reporting.figures import loss_curve, metric_histograms
from rsdiff.reporting.page import embedded, embedded_smaller, safe_svg, write_page
from rsdiff.reporting.tables import ARROWS, cells_of, explanation, number
from rsdiff.reporting.uncertainty import reliability_figure, reliability_of

REPORT = "report.html"
PREFIXES = {"": "", "bicubic_": "Bicubic ", "linear_": "Linear ", "hr_": "HR "}


@dataclass(frozen=True)
class RunFacts:
    """What a reader must know to believe, compare or repeat a result.

    title     heading of the report
    budget    'paper' for the published training length; 'quick' results are marked as such at the top
    weights   which weights the result was made with, as text; None without any
    facts     short facts in the order they are shown, e.g. {'Data set': 'AIRS', 'Seed': '0', 'Steps': '200 000'}
    versions  packages and their versions
    command   what to type to get this result again
    config    the resolved settings as YAML
    """

    title: str
    budget: Literal["quick", "paper", "none"]
    weights: str | None
    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    command: str
    config: str
    commit: str
    signature: str


@dataclass(frozen=True)
class Slide:
    """The pictures of one image that the slider lays over each other, as data addresses."""

    name: str
    left: str
    middle: str
    right: str | None


def write_report(
    folder: Path,
    facts: RunFacts,
    summary: Summary,
    records: pandas.DataFrame,
    panels: Sequence[Path],
    history: Sequence[Mapping[str, float]],
    cases: Sequence[tuple[str, Summary]] = (),
) -> Path:
    """Write `folder`/report.html and return its path.

    records  one row per image, as `write_records` returns them
    panels   pictures made by `write_panel`; the slider shows the single pictures that lie beside them
    history  records of the training, as `read_history` returns them; empty where nothing was trained
    cases    (name, summary) of each test set where there are several; `summary` is then over all of them
    """
    columns, rows = _image_table(records)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / REPORT
    write_page(
        page,
        "report",
        facts=facts,
        summary=summary,
        results=[(entry, cells_of(entry)) for entry in summary.metrics],
        headline=_headline(summary),
        notes=(*explanation(summary), *summary.cautions),
        cases=[(name, [(entry, cells_of(entry)) for entry in part.metrics]) for name, part in cases],
        panels=[(path.stem, embedded_smaller(path)) for path in panels],
        spectra=[(path.stem, embedded(curves)) for path in panels if (curves := path.with_suffix(".spectra.png")).is_file()],
        slides=[slide for path in panels if (slide := _slide(path)) is not None],
        curve=safe_svg(loss_curve(history)),
        reliability=safe_svg(reliability_figure({"all images": reliability_of(records)})),
        histograms=safe_svg(metric_histograms(records, summary)),
        columns=columns,
        rows=rows,
    )
    return page


def _slide(panel: Path) -> Slide | None:
    single = {key: panel.with_suffix(f".{key}.png") for key in ("lr", "sr", "hr")}
    if not (single["lr"].is_file() and single["sr"].is_file()):
        return None
    right = embedded(single["hr"]) if single["hr"].is_file() else None
    return Slide(panel.stem, embedded(single["lr"]), embedded(single["sr"]), right)


def _headline(summary: Summary) -> list[dict[str, str]]:
    """The first four metrics, large: value, unit, and the difference from the baseline in words."""
    cards = []
    for entry in summary.metrics[:4]:
        difference = entry.difference
        verdict = {True: "better", False: "worse", None: "same"}[entry.is_better] if difference is not None else ""
        against = "" if difference is None else f"{number(entry.metric, difference, signed=True)} against {summary.baseline}"
        arrow = ARROWS[entry.metric.direction]
        cards.append(
            {
                "title": f"{entry.metric.title} {arrow}".rstrip(),
                "value": number(entry.metric, entry.mean),
                "unit": entry.metric.unit,
                "against": against,
                "verdict": verdict,
            }
        )
    return cards


def _image_table(records: pandas.DataFrame) -> tuple[list[dict[str, str]], list[list[tuple[str, str]]]]:
    """Headings (title, explanation, kind) and cells (text shown, value sorted by) of the per-image table."""
    columns: list[dict[str, str]] = []
    cells: list[list[tuple[str, str]]] = []
    for column in records.columns:
        prefix = next(
            (prefix for prefix in PREFIXES if prefix and str(column).startswith(prefix) and str(column)[len(prefix) :] in METRICS), ""
        )
        metric = METRICS.get(str(column)[len(prefix) :])
        numeric = pandas.api.types.is_numeric_dtype(records[column])
        title = PREFIXES[prefix] + metric.title if metric is not None else str(column).replace("_", " ")
        unit = f", {metric.unit}" if metric is not None and metric.unit else ""
        columns.append(
            {"title": title, "meaning": (metric.meaning + unit) if metric is not None else "", "kind": "number" if numeric else "text"}
        )
        shown = []
        for value in records[column].tolist():
            text = number(metric, value) if metric is not None else (f"{value:.4g}" if isinstance(value, float) else str(value))
            shown.append((text, str(value)))
        cells.append(shown)
    return columns, [list(row) for row in zip(*cells, strict=True)]
