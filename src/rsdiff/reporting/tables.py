"""The table of results, for the terminal and for Markdown: method beside a baseline, with the protocol it was made under."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from rsdiff.data.frames import markdown_of
from rsdiff.metrics import Metric, MetricSummary, Summary
from rsdiff.metrics.statistics import SIGNIFICANT

ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
BY_CHANCE = " n.s."
NOT_SIGNIFICANT = f"n.s.: a Wilcoxon test of the images does not tell them from chance (p of {SIGNIFICANT:g} or more)."
"""What `BY_CHANCE` means, below tables that have it."""


def tested(p: float) -> str:
    """Return the p of a test as tables have it, '-' where there was none."""
    return "-" if math.isnan(p) else f"{p:.2g}" + (BY_CHANCE if p >= SIGNIFICANT else "")


def headings(summary: Summary) -> tuple[str, ...]:
    """Return the names of the columns."""
    return "metric", "method", "median", "std", summary.baseline, "difference", "better on", "reference", "images"


def console_table(summary: Summary, title: str) -> Table:
    """Return the results as a rich table; what beats the baseline is green, worse red; metrics left out are named below.

    Where missing weights are looked for and published was said when the command began, and stands in results.md.
    """
    lacking = ", ".join(entry.title for entry in summary.unavailable if entry.lacks_weights)
    left_out = [f"not computed, weights missing: {lacking}"] if lacking else []
    left_out += [f"not computed: {entry.title}: {entry.reason}" for entry in summary.unavailable if not entry.lacks_weights]
    caption = "\n".join((summary.protocol, *explanation(summary), *summary.cautions, *left_out))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for heading in headings(summary):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for entry in summary.metrics:
        cells: list[str | Text] = [*cells_of(entry)]
        cells[5] = Text(str(cells[5]), style={True: "green", False: "red", None: ""}[entry.is_better])
        table.add_row(*cells)
    return table


def markdown_table(summary: Summary) -> str:
    """Return the results as a Markdown table followed by its protocol, the hashes of weight files and cautions and what was left out."""
    lines = [markdown_of(headings(summary), [cells_of(entry) for entry in summary.metrics], headings(summary)[1:])]
    lines += ["", f"Protocol {summary.protocol}; {summary.images} images."]
    if summary.weight_hashes:
        lines.append("Weights: " + ", ".join(f"{name} ({digest})" for name, digest in summary.weight_hashes) + ".")
    lines += [*explanation(summary), *summary.cautions]
    lines += [f"Not computed: {entry.title}: {entry.reason}" for entry in summary.unavailable]
    return "\n".join(lines) + "\n"


def cells_of(entry: MetricSummary) -> list[str]:
    """Return a metric's row of text under `headings`; '-' where there is no value."""
    metric, paired = entry.metric, entry.paired
    unit = f" ({metric.unit})" if metric.unit else ""
    count = f"{entry.count}" + (f" (+{entry.infinite} infinite)" if entry.infinite else "")
    return [
        f"{metric.title}{unit} {ARROWS[metric.direction]}".rstrip(),
        number(metric, entry.mean),
        number(metric, entry.median),
        number(metric, entry.std),
        number(metric, entry.baseline),
        difference_text(entry),
        "-" if paired is None or math.isnan(paired.better) else f"{paired.better:.0%}",
        number(metric, entry.hr),
        count,
    ]


def difference_text(entry: MetricSummary) -> str:
    """Return the difference from the baseline with its standard error, and 'n.s.' where it may be chance."""
    text = number(entry.metric, entry.difference, signed=True)
    if entry.paired is None or math.isnan(entry.paired.error):
        return text
    chance = BY_CHANCE if entry.is_significant is False else ""
    return f"{text} ±{number(entry.metric, entry.paired.error)}{chance}"


def explanation(summary: Summary) -> tuple[str, ...]:
    """Return the sentence that says how differences are meant, where there are any."""
    if all(entry.paired is None or not entry.paired.count for entry in summary.metrics):
        return ()
    said = "Differences are means over the same images with their standard error; better on: share of images"
    doubtful = any(difference_text(entry).endswith(BY_CHANCE) for entry in summary.metrics)
    return (f"{said}; {NOT_SIGNIFICANT}" if doubtful else f"{said}.",)


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
