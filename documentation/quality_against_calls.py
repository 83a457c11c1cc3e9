"""Quality against calls of the network: a trained diffusion with its own sampler and with solvers of few steps, as docs/quality.md.

    python -m documentation.quality_against_calls NAME checkpoint=RUN_FOLDER dataset.root=FOLDER dataset.test_limit=8

Solvers are compared on the grid, start and clamp of the checkpoint's own sampler; with fitted levels, those that task=fit-levels finds on
training images. Every evaluation and fit is a run of its own, so that the command goes on where it was stopped. The records of
docs/quality.json are kept: a checkpoint of the same NAME replaces its own. Without words, the page is written again from the records.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

import rsdiff
from rsdiff.api.commands import Ended
from rsdiff.config import UserError
from rsdiff.data.frames import markdown_of
from rsdiff.diffusion.sampler import calls_of
from rsdiff.metrics import METRICS, Metric
from rsdiff.reporting.figures import CostPoint, quality_against_cost
from rsdiff.tasks.publish import for_others

SOLVERS = ("dpmpp_2m", "unipc", "deis")
"""Solvers of few steps, which call the network once a step."""
FEW_STEPS = (3, 4, 6)
OWN_STEPS = (2, 3, 5)
"""Steps of the checkpoint's own sampler beside those it is set to."""
RECORDS, PAGE, PICTURES = "docs/quality.json", "docs/quality.md", "docs/images"
INTRODUCTION = """# Quality against calls

Trained diffusions with their own sampler and with solvers of few steps on its grid, start and clamp; *fitted levels* are those that
`task=fit-levels` found on training images, where they came nearer to the fine solution than the usual ones. Means over the test images.
*Error* is the root mean square distance of restorations to the fine solution of the same solver, of images in [0, 1], on held-out crops.
Energies of octaves of frequency are relative to the HR's: 1 is texture as it has it. PSNR and SSIM rise where samples lose texture: a
sampler is as good as another only if it is so in every column. The command under a heading measures again (`make quality`)."""
Ran = Callable[..., Ended]


@dataclass(frozen=True)
class Point:
    """One evaluation.

    curve    solver, and where its levels come from
    calls    of the network for an image
    metrics  means over the test images, by name
    error    root mean square distance to the fine solution of the solver on held-out crops in [0, 1], which task=fit-levels measured
    """

    curve: str
    calls: int
    metrics: Mapping[str, float]
    error: float | None = None


def measured(settings: Sequence[str], run: Ran = rsdiff.run, say: Callable[[str], None] = print) -> Iterator[Point]:
    """Yield the points of a checkpoint, its own sampler as it is set first; what a solver refuses is said and left out."""
    own = run("task=evaluate", *settings)
    yield point_of("its own sampler", own)
    own_steps = [steps for steps in OWN_STEPS if steps < own.settings.sampler.steps]
    tries: list[tuple[str, list[str], float | None]] = [("its own sampler", [f"sampler.steps={steps}"], None) for steps in own_steps]
    for solver in SOLVERS:
        for steps in FEW_STEPS:
            words = [f"sampler.solver={solver}", f"sampler.steps={steps}"]
            try:
                fit = run("task=fit-levels", *settings, *words)
            except UserError as error:
                say(f"{solver}, {steps} steps: no levels were fitted: {error}")
                tries.append((solver, words, None))
                continue
            before, after = (float(fit.summary[name]) for name in ("error_before", "error_after"))
            tries.append((solver, words, before))
            if after < before:
                levels = yaml.safe_load(fit.files[0].read_text())["sigmas"]
                listed = f"sampler.sigmas=[{','.join(map(str, levels))}]"
                tries.append((f"{solver}, fitted levels", [words[0], "sampler.grid=list", listed], after))
    for curve, words, distance in tries:
        try:
            yield point_of(curve, run("task=evaluate", *settings, *words), distance)
        except UserError as error:
            say(f"{curve}, {' '.join(words)}: {error}")


def point_of(curve: str, ended: Ended, error: float | None = None) -> Point:
    """Return what an evaluation found."""
    metrics = {name: float(value) for name, value in ended.summary.items() if name in METRICS}
    return Point(curve, calls_of(ended.settings.sampler), metrics, error)


def page_of(records: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, str]]:
    """Return the page and its figures as SVG by name."""
    text = [INTRODUCTION]
    figures: dict[str, str] = {}
    for name, record in records.items():
        points = [Point(**values) for values in record["points"]]
        text.append(f"## {name}\n\n```bash\n{record['command']}\n```")
        metrics = [metric for metric in METRICS.values() if all(metric.name in point.metrics for point in points)]
        for metric in metrics:
            drawn = [CostPoint("", point.calls, loss_of(metric, point.metrics[metric.name]), point.curve) for point in points]
            svg = quality_against_cost(drawn, "calls of the network", axis_of(metric), metric.direction == "higher", standalone=True)
            if svg is not None:
                figures[f"quality_{name}_{metric.name}.svg"] = svg
                text.append(f"![{metric.title} against calls of the network](images/quality_{name}_{metric.name}.svg)")
        heads = ["sampler", "calls", *(metric.title for metric in metrics), "error"]
        rows = [
            [p.curve, str(p.calls), *(f"{p.metrics[m.name]:.4g}" for m in metrics), "" if p.error is None else f"{p.error:.2g}"]
            for p in points
        ]
        text += [markdown_of(heads, rows, heads[1:]), reached(points, metrics)]
    return "\n\n".join(text) + "\n", figures


def loss_of(metric: Metric, value: float) -> float:
    """Return a value as it is judged: of an energy, which should be that of the HR, its distance from 1 in factors of 2."""
    return abs(math.log2(value)) if metric.direction == "none" else value


def axis_of(metric: Metric) -> str:
    """Return the label of a metric's axis."""
    if metric.direction == "none":
        return f"{metric.title}: factors of 2 from the HR's"
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title


def reached(points: Sequence[Point], metrics: Sequence[Metric]) -> str:
    """Return in a sentence what is as good as the first point, the checkpoint's own sampler: with how few calls in every metric, or, where
    none is, in how many of them with at most a quarter of its calls."""

    def columns(point: Point) -> int:
        values = [(m, loss_of(m, point.metrics[m.name]), loss_of(m, points[0].metrics[m.name])) for m in metrics]
        return sum(value >= wanted if metric.direction == "higher" else value <= wanted for metric, value, wanted in values)

    calls = points[0].calls
    own = f"Its own sampler calls the network {calls} times"
    as_good = [point for point in points[1:] if columns(point) == len(metrics)]
    if as_good:
        fewest = min(as_good, key=lambda point: point.calls)
        return f"{own}; {fewest.curve} is as good or better in every column with {fewest.calls}, {fewest.calls / calls:.2g} of the calls."
    few = [point for point in points[1:] if 4 * point.calls <= calls]
    if not few:
        return f"{own}; no other is as good in every column."
    nearest = max(few, key=columns)
    share = f"{nearest.calls}, {nearest.calls / calls:.2g} of the calls, in {columns(nearest)} of {len(metrics)}"
    return f"{own}; no other is as good in every column, and {nearest.curve} is with {share}."


def shell_word(word: str) -> str:
    """Return a setting quoted for a shell, in double quotes if it holds Hydra's single ones."""
    return f'"{word}"' if "'" in word else shlex.quote(word)


def main(repository: Path, words: Sequence[str]) -> None:
    """Measure a checkpoint and write the page of all."""
    path = repository / RECORDS
    records: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if words:
        records |= {words[0]: record_of(words[0], words[1:])}
        path.write_text(json.dumps(dict(sorted(records.items())), indent=1) + "\n")
    text, figures = page_of(dict(sorted(records.items())))
    for file, svg in figures.items():
        (repository / PICTURES / file).write_text(svg)
    (repository / PAGE).write_text(text)
    print(f"wrote {repository / PAGE}")


def record_of(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Measure a checkpoint and return its record: the points, and the command that others type."""
    if not settings or "=" in name:
        sys.exit("a name for the page or a checkpoint is missing: make quality NAME=NAME CHECKPOINT=RUN_FOLDER")
    points = []
    try:
        for point in measured(settings):
            points.append(asdict(point))
            means = ", ".join(f"{key} {value:.4g}" for key, value in point.metrics.items())
            print(f"{point.curve}, {point.calls} calls: {means}", flush=True)
    except UserError as mistake:
        sys.exit(f"error: {mistake}")
    told = [shell_word(for_others(word)) for word in settings if not word.startswith("outputs=")]
    return {"command": " ".join(["python -m documentation.quality_against_calls", name, *told]), "points": points}


if __name__ == "__main__":
    main(Path.cwd(), sys.argv[1:])
