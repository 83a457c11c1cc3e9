"""The table of results, for the terminal and for Markdown: method beside a baseline, with the protocol it was made under."""

from __future__ import annotations

import math

from rich.table import Table

from rsdiff.metrics import Metric, MetricSummary, Summary

ARROWS = {"higher": "↑", "lower": "↓", "none": ""}


def headings(summary: Summary) -> tuple[str, ...]:
    """Return the names of the columns."""
    return "metric", "method", "std", summary.baseline, "difference", "reference", "images"


def console_table(summary: Summary, title: str) -> Table:
    """Return the results as a rich table; what beats the baseline is green, worse red; metrics left out are named below."""
    left_out = "\n".join(f"{entry.title}: {entry.reason}" for entry in summary.unavailable)
    caption = "\n".join((summary.protocol, *summary.cautions, *([f"not computed: {left_out}"] if left_out else [])))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for heading in headings(summary):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for entry in summary.metrics:
        cells = cells_of(entry)
        colour = {True: "green", False: "red", None: ""}[entry.is_better]
        cells[4] = f"[{colour}]{cells[4]}[/{colour}]" if colour else cells[4]
        table.add_row(*cells)
    return table


def markdown_table(summary: Summary) -> str:
    """Return the results as a Markdown table followed by its protocol, the hashes of weight files and cautions and what was left out."""
    lines = ["| " + " | ".join(headings(summary)) + " |", "|---|" + "---:|" * (len(headings(summary)) - 1)]
    lines += ["| " + " | ".join(cells_of(entry)) + " |" for entry in summary.metrics]
    lines += ["", f"Protocol {summary.protocol}; {summary.images} images."]
    if summary.weight_hashes:
        lines.append("Weights: " + ", ".join(f"{name} ({digest})" for name, digest in summary.weight_hashes) + ".")
    lines += summary.cautions
    lines += [f"Not computed: {entry.title}: {entry.reason}" for entry in summary.unavailable]
    return "\n".join(lines) + "\n"


def cells_of(entry: MetricSummary) -> list[str]:
    """Return a metric's row of text under `headings`; '-' where there is no value."""
    metric = entry.metric
    unit = f" ({metric.unit})" if metric.unit else ""
    count = f"{entry.count}" + (f" (+{entry.infinite} infinite)" if entry.infinite else "")
    return [
        f"{metric.title}{unit} {ARROWS[metric.direction]}".rstrip(),
        number(metric, entry.mean),
        number(metric, entry.std),
        number(metric, entry.baseline),
        number(metric, entry.difference, signed=True),
        number(metric, entry.hr),
        count,
    ]


def number(metric: Metric, value: float | None, signed: bool = False) -> str:
    """Return a value with the decimals its kind is printed with: 2 for dB, 4 for values bounded by 1, else 4 significant digits."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    sign = "+" if signed else ""
    if metric.unit == "dB":
        return f"{value:{sign}.2f}"
    if metric.high <= 1:
        return f"{value:{sign}.4f}"
    return f"{value:{sign}#.4g}".removesuffix(".") if abs(value) < 1e5 else f"{value:{sign}.3e}"
