"""What the pages of a published table show, from the runs that have ended: values beside published ones, and on what both were measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsdiff.app.options import TablesTask
from rsdiff.app.table_options import TableConfig
from rsdiff.app.table_plan import Cell, Job, Outcome
from rsdiff.app.table_protocol import Measured, published_text, why_not_subtracted
from rsdiff.metrics import METRICS
from rsdiff.reporting.published import CellResult, Pictures, Printed, RowResult, TableResult, Value
from rsdiff.reporting.records import read_summaries


def table_result(
    name: str,
    table: TableConfig,
    cells: Sequence[Cell],
    outcomes: Mapping[Job, Outcome],
    options: TablesTask,
    notes: Sequence[str],
    command: str,
    commit: str,
) -> TableResult:
    """Return everything the pages of a table show; `notes` are about the data of this budget."""
    rows = []
    protocol = ""
    unavailable: dict[str, str] = {}
    cautions: dict[str, None] = {}
    circumstances = {setting: dict.fromkeys([published] if published else []) for setting, published in published_texts(table).items()}
    for row in table.rows:
        found: dict[str, CellResult] = {}
        for point in table.points:
            mine = [cell for cell in cells if cell.row is row and cell.point is point]
            if not mine:
                continue
            reason = next((cell.reason for cell in mine if cell.reason), "")
            ended = [outcomes[cell.job] for cell in mine if cell.job is not None]
            reason = reason or next((outcome.reason for outcome in ended if outcome.reason), "")
            paths = [outcome.path for outcome in ended if outcome.path is not None]
            summaries = [read_summaries(path / "evaluation") for path in paths]
            for case in point.cases or ("",):
                setting = f"{point.name}/{case}" if case else point.name
                parts = [summary[case] for summary in summaries if case in summary]
                measured = [
                    Measured.of(outcome.settings, outcome.path / "evaluation", case)
                    for outcome in ended
                    if outcome.path is not None and outcome.settings is not None
                ]
                apart = next((why for one in measured if (why := why_not_subtracted(point.published_on, one, options.budget))), "")
                found[setting] = cell_result(parts, paths, case, table, row.published.get(setting, {}), reason, apart)
                circumstances[setting] |= dict.fromkeys(one.describe() for one in measured)
                for part in parts:
                    protocol = part["protocol"]
                    cautions |= dict.fromkeys(part.get("cautions", ()))  # runs of earlier versions tell none
                    unavailable |= {metric: text for metric, text in part["unavailable"].items() if metric in table.shown}
        rows.append(RowResult(row.name, row.model, row.note, found))
    return TableResult(
        name=name,
        title=table.title,
        source=table.source,
        budget=options.budget,
        protocol=protocol or table.metrics,
        metrics=tuple(METRICS[metric] for metric in table.shown),
        settings=table.settings,
        rows=tuple(rows),
        unavailable=unavailable,
        seeds=options.seeds,
        printed=tuple(Printed(part.title, part.source, part.protocol, part.columns, part.rows) for part in table.printed),
        notes=(*table.notes, *cautions, *notes),
        circumstances={setting: tuple(said) for setting, said in circumstances.items()},
        command=command,
        commit=commit,
    )


def published_texts(table: TableConfig) -> dict[str, str]:
    """Return, by setting, on what published values were measured, in words; '' where there are none."""
    points = {point.name: point for point in table.points}
    return {setting: published_text(points[setting.partition("/")[0]].published_on) for setting in table.settings}


def cell_result(
    parts: Sequence[Mapping[str, Any]],
    paths: Sequence[Path],
    case: str,
    table: TableConfig,
    published: Mapping[str, float],
    reason: str,
    apart: str,
) -> CellResult:
    """Return a cell from the summaries of its seeds, one each."""
    values = {}
    for metric in table.shown:
        means = [mean for part in parts if (mean := part["metrics"].get(metric, {}).get("mean")) is not None]
        if means:
            values[metric] = Value(statistics.fmean(means), statistics.stdev(means) if len(means) > 1 else None, len(means))
    seconds = [part["seconds_per_image"] for part in parts if part["seconds_per_image"] is not None]
    return CellResult(
        values=values,
        published=published,
        reason=reason,
        apart=apart if published else "",
        reports=tuple(path / "report.html" for path in paths),
        images=int(parts[0]["images"]) if parts else 0,
        seconds_per_image=statistics.fmean(seconds) if seconds else None,
        pictures=pictures_of(paths[0] / "evaluation" / case / "panels") if parts else None,
    )


def pictures_of(folder: Path) -> Pictures | None:
    """Return the pictures of the first image that an evaluation drew, or None."""
    restored = sorted(folder.glob("*.sr.png"))
    if not restored:
        return None
    stem = restored[0].name.removesuffix(".sr.png")
    lr, hr = (folder / f"{stem}.{part}.png" for part in ("lr", "hr"))
    return Pictures(stem, lr, restored[0], hr if hr.is_file() else None) if lr.is_file() else None


def flat_rows(result: TableResult) -> list[dict[str, float | int | str]]:
    """Return one row per method and setting, for the tracker."""
    return [
        {"method": row.name, "setting": setting, **{metric: value.mean for metric, value in cell.values.items()}}
        for row in result.rows
        for setting, cell in row.cells.items()
    ]
