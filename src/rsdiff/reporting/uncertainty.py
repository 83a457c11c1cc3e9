"""Reliability of intervals: which share of HR values lies in those of every level, as a diagram and as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas
from matplotlib.figure import Figure

from rsdiff.metrics.calibration import LEVELS
from rsdiff.metrics.octaves import OCTAVES
from rsdiff.metrics.uncertainty import pooled_ratio
from rsdiff.reporting.figures import svg
from rsdiff.reporting.style import MUTED, SERIES, styled


def reliability_of(records: pandas.DataFrame) -> dict[float, float]:
    """Return the mean share of HR values in the intervals of every level; nothing where the images were restored once."""
    columns = {level: f"reliability_{round(100 * level)}" for level in LEVELS}
    return {level: float(records[column].mean()) for level, column in columns.items() if column in records}


def reliability_figure(series: Mapping[str, Mapping[float, float]], standalone: bool = False) -> str | None:
    """Return a diagram of the share within intervals over their level, one line per series; None where there is nothing to draw.

    standalone  for a file of its own instead of an HTML page
    """
    drawn = {name: {x: y for x, y in points.items() if math.isfinite(y)} for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        return None
    with styled():
        figure = Figure(figsize=(3.8, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
        for (name, points), colour in zip(drawn.items(), SERIES, strict=False):
            axes.plot(list(points), list(points.values()), color=colour, marker="o", markersize=3.5, linewidth=1.6, label=name)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("level of the intervals")
        axes.set_ylabel("share of HR values within")
        if len(drawn) > 1:
            axes.legend(fontsize=8)
        return svg(figure, standalone)


def uncertainty_tables(rows: Sequence[Mapping[str, Any]], samples: float) -> str:
    """Return tables in Markdown of intervals by level, octave of frequency and class; '' where the images were restored once.

    samples  of every image; infinite where they are quantiles, which have no octaves
    """
    records = pandas.DataFrame(list(rows))
    levels = reliability_of(records)
    if not levels:
        return ""
    lines = ["", "### Intervals", "", "| level | share of HR values within |", "|---:|---:|"]
    lines += [f"| {level:g} | {share:.3f} |" for level, share in levels.items()]
    octaves = range(1, OCTAVES + 1) if "spread_octave_1" in records else ()
    if octaves:
        lines += ["", "| octave of frequency | spread/skill | within 90 %, as drawn |", "|---|---:|---:|"]
    for octave in octaves:
        name = f"from 1/{2 ** (octave + 1)} cycles per pixel"
        ratio = _ratio(records, f"error_octave_{octave}", f"spread_octave_{octave}", samples)
        lines.append(f"| {name} | {ratio:.3f} | {records[f'octave_coverage_{octave}'].mean():.3f} |")
    if "class" in records:
        lines += ["", "| class | images | CRPS | spread/skill | within 90 % |", "|---|---:|---:|---:|---:|"]
        for label, part in records.groupby("class"):
            score, inside = (part[name].mean() if name in part else math.nan for name in ("crps", "coverage"))
            ratio = _ratio(part, "mean_rmse", "spread", samples)
            lines.append(f"| {label} | {len(part)} | {score:.4f} | {ratio:.3f} | {inside:.3f} |")
    return "\n".join([*lines, ""])


def _ratio(records: pandas.DataFrame, error: str, spread: str, samples: float) -> float:
    known = records[[error, spread]].dropna()
    return pooled_ratio(known[error].tolist(), known[spread].tolist(), samples)
