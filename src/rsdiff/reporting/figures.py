"""Figures of a report as inline SVG: loss curve, histograms of metrics, quality against cost."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rsdiff.metrics import MetricSummary, Summary
from rsdiff.reporting.style import BASELINE, INK, METHOD, MUTED, REFERENCE, SERIES, styled

SMOOTHING = 0.05
"""A loss is smoothed over this share of its points."""
MARKERS = "os^D"
FEW_COSTS = 5
"""So many costs are named on the axis themselves."""


def loss_curve(history: Sequence[Mapping[str, float]]) -> str | None:
    """Return the training losses ('<group>/total') over steps, with the validation PSNR below where there is one; None without losses."""
    totals = sorted({name for record in history for name in record if name.endswith("/total")})
    if not totals:
        return None
    psnr = _series(history, "validation/psnr")
    with styled():
        figure = Figure(figsize=(7.2, 4.6 if len(psnr[0]) > 1 else 2.9), layout="constrained")
        axes = figure.subplots(
            2 if len(psnr[0]) > 1 else 1, 1, sharex=True, height_ratios=(3, 2) if len(psnr[0]) > 1 else None, squeeze=False
        )[:, 0]
        for name, colour in zip(totals, SERIES, strict=False):
            steps, values = _series(history, name)
            axes[0].plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
            axes[0].plot(steps, smooth(values), color=colour, linewidth=1.6, label=name.removesuffix("/total"))
        everything = np.concatenate([_series(history, name)[1] for name in totals])
        if everything.size and everything.min() > 0 and everything.max() > 20 * everything.min():
            axes[0].set_yscale("log")
        axes[0].set_ylabel("training loss")
        if len(totals) > 1:
            axes[0].legend()
        if len(psnr[0]) > 1:
            axes[1].plot(*psnr, color=REFERENCE, linewidth=1.6, marker="o", markersize=3)
            axes[1].set_ylabel("validation PSNR (dB)")
        axes[-1].set_xlabel("optimiser steps")
        return svg(figure)


def smooth(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the running mean of `values` over a centred window, shorter at both ends; values that are not finite are left out."""
    half = max(1, round(len(values) * SMOOTHING / 2))
    return np.array(
        [np.mean(part) if (part := _finite(values[max(0, i - half) : i + half + 1])).size else np.nan for i in range(len(values))]
    )


def metric_histograms(records: pandas.DataFrame, summary: Summary) -> str | None:
    """Return the distribution over images of every per-image metric, method and baseline alike; None for fewer than five images."""
    shown = [entry for entry in summary.metrics if not entry.metric.of_set and entry.metric.name in records and entry.count >= 5]
    if not shown:
        return None
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    with styled():
        figure = Figure(figsize=(2.7 * columns, 2.15 * rows), layout="constrained")
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, entry in zip(cells, shown, strict=False):
            _histogram(axes, records, entry, summary.baseline)
        for axes in cells[len(shown) :]:
            axes.set_visible(False)
        handles, labels = cells[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=8)
        return svg(figure)


@dataclass(frozen=True)
class CostPoint:
    """One method or setting in a plot of quality against cost.

    cost     e.g. seconds per image, sampler steps, parameters
    quality  mean of a metric
    group    points of one group are joined by a line (the steps of one sampler)
    """

    label: str
    cost: float
    quality: float
    group: str = ""


def quality_against_cost(
    points: Sequence[CostPoint],
    cost: str,
    quality: str,
    higher_is_better: bool = True,
    bicubic: float | None = None,
    standalone: bool = False,
) -> str | None:
    """Return a scatter plot of `points` with logarithmic costs; None without points.

    The best value at any cost or below is marked; `bicubic` is the quality of bicubic interpolation, drawn as a line across.
    standalone  see `svg`
    """
    kept = [point for point in points if math.isfinite(point.quality) and point.cost > 0]
    if not kept:
        return None
    groups = list(dict.fromkeys(point.group for point in kept))
    frontier = _frontier(kept, higher_is_better)
    with styled():
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        for index, group in enumerate(groups):
            members = sorted((point for point in kept if point.group == group), key=lambda point: point.cost)
            colour = SERIES[index % len(SERIES)]
            x, y = [point.cost for point in members], [point.quality for point in members]
            if group and len(members) > 1:
                axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.7)
            marker = MARKERS[index // len(SERIES) % len(MARKERS)]  # more groups than colours
            axes.scatter(x, y, color=colour, s=28, zorder=3, marker=marker, label=group or None)
        axes.scatter(
            [p.cost for p in frontier], [p.quality for p in frontier], s=90, facecolors="none", edgecolors=INK, linewidths=1, zorder=4
        )
        if bicubic is not None:
            axes.axhline(bicubic, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="bicubic")
        for point in kept:
            axes.annotate(point.label, (point.cost, point.quality), xytext=(6, 5), textcoords="offset points", fontsize=7.5, color=MUTED)
        axes.set_xscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_major_formatter(plain)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))  # all nine of a decade would run into each other
        costs = sorted({point.cost for point in kept})
        if len(costs) <= FEW_COSTS:
            axes.set_xticks(costs)
        axes.margins(x=0.18, y=0.15)
        axes.set_xlabel(f"{cost} (log scale)")
        axes.set_ylabel(quality)
        if any(groups) or bicubic is not None:
            axes.legend(fontsize=8)
        return svg(figure, standalone)


@dataclass(frozen=True)
class PlanePoint:
    """One method in the perception-distortion plane; points of one group share a colour."""

    label: str
    distortion: float
    perception: float
    group: str = ""


def perception_distortion(points: Sequence[PlanePoint], distortion: str, perception: str, higher_is_better: bool = True) -> str | None:
    """Return a scatter plot of a distortion metric (horizontal) and a perceptual one for which lower is better; None without points.

    Both axes are turned so that better is right and down: no method can move both ways without end (Blau and Michaeli 2018).
    """
    kept = [point for point in points if math.isfinite(point.distortion) and math.isfinite(point.perception)]
    if not kept:
        return None
    groups = list(dict.fromkeys(point.group for point in kept))
    with styled():
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        for index, group in enumerate(groups):
            members = [point for point in kept if point.group == group]
            x, y = [point.distortion for point in members], [point.perception for point in members]
            axes.scatter(x, y, color=SERIES[index % len(SERIES)], s=28, zorder=3, label=group or None)
        for point in kept:
            place = (point.distortion, point.perception)
            axes.annotate(point.label, place, xytext=(6, 5), textcoords="offset points", fontsize=7.5, color=MUTED)
        if not higher_is_better:
            axes.invert_xaxis()
        axes.margins(x=0.18, y=0.15)
        axes.set_xlabel(distortion)
        axes.set_ylabel(perception)
        if len(groups) > 1:
            axes.legend(fontsize=8)
        return svg(figure)


def _frontier(points: Sequence[CostPoint], higher_is_better: bool) -> list[CostPoint]:
    sign = 1 if higher_is_better else -1
    best, kept = -math.inf, []
    for point in sorted(points, key=lambda point: (point.cost, -sign * point.quality)):
        if sign * point.quality > best:
            best = sign * point.quality
            kept.append(point)
    return kept


def _histogram(axes: Axes, records: pandas.DataFrame, entry: MetricSummary, baseline: str) -> None:
    name = entry.metric.name
    series = {"method": (name, METHOD), baseline: (f"{baseline}_{name}", BASELINE)}
    present = {
        label: (_finite(records[column].to_numpy(dtype=float)), colour) for label, (column, colour) in series.items() if column in records
    }
    everything = np.concatenate([values for values, _ in present.values()])
    bins = np.histogram_bin_edges(everything, bins=min(30, max(8, round(math.sqrt(len(records)) * 1.5))))
    for label, (values, colour) in present.items():
        axes.hist(values, bins=bins.tolist(), color=colour, alpha=0.55, label=label)
        if values.size:
            axes.axvline(float(values.mean()), color=colour, linewidth=1.3)
    unit = f" ({entry.metric.unit})" if entry.metric.unit else ""
    axes.set_title(f"{entry.metric.title}{unit}", fontsize=9, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=7.5)


def _series(history: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    points = [(record["step"], record[name]) for record in history if name in record]
    return np.array([step for step, _ in points], dtype=float), np.array([value for _, value in points], dtype=float)


def _finite(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return values[np.isfinite(values)]


def svg(figure: Figure, standalone: bool = False) -> str:
    """Return the figure as an <svg> element for an HTML page: no prologue, no metadata, no address of any site.

    standalone  as a file of its own, which needs its namespaces
    """
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text if standalone else re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
