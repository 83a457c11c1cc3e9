"""The page of a sweep: its table, and what quality its settings buy at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsdiff.metrics import METRICS, Metric
from rsdiff.reporting.figures import CostPoint, quality_against_cost
from rsdiff.reporting.page import safe_svg, write_page

COSTS = {"sampler.steps": "sampling steps", "trainer.steps": "optimiser steps"}
"""Settings that are costs when a sweep varies them, and what a figure calls them."""
SECONDS = "seconds_per_image"


@dataclass(frozen=True)
class SweptRun:
    """One finished run of a sweep.

    settings  what distinguishes it from the others, e.g. {'sampler': 'ddim', 'sampler.steps': '10'}
    results   its result row: psnr, bicubic_psnr, ..., seconds_per_image
    """

    settings: Mapping[str, str]
    results: Mapping[str, object]


@dataclass(frozen=True)
class CostFigure:
    """A figure of the page as inline SVG."""

    title: str
    svg: str


def write_sweep_page(
    page: Path, title: str, common: str, columns: Sequence[str], rows: Sequence[Mapping[str, str]], runs: Sequence[SweptRun]
) -> Path:
    """Write the HTML page and return its path.

    common  the settings that all runs share, as typed
    rows    cells of the table as text, by column
    runs    what the figures show
    """
    figures = [(figure.title, safe_svg(figure.svg)) for figure in cost_figures(runs)]
    write_page(page, "sweep", title=title, common=common, columns=columns, rows=rows, figures=figures)
    return page


def cost_figures(runs: Sequence[SweptRun]) -> list[CostFigure]:
    """Return a figure per metric and cost: each setting of `COSTS` that varies, and the seconds an image takes.

    Runs that differ in the cost alone are joined by a line. Bicubic interpolation is shown where it is the same for all runs.
    """
    metrics = [metric for name, metric in METRICS.items() if metric.direction != "none" and any(name in run.results for run in runs)]
    settings = [name for name in COSTS if len({run.settings.get(name) for run in runs}) > 1]
    figures = []
    for metric in metrics:
        for cost in (*settings, SECONDS):
            svg = _cost_figure(runs, metric, cost, settings)
            if svg is not None:
                figures.append(CostFigure(f"{metric.title} against {_words(cost)}", svg))
    return figures


def _cost_figure(runs: Sequence[SweptRun], metric: Metric, cost: str, settings: Sequence[str]) -> str | None:
    points = []
    for run in runs:
        price = _number(run.results.get(cost) if cost == SECONDS else run.settings.get(cost))
        others = " ".join(value for name, value in run.settings.items() if name not in settings)
        label = ", ".join(f"{run.settings.get(name)} {_words(name).split()[-1]}" for name in settings if name != cost)
        points.append(CostPoint(label if settings else others, price, _number(run.results.get(metric.name)), others if settings else ""))
    if len({point.cost for point in points if math.isfinite(point.cost) and math.isfinite(point.quality)}) < 2:
        return None
    baselines = {_number(run.results.get(f"bicubic_{metric.name}")) for run in runs}
    baseline = baselines.pop() if len(baselines) == 1 else math.nan
    quality = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
    return quality_against_cost(points, _words(cost), quality, metric.direction == "higher", baseline if math.isfinite(baseline) else None)


def _words(cost: str) -> str:
    return COSTS.get(cost, "seconds per image")


def _number(value: object) -> float:
    """Return a cell as a number; NaN where it is none."""
    try:
        return float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        return math.nan
