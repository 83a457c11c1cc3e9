"""What a table file (sweeps/tables/*.yaml) says: rows, columns, the runs behind each cell, the published figures.

A cell is the evaluation of a trained row at a point. Cells that ask for the same training share it, because runs are distinguished by their
signature; two tables that ask for the same evaluation share that, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from rsdiff.config import UserError, config

Published = Mapping[str, Mapping[str, float]]
"""Published values: setting ('x4', or '<point>/<case>' where a point has cases) -> metric -> value."""


@config
class PublishedOn:
    """On what the published values of a point were measured. What is not stated is left out, and then nothing is subtracted from them."""

    split: str
    """Which images they are of, in words, e.g. '1,000 test images of AID_split.pkl'."""
    dataset: str = ""
    """Option of the group dataset that holds these images."""
    degradation: str = ""
    """Option of the group degradation that makes these LR images."""
    scale: float | None = None
    """Scale."""
    images: int | None = None
    """Number of images."""
    size: tuple[int, int] | Literal["several", "unknown"] = "unknown"
    """Height and width of the targets, where all are alike."""
    channel: Literal["bands", "y_studio", "y_studio_rounded", "y_full", "y_full_rounded", "y_dasr", "unknown"] = "unknown"
    """What was compared: all bands, or a luma; names as in metrics.protocol.space."""
    border: int | Literal["unknown"] = "unknown"
    """Pixels taken off each side before scoring."""


@config
class TablePoint:
    """One evaluation of every row: a data set, a scale, a degradation or a list of them."""

    name: str
    """Short name, unique in the table."""
    title: str = ""
    """Heading; empty takes the name."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Words that the rows' commands may hold in braces, e.g. {scale: '4', family: aniso}."""
    evaluate: tuple[str, ...] = ()
    """Settings of the evaluation on the published data, e.g. [dataset=airs, degradation=diffbsr_test]."""
    cases: Mapping[str, str] = field(default_factory=dict)
    """Cases of a list of degradations that are scored, with their headings; empty where the degradation is a single one."""
    generated: tuple[str, ...] = ()
    """Settings, besides the table's `generated`, of the data that stand for the published ones in the quick budget."""
    published_on: PublishedOn | None = None
    """On what this point's published values were measured; None where it has none."""


@config
class TableRow:
    """A method."""

    name: str
    """Name in the table."""
    model: str
    """Option of the group model; where this version has none, the row says so."""
    train: tuple[str, ...] = ()
    """Published trainings, one after another, each on the one before; settings separated by spaces. Empty for a method without weights."""
    tiny: str = ""
    """Model of the quick budget; empty takes '<model>_quick', else '<model>_tiny', or the model itself where there is neither."""
    quick: tuple[str, ...] = ()
    """Further settings of this row's quick training, e.g. what shrinks a model that has no tiny one."""
    before: str = ""
    """Quick or tiny model whose quick training this one starts from."""
    before_quick: tuple[str, ...] = ()
    """Further settings of that earlier training."""
    evaluate: tuple[str, ...] = ()
    """Further settings of this row's evaluations, in any budget, e.g. [sampler.steps=8]."""
    points: tuple[str, ...] = ()
    """Points this row is evaluated at; empty means all."""
    published: Published = field(default_factory=dict)
    """Published values by setting and metric."""
    released: str = ""
    """File of weights that the authors released, evaluated in place of a training, in any budget: a name in the folder weights/, or in
    weights/ of `data_root`."""
    download: str = ""
    """What to type, or where to go, to get that file."""
    note: str = ""
    """What a reader should know of this row."""
    unevaluable: str = ""
    """Why the published data cannot evaluate this row, as a sentence; budget paper then does not train it."""

    def __post_init__(self) -> None:
        if bool(self.released) != bool(self.download):
            raise UserError(f"row {self.name}: `released` and `download` belong together; give the file and where it is to be had.")
        if self.released and self.train:
            raise UserError(f"row {self.name} has released weights and trainings; make two rows of it.")


@config
class PrintedTable:
    """Published figures that no run of ours can be compared with, such as those of single images; shown as they are printed."""

    title: str
    """Heading of the table."""
    source: str
    """Where they were printed."""
    protocol: str
    """Split, channel, border and image size they are of, as far as they are stated."""
    columns: tuple[str, ...]
    """Headings of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """Rows of the table, each cell as text."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise UserError(f"the row {row[0]} of '{self.title}' has {len(row)} cells and there are {len(self.columns)} columns.")


@config
class TableConfig:
    """One table."""

    title: str
    """Heading of the table."""
    source: str
    """The publication, and where its figures were taken from."""
    metrics: str
    """Option of the group metrics: the protocol."""
    shown: tuple[str, ...]
    """Metrics that are columns; the first is the quality of the plots."""
    points: tuple[TablePoint, ...]
    """Evaluations, in the order of the table."""
    rows: tuple[TableRow, ...]
    """Methods, in the order of the table."""
    generated: tuple[str, ...] = ("dataset=synthetic", "dataset.second_date=false", "dataset.size=96")
    """The generated data of the quick budget."""
    quick_train: tuple[str, ...] = ("degradation=bicubic", "scale={scale}")
    """Settings of every quick training of this table; words in braces are the point's."""
    quick_evaluate: tuple[str, ...] = ()
    """Settings of every quick evaluation."""
    printed: tuple[PrintedTable, ...] = ()
    """Published figures that cannot be compared with ours."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the whole table."""

    def __post_init__(self) -> None:
        for kind, names in (("point", [point.name for point in self.points]), ("row", [row.name for row in self.rows])):
            if not names or len(set(names)) != len(names):
                raise UserError(f"a table needs at least one {kind}, each with a name of its own; the names are {names}.")
        from rsdiff.metrics import METRICS  # with PyTorch, which a command that makes no table does not need

        unknown = [name for name in self.shown if name not in METRICS]
        if unknown or not self.shown:
            raise UserError(f"shown={list(self.shown)} must name metrics; those known are {', '.join(sorted(METRICS))}.")
        points, settings = {point.name for point in self.points}, set(self.settings)
        for row in self.rows:
            if strange := set(row.points) - points:
                raise UserError(f"row {row.name} names the points {sorted(strange)}, and the table has {sorted(points)}.")
            if strange := set(row.published) - settings:
                raise UserError(f"row {row.name} has published values at {sorted(strange)}, and the table has {sorted(settings)}.")
            silent = [point.name for point in self.points if point.published_on is None]
            if nowhere := sorted(setting for setting in row.published if setting.partition("/")[0] in silent):
                raise UserError(f"row {row.name} has published values at {nowhere}; say in `published_on` of that point what they are of.")
            if strange := {name for values in row.published.values() for name in values} - set(self.shown):
                raise UserError(f"row {row.name} has published values of {sorted(strange)}, which the table does not show.")

    @property
    def settings(self) -> Mapping[str, str]:
        """Headings of everything that is scored, by setting: a point, or '<point>/<case>'."""
        headings: dict[str, str] = {}
        for point in self.points:
            title = point.title or point.name
            if point.cases:
                headings |= {
                    f"{point.name}/{case}": f"{title}, {text}" if text else f"{title}, {case}" for case, text in point.cases.items()
                }
            else:
                headings[point.name] = title
        return headings


def filled(command: str, words: Mapping[str, str]) -> str:
    """Return `command` with its words in braces replaced; '${...}' is Hydra's and stays.

    Raises UserError that names a word the point does not have.
    """

    def word(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise UserError(f"'{command}' holds the word {{{match[1]}}}, and the point has {', '.join(sorted(words)) or 'no words'}.")
        return words[match[1]]

    return re.sub(r"(?<!\$)\{(\w+)\}", word, command)
