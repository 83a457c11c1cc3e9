"""A published table as one self-contained HTML page: sortable tables, quality against cost, the perception-distortion plane, sliders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsdiff.metrics import METRICS, Metric
from rsdiff.reporting.figures import CostPoint, PlanePoint, perception_distortion, quality_against_cost
from rsdiff.reporting.page import embedded, safe_svg, write_page
from rsdiff.reporting.published import (
    MACHINERY,
    CellResult,
    TableResult,
    cell_text,
    comma_separated,
    heading,
    latex,
    link,
    markdown,
    seconds_text,
)
from rsdiff.reporting.records import write_text

PERCEPTUAL = ("lpips_alex", "lpips_alex_01", "lpips_vgg", "dists", "fid", "kid", "niqe", "niqe_gray", "niqe_rs", "niqe_pooled")
"""Candidates for the vertical axis of the perception-distortion plane; the first that a table has values of is taken."""
DISTORTION = ("psnr", "mpsnr", "ssim", "rmse")


@dataclass(frozen=True)
class Shown:
    """A cell of the page: what is printed and what it is sorted by."""

    text: str
    value: float | str
    verdict: str = ""
    title: str = ""


def write_table(folder: Path, result: TableResult) -> Path:
    """Write table.md, table.tex, table.csv and table.html into `folder`; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_part(result, setting, title, folder) for setting, title in result.settings.items()]
    texts = {"table.md": markdown(result, folder), "table.tex": latex(result), "table.csv": comma_separated(result, folder)}
    for name, text in texts.items():
        write_text(folder / name, text)
    page = folder / "table.html"
    write_page(
        page,
        "table",
        result=result,
        machinery=MACHINERY,
        headings=[(heading(metric), metric.meaning) for metric in result.metrics],
        parts=parts,
        cost=safe_svg(_cost(result)),
        plane=safe_svg(_plane(result)),
        no_plane=_no_plane(result),
        quality=heading(_quality(result)),
        scenes=_scenes(result),
    )
    return page


def write_index(path: Path, results: Sequence[TableResult], pages: Sequence[Path]) -> Path:
    """Write the page that leads to those of all tables, with what is missing in each; return its path."""
    tables = []
    for result, page in zip(results, pages, strict=True):
        cells = [cell for row in result.rows for cell in row.cells.values()]
        compared = sum(cell.difference(name) is not None for cell in cells for name in cell.published)
        tables.append(
            {
                "title": result.title,
                "address": link(page, path.parent),
                "done": sum(cell.is_complete for cell in cells),
                "of": len(cells),
                "published": sum(len(cell.published) for cell in cells),
                "compared": compared,
                "missing": sorted({cell.reason for cell in cells if cell.reason}),
                "unavailable": [METRICS[name].title for name in result.unavailable],
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(
        path,
        "tables",
        tables=tables,
        machinery=MACHINERY,
        budget=results[0].budget if results else "quick",
        command=results[0].command if results else "",
    )
    return path


def _part(result: TableResult, setting: str, title: str, folder: Path) -> dict[str, object]:
    """One setting's table: rows of (name, note, cells, links)."""
    rows = []
    for row in result.rows:
        cell = row.cells.get(setting)
        if cell is None:
            continue
        shown = [_shown(metric, cell, result) for metric in result.metrics]
        seconds = cell.seconds_per_image
        shown.append(Shown(seconds_text(cell), "" if seconds is None else seconds))
        rows.append((row.name, row.note, shown, [link(report, folder) for report in cell.reports], cell.reason))
    return {"title": title, "rows": rows, "circumstances": result.circumstances.get(setting, ())}


def _shown(metric: Metric, cell: CellResult, result: TableResult) -> Shown:
    ours, printed = cell.values.get(metric.name), cell.published.get(metric.name)
    verdict = ""
    difference = cell.difference(metric.name)
    if difference is not None and metric.direction != "none":
        verdict = "better" if (difference > 0) == (metric.direction == "higher") else "worse"
    why = (cell.apart if printed is not None else "") if ours is not None else cell.reason or result.unavailable.get(metric.name, "")
    return Shown(cell_text(metric, cell), "" if ours is None else ours.mean, verdict, why)


def _points(result: TableResult, metric: Metric) -> list[tuple[str, str, CellResult]]:
    """Return (method, setting, cell) of every cell with a value of `metric`."""
    return [
        (row.name, result.settings[setting], cell)
        for row in result.rows
        for setting, cell in row.cells.items()
        if metric.name in cell.values
    ]


def _quality(result: TableResult) -> Metric:
    """Return the metric of the plot against cost: the first that says better or worse and has values."""
    candidates = [metric for metric in result.metrics if metric.direction != "none" and _points(result, metric)]
    return candidates[0] if candidates else result.metrics[0]


def _cost(result: TableResult) -> str | None:
    """Quality against seconds per image, at the first setting that has values: several would hide each other."""
    metric = _quality(result)
    found = _points(result, metric)
    points = [
        CostPoint(name, cell.seconds_per_image, cell.values[metric.name].mean)
        for name, setting, cell in found
        if setting == found[0][1] and cell.seconds_per_image is not None
    ]
    return quality_against_cost(points, "seconds per image", heading(metric), metric.direction != "lower")


def _axes(result: TableResult) -> tuple[Metric, Metric] | None:
    """Return the distortion and the perceptual metric of the plane, of those that the table has values of."""
    present = {name for row in result.rows for cell in row.cells.values() for name in cell.values}
    distortion = next((name for name in DISTORTION if name in present), None)
    perceptual = next((name for name in PERCEPTUAL if name in present), None)
    return None if distortion is None or perceptual is None else (METRICS[distortion], METRICS[perceptual])


def _plane(result: TableResult) -> str | None:
    axes = _axes(result)
    if axes is None:
        return None
    distortion, perceptual = axes
    points: list[PlanePoint] = []
    for name, setting, cell in _points(result, distortion):
        if perceptual.name in cell.values:
            ours = cell.values[distortion.name].mean, cell.values[perceptual.name].mean
            points.append(PlanePoint(name, *ours, group=setting))
    return perception_distortion(points, heading(distortion), heading(perceptual), distortion.direction == "higher")


def _no_plane(result: TableResult) -> str:
    """Return why there is no perception-distortion plane, or ''."""
    if _axes(result) is not None:
        return ""
    reasons = [f"{METRICS[name].title}: {result.unavailable[name]}" for name in PERCEPTUAL if name in result.unavailable]
    return "No perceptual metric was computed. " + " ".join(reasons)


def _scenes(result: TableResult) -> list[dict[str, object]]:
    """One scene per setting: the address of every picture by name, LR and HR first."""
    scenes: list[dict[str, object]] = []
    for setting, title in result.settings.items():
        cells = [(row.name, row.cells[setting].pictures) for row in result.rows if setting in row.cells]
        drawn = [(name, pictures) for name, pictures in cells if pictures is not None]
        if not drawn:
            continue
        first = drawn[0][1]
        shown = [("LR", embedded(first.lr))]
        if first.hr is not None:
            shown.append(("HR", embedded(first.hr)))
        shown += [(name, embedded(pictures.restored)) for name, pictures in drawn]
        scenes.append({"title": title, "image": first.image, "pictures": shown})
    return scenes
