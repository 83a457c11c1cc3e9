"""task=score: what any tool restored, against its references, under a named protocol: the tables, records and page of task=evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rsdiff.config.paths import typed_path
from rsdiff.data.file_options import FileOptions
from rsdiff.data.normalisation import NormaliserConfig
from rsdiff.inference.saving import save_maps
from rsdiff.metrics.scoring import Images, score_images
from rsdiff.reporting.comparison import comparison
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import ScoreTask
from rsdiff.tasks.results import as_text, page_facts, summary_row, write_results
from rsdiff.tracking import Tracker


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Score the folders or files that `sr` names against `hr`."""
    task = settings.task
    assert isinstance(task, ScoreTask)
    options = file_options(task)
    places = [typed_path(place) for place in settings.restored]
    reference = typed_path(str(settings.options.hr))
    others = {role: typed_path(place) for role, place in (("lr", task.lr_folder), ("change_mask", task.mask_folder)) if place}
    names = tool_names(places)
    scored = []
    for name, place in zip(names, places, strict=True):
        images = Images(place, reference, others, options, settings.scale)

        def progress(done: int, total: int, name: str = name) -> None:
            tracker.progress(f"scoring {name}", done, total)

        maps = partial(save_maps, folder=folder.path / "evaluation" / "maps" / (name if len(places) > 1 else ""))
        scored.append(score_images(name, images, settings.metrics, task.per_band, progress, maps if task.save_maps else None))
    first = scored[0]
    several = len(scored) > 1
    by_case = [(tool.name, tool.summary) for tool in scored] if several else first.parts
    rows = [{**row, "name": f"{tool.name}/{row['name']}", "tool": tool.name} if several else row for tool in scored for row in tool.rows]
    title = f"{', '.join(names)} against {reference.name}, x{settings.scale:g}"
    facts = page_facts(settings, folder, title, {"Restored": ", ".join(map(str, places)), "References": str(reference)})
    metrics = [entry.metric for entry in first.summary.metrics]
    more = comparison(metrics, {tool.name: tool.rows for tool in scored}, "tool") if several else ""
    written = write_results(folder, tracker, facts, first.summary, rows, by_case, more=more)
    shown = [as_text(first.summary, title), *written.shown] if first.parts and not several else written.shown
    return TaskResult(
        messages=[*shown, *([more.strip()] if more else []), f"report   {written.page}", f"records  {folder.path}/evaluation/records.csv"],
        summary=summary_row(first.summary),
        report=written.page,
        files=written.files,
    )


def file_options(task: ScoreTask) -> FileOptions:
    """Return how the files of a task are read."""
    normaliser = NormaliserConfig()
    if task.low is not None and task.high is not None:
        normaliser = NormaliserConfig(rule="fixed", low=(task.low,), high=(task.high,))
    return FileOptions(take_bands=task.bands, convert="rgb" if task.rgb else "no", normaliser=normaliser)


def tool_names(places: Sequence[Path]) -> list[str]:
    """Return a name for every place, its last part, with the folder above where two are called alike."""
    names = [place.stem if place.is_file() else place.name for place in places]
    return [name if names.count(name) == 1 else f"{place.parent.name}_{name}" for name, place in zip(names, places, strict=True)]
