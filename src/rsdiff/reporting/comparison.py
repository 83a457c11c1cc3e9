"""Tables that compare several methods over the images they share: paired differences from the best mean, intervals, corrected tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rsdiff.data.frames import markdown_of
from rsdiff.degradations.base import RecordValue
from rsdiff.metrics.metric import Metric
from rsdiff.metrics.statistics import holm, paired_difference, rank_intervals
from rsdiff.reporting.tables import BY_CHANCE, NOT_SIGNIFICANT, number, tested

COLUMNS = ("mean", "median", "difference from the best", "95 % interval", "better on", "Holm p", "rank")
"""Columns behind the name."""


def comparison(metrics: Sequence[Metric], rows: Mapping[str, Sequence[Mapping[str, RecordValue]]], what: str) -> str:
    """Return a table in Markdown for every metric that images have of their own.

    rows  by name of what is compared, one row per image
    what  kind of thing that is compared, the first column's heading, e.g. 'tool'
    """
    lines: list[str] = []
    is_doubtful = False
    for metric in metrics:
        by_name = {name: {str(row["name"]): float(row[metric.name]) for row in own if metric.name in row} for name, own in rows.items()}
        shared = sorted(set.intersection(*(set(own) for own in by_name.values())))
        if metric.of_set or metric.direction == "none" or not shared:
            continue
        values = {name: [own[image] for image in shared] for name, own in by_name.items()}
        finite = [index for index in range(len(shared)) if all(math.isfinite(of[index]) for of in values.values())]
        lines += ["", f"### {metric.title}: {len(finite)} images that all {what}s have", ""]
        made = _rows(metric, values, finite)
        lines.append(markdown_of((what, *COLUMNS), made, COLUMNS))
        is_doubtful |= any(cell.endswith(BY_CHANCE) for row in made for cell in row)
    if is_doubtful:
        lines += ["", NOT_SIGNIFICANT]
    return "\n".join([*lines, ""])


def _rows(metric: Metric, values: Mapping[str, Sequence[float]], finite: Sequence[int]) -> list[list[str]]:
    """Return one row per name, best mean first; `finite` are the images whose values are finite everywhere."""
    higher = metric.direction == "higher"
    means = {name: sum(of[i] for i in finite) / max(1, len(finite)) for name, of in values.items()}
    best = (max if higher else min)(means, key=lambda name: means[name])
    differences = {name: paired_difference(of, values[best], higher) for name, of in values.items() if name != best}
    corrected, ranks = holm({name: found.p for name, found in differences.items()}), rank_intervals(values, higher)
    rows = []
    for name in sorted(means, key=lambda one: means[one], reverse=higher):
        low, high = ranks[name]
        ordered = sorted(values[name][i] for i in finite)
        median = (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2 if ordered else math.nan
        row = [name, number(metric, means[name]), number(metric, median)]
        if name == best:
            row += ["-"] * 4
        else:
            found, p = differences[name], corrected[name]
            interval = f"{number(metric, found.low, signed=True)} to {number(metric, found.high, signed=True)}"
            row += [number(metric, found.mean, signed=True), interval, f"{found.better:.0%}", tested(p)]
        rows.append([*row, f"{low}" if low == high else f"{low} to {high}"])
    return rows
