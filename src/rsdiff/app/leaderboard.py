"""task=leaderboard: train every method of a list for the same processor time on the same data, and compare them on the same images.

Every training and evaluation is a run of its own in the outputs folder, known by its signature, as those of task=tables are: the same
command runs what is missing, and a method that is added later is compared with those that are there.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rsdiff.app.options import LeaderboardTask
from rsdiff.app.table_plan import Job, Outcome, merged
from rsdiff.app.tables import Workshop
from rsdiff.config import ConfigError
from rsdiff.config.pace import duration
from rsdiff.data.frames import markdown_of
from rsdiff.metrics import METRICS
from rsdiff.reporting.comparison import comparison
from rsdiff.reporting.records import read_records, read_summaries, write_text
from rsdiff.reporting.tables import number
from rsdiff.runs.provenance import provenance
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.runs.status import read_status
from rsdiff.tracking import Tracker

EVALUATED = "task=evaluate"
ON_EQUAL_TERMS = ("trainer.workers=0", "trainer.validate_every_steps=0", "trainer.save_every_steps=200", "metrics.panels=1")
"""What is the same for all trainings besides the data: loading counts, validations do not choose, and checkpoints are rare."""


@dataclass(frozen=True)
class Place:
    """A method on the board: its last run, with the cost of all its trainings.

    trainings  summaries of its trainings, first things first
    rows       one per test image
    """

    name: str
    path: Path
    trainings: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]

    def total(self, name: str) -> float | None:
        """Return the sum of a cost over the trainings; None where one of them could not measure it."""
        found = [training.get(name) for training in self.trainings]
        return None if not found or any(value is None for value in found) else sum(float(cast(float, value)) for value in found)


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Make the board that the settings name; see the module."""
    options = cast(LeaderboardTask, settings.task)
    if not options.methods:
        raise ConfigError("task=leaderboard has no methods; choose sweeps=leaderboard, or sweeps=leaderboard_aid, which list them.")
    jobs = jobs_of(options)
    trainings = sum(len(job.chain) for job in jobs.values() if EVALUATED not in job.settings)
    whole = duration(60 * options.minutes * sum(map(trained, jobs.values())))
    print(
        f"{len(jobs)} methods, {trainings} trainings: {whole} of processor time where nothing is done yet, and the evaluations", flush=True
    )
    workshop = Workshop(settings, None)
    outcomes = workshop.finish(list(jobs.values()))
    places = {name: place for name, job in jobs.items() if (place := place_of(name, job, outcomes)) is not None}
    missing = [f"{name}: {outcomes[job].reason}" for name, job in jobs.items() if outcomes[job].path is None]
    text = page(options, places, missing, folder)
    target = settings.outputs / "leaderboard" / f"{settings.signature[:8]}.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    tracker.table("leaderboard", [{"method": name, **flat(place, options)} for name, place in places.items()])
    return TaskResult(
        messages=[
            text.strip(),
            *(f"not run  {reason}" for reason in missing),
            f"page     {target}",
            "next     the same command runs only what is missing; task.minutes=N trains longer",
        ],
        summary={"methods": len(places), "of": len(jobs)},
        report=target,
        failure=f"{workshop.failed} runs failed, see 'not run' above; the same command tries them again." if workshop.failed else "",
    )


def trained(job: Job) -> bool:
    """Whether a job trains."""
    return EVALUATED not in job.settings


def jobs_of(options: LeaderboardTask) -> dict[str, Job]:
    """Return the last run of every method by its name; the trainings of one method share its minutes equally."""
    jobs: dict[str, Job] = {}
    for method in options.methods:
        if options.only and method.name not in options.only:
            continue
        job: Job | None = None
        for stage in method.train:
            shared = (*options.data, *ON_EQUAL_TERMS, f"trainer.processor_minutes={options.minutes / len(method.train):g}")
            job = Job(merged(stage.split(), shared, (f"seed={options.seed}",)), job)
        if job is None:
            job = Job(merged((EVALUATED, *method.evaluate), options.data, ("metrics.panels=1", f"seed={options.seed}")))
        jobs[method.name] = job
    return jobs


def place_of(name: str, job: Job, outcomes: Mapping[Job, Outcome]) -> Place | None:
    """Return what became of a method, or None where it did not finish."""
    path = outcomes[job].path
    if path is None:
        return None
    chain = [outcomes[link].path for link in job.chain if trained(link)]
    trainings = [read_status(place).summary for place in chain if place is not None]
    rows: Any = read_records(path / "evaluation").to_dict("records")
    return Place(name, path, trainings, rows, read_summaries(path / "evaluation")[""])


def flat(place: Place, options: LeaderboardTask) -> dict[str, Any]:
    """Return a method's means and costs as one row."""
    means = {name: found["mean"] for name in options.shown if (found := place.summary["metrics"].get(name)) and found["mean"] is not None}
    costs = {name: value for name in ("processor_seconds", "joules", "steps") if (value := place.total(name)) is not None}
    parameters = {"parameters": place.trainings[-1]["parameters"]} if place.trainings else {}
    return {**means, **costs, **parameters, "seconds_per_image": place.summary["seconds_per_image"]}


def page(options: LeaderboardTask, places: Mapping[str, Place], missing: Sequence[str], folder: RunFolder) -> str:
    """Return the page in Markdown."""
    git = provenance(folder.command, folder.repository)["git"]
    shown = [METRICS[name] for name in options.shown]
    lines = ["# Leaderboard of equal budgets", ""]
    lines += [
        f"Every method was trained for {options.minutes:g} minutes of processor time ({processor()}), all its stages together, on the same "
        f"images (`{' '.join(options.data)}`), without validations, and restored the same test images. What a method gains from a longer "
        "training, this does not say.",
        "",
    ]
    if places:
        first = next(iter(places.values()))
        lines += [f"{first.summary['images']} test images, protocol {first.summary['protocol']}, seed {options.seed}.", ""]
        columns = ["Method", *(metric.title for metric in shown), "trained s", "steps", "s/image", "parameters", "energy kJ"]
        lines += [markdown_of(columns, [line(place, options) for place in ordered(places, options)], columns[1:]), ""]
        lines += ["Energy is that of all processors of the machine while a method trained, where they tell it."]
        if all(place.total("joules") is None for place in places.values()):
            lines += ["Here it is not measurable: the counters of /sys/class/powercap are not there or not readable."]
        lines += [comparison(shown, {place.name: place.rows for place in ordered(places, options)}, "method")]
    if missing:
        lines += ["## Not run", "", *(f"- {reason}" for reason in missing), ""]
    lines += [f"Made by `{folder.command_text}` at commit {git['commit'] if git else 'none'}."]
    return "\n".join(lines) + "\n"


def ordered(places: Mapping[str, Place], options: LeaderboardTask) -> list[Place]:
    """Return the places by the first metric, the best first; those without a value come last."""
    metric = METRICS[options.shown[0]]
    sign = -1 if metric.direction == "higher" else 1

    def key(place: Place) -> tuple[bool, float]:
        mean = place.summary["metrics"].get(metric.name, {}).get("mean")
        return mean is None, 0.0 if mean is None else sign * mean

    return sorted(places.values(), key=key)


def line(place: Place, options: LeaderboardTask) -> list[str]:
    """Return a method's row of the first table."""
    row = flat(place, options)
    metrics = [number(METRICS[name], row[name]) if name in row else "-" for name in options.shown]
    seconds, image, joules = row.get("processor_seconds"), row["seconds_per_image"], row.get("joules")
    return [
        place.name,
        *metrics,
        "-" if seconds is None else f"{seconds:.0f}",
        f"{row['steps']:.0f}" if "steps" in row else "-",
        "-" if image is None else f"{image:.3g}",
        f"{row['parameters']:,}".replace(",", " ") if "parameters" in row else "-",
        "-" if joules is None else f"{joules / 1000:.3g}",
    ]


def processor() -> str:
    """Return the name of this machine's processor and how many threads a run uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
