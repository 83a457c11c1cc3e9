"""What the network made of the inputs, as tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from torchmetrics.classification import BinaryJaccardIndex

from rsdiff.metrics.objects import Found, Outlines
from rsdiff.metrics.statistics import paired_difference
from rsdiff.reporting.tables import BY_CHANCE, NOT_SIGNIFICANT, tested

FOUND = 0.5
"""Score from which a pixel belongs to an object."""
Row = dict[str, Any]


@dataclass
class Seen:
    """What the network made of all test images of one input."""

    lines: Outlines = field(default_factory=Outlines)
    objects: list[Found] = field(default_factory=list)
    jaccard: BinaryJaccardIndex = field(default_factory=BinaryJaccardIndex)


def table_of_objects(seen: Mapping[str, Seen], rows: Sequence[Row], sizes: Sequence[int]) -> str:
    """Return the tables of objects in Markdown: over all pixels and objects, by size, and paired differences over images."""
    bounds = list(pairwise([0, *sizes, math.inf]))
    ranges = [f"{low + 1} to {high}" if high < math.inf else f"over {low}" for low, high in bounds]
    lines = [
        "The network was trained on HR. Pooled over all test images; an object is found where its mean score is 0.5 or more.",
        "",
        f"| seen | IoU | boundary F1 | objects found | {' | '.join(f'{one} px' for one in ranges)} |",
        f"|---|---:|---:|---:|{'---:|' * len(ranges)}",
    ]
    for name, known in seen.items():
        groups = [[one for one in known.objects if low < one.pixels <= high] for low, high in bounds]
        found = [recall(group) for group in (known.objects, *groups)]
        lines.append(f"| {name} | {float(known.jaccard.compute()):.3f} | {known.lines.f1:.3f} | {' | '.join(found)} |")
    count = len(next(iter(seen.values())).objects) if seen else 0
    lines += [
        "",
        f"{count} objects in {len(rows)} images. As opensr-usecases has them: mean score, and share of which any pixel has 0.5 or more:",
        "",
        f"| seen | {' | '.join(f'{one} px' for one in ranges)} |",
        f"|---|{'---:|' * len(ranges)}",
    ]
    for name, known in seen.items():
        groups = [[one for one in known.objects if low < one.pixels <= high] for low, high in bounds]
        lines.append(f"| {name} | {' | '.join(touched(group) for group in groups)} |")
    lines += ["", *differences(rows, ("iou", "boundary_f1"))]
    return "\n".join([*lines, ""])


def recall(objects: Sequence[Found]) -> str:
    """Return the share of objects that were found."""
    return f"{np.mean([one.mean >= FOUND for one in objects]):.3f}" if objects else "-"


def touched(objects: Sequence[Found]) -> str:
    """Return the mean score of objects, and the share of which any pixel was found."""
    if not objects:
        return "-"
    return f"{np.mean([one.mean for one in objects]):.3f}, {np.mean([one.highest >= FOUND for one in objects]):.3f}"


def differences(rows: Sequence[Row], figures: Sequence[str]) -> list[str]:
    """Return a table of SR minus bicubic and HR minus SR, paired by image."""
    lines = ["| difference | mean | 95 % interval | better on | p |", "|---|---:|---:|---:|---:|"]
    is_doubtful = False
    for figure in figures:
        for first, second in (("SR", "bicubic"), ("HR", "SR")):
            better, worse = ([float(row.get(f"{name}_{figure}", math.nan)) for row in rows] for name in (first, second))
            if not np.isfinite([better, worse]).all(axis=0).any():
                continue
            found = paired_difference(better, worse)
            name, p = f"{figure.replace('_', ' ')}, {first} - {second}", tested(found.p)
            is_doubtful |= p.endswith(BY_CHANCE)
            lines.append(f"| {name} | {found.mean:+.3f} | {found.low:+.3f} to {found.high:+.3f} | {found.better:.0%} | {p} |")
    return [*lines, "", NOT_SIGNIFICANT] if is_doubtful else lines


def table_of_classes(accuracy: Mapping[str, float], rows: Sequence[Row], classes: int) -> str:
    """Return the table of scenes recognised in Markdown, with paired differences over images."""
    lines = [
        f"The network was trained on HR of {classes} classes.",
        "",
        "| seen | accuracy |",
        "|---|---:|",
        *(f"| {name} | {value:.3f} |" for name, value in accuracy.items()),
        "",
        f"{len(rows)} images.",
        "",
        *differences(rows, ("right",)),
    ]
    return "\n".join([*lines, ""])
