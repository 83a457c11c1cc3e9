"""What a degradation does, before anything is trained on it: a sheet of degraded images and a sheet of what was drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rsdiff.reporting.display import display_of, enlarged
from rsdiff.reporting.records import write_whole
from rsdiff.reporting.style import INK, METHOD, MUTED, REFERENCE, styled

DOTS_PER_INCH = 130
CELL, HEADER, GAP = 1.75, 0.55, 0.06
"""Inches: side of a picture, space for the title and column names, space between pictures."""
MOST_WORDS, LONGEST_WORD = 12, 24
"""A column of more different words, or of longer ones (an order of stages), is listed in the table only."""


@dataclass(frozen=True)
class PreviewRow:
    """One image and its degraded forms.

    hr        (C, H, W) in [0, 1]
    degraded  (c, h, w) each, in the order of the sheet's columns
    """

    name: str
    hr: Tensor
    degraded: Sequence[Tensor]


def write_contact_sheet(
    path: Path, title: str, columns: Sequence[str], rows: Sequence[PreviewRow], rgb_bands: tuple[int, int, int] = (0, 1, 2)
) -> None:
    """Write a PNG with one row per image: the target, then its degraded forms with their pixels repeated to the target's size."""
    names = ("Target (HR)", *columns)
    width = len(names) * (CELL + GAP) + GAP
    height = len(rows) * (CELL + GAP) + HEADER
    with styled():
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        figure.text(GAP / width, 1 - 0.16 / height, title, fontsize=9.5, fontweight="bold", color=INK, va="center")
        for column, name in enumerate(names):
            figure.text((GAP + column * (CELL + GAP)) / width, 1 - 0.42 / height, name, fontsize=7.5, color=MUTED, va="center")
        for index, row in enumerate(rows):
            display, size = display_of(row.hr, rgb_bands), (int(row.hr.shape[-2]), int(row.hr.shape[-1]))
            pictures = [display.picture(row.hr)]
            for image in row.degraded:
                of_image = display if image.shape[0] == row.hr.shape[0] else display_of(image)
                pictures.append(enlarged(of_image.picture(image), size))
            bottom = height - HEADER - (index + 1) * (CELL + GAP) + GAP
            for column, picture in enumerate(pictures):
                left = GAP + column * (CELL + GAP)
                axes = figure.add_axes((left / width, bottom / height, CELL / width, CELL / height))
                axes.imshow(picture, interpolation="nearest")
                axes.set_axis_off()
        _save(figure, path)


def write_parameter_sheet(path: Path, title: str, drawn: pandas.DataFrame) -> bool:
    """Write a PNG with the distribution of every column of `drawn` (one row per draw); return whether there was anything to show.

    Words are counted; what is the same in all draws is left out. Where a value exists for some draws only, because a stage did not happen
    or was of another kind, its share is given.
    """
    shown = [name for name in drawn.columns if _is_worth_showing(drawn[name])]
    if not shown:
        return False
    columns = min(6, len(shown))
    rows = math.ceil(len(shown) / columns)
    with styled():
        figure = Figure(figsize=(2.15 * columns, 1.55 * rows + 0.3), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=9.5, fontweight="bold", x=0.005, ha="left")
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, name in zip(cells, shown, strict=False):
            _distribution(axes, name, drawn[name])
        for axes in cells[len(shown) :]:
            axes.set_visible(False)
        _save(figure, path)
    return True


def _distribution(axes: Axes, name: str, values: pandas.Series) -> None:
    present = values.dropna()
    if _is_number(values):
        numbers = present.to_numpy(dtype=float)
        whole = bool(np.all(numbers == np.round(numbers))) and np.ptp(numbers) <= 30
        bins = np.arange(numbers.min() - 0.5, numbers.max() + 1) if whole else np.histogram_bin_edges(numbers, bins=24)
        axes.hist(numbers, bins=bins.tolist(), color=METHOD)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    else:
        counts = present.value_counts()
        axes.barh([str(word) for word in counts.index], counts.to_numpy(), color=REFERENCE)
    share = len(present) / len(values)
    axes.set_title(name.replace("_", " ") + ("" if share == 1 else f" ({share:.0%})"), fontsize=7.5, loc="left")
    axes.tick_params(labelsize=6.5)


def _is_worth_showing(values: pandas.Series) -> bool:
    if values.nunique() < 2:
        return False
    return _is_number(values) or (values.nunique() <= MOST_WORDS and values.dropna().astype(str).str.len().max() <= LONGEST_WORD)


def _is_number(values: pandas.Series) -> bool:
    return bool(pandas.api.types.is_numeric_dtype(values)) and not pandas.api.types.is_bool_dtype(values)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    write_whole(path, lambda at: at.write_bytes(buffer.getvalue()))
