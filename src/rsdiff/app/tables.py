"""task=tables: run what published tables need and is not finished yet, then write them with published values beside ours.

Every training and evaluation is a run of its own in the outputs folder, known by its signature: what is finished is not repeated, what was
killed goes on where it stopped, and tables share what they have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra import compose
from hydra.core.hydra_config import HydraConfig

from rsdiff.app.command_line import CONFIG_NAME, check_run
from rsdiff.app.composition import group_config
from rsdiff.app.diagnosis import options_of_group
from rsdiff.app.foresight import foreseen
from rsdiff.app.launching import launch
from rsdiff.app.options import TablesTask
from rsdiff.app.table_options import TableConfig, filled
from rsdiff.app.table_plan import Job, Outcome, QuickData, cells_of, data_settings
from rsdiff.app.table_results import flat_rows, table_result
from rsdiff.config import ConfigError, UserError
from rsdiff.data.source import DataError
from rsdiff.reporting.published_page import write_index, write_table
from rsdiff.runs.identity import signature_of
from rsdiff.runs.ownership import forget_dead_owner
from rsdiff.runs.provenance import provenance
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.runs.status import Status, read_status
from rsdiff.runs.sweep import Record
from rsdiff.tasks.plan import counted
from rsdiff.tracking import Tracker
from rsdiff.training.checkpoints import CheckpointError

DATA_FOLDER = "data"
"""Where the data set files of the repository look for published data; `task.data_root` takes its place."""
WEIGHTS_FOLDER = "weights"
"""Where released weights are looked for, and in the folder of that name below `task.data_root`."""
QUICK_LIMITS = {"limit": 5, "test_limit": 2}
"""Images of published data in the quick budget, training and test, as many as of generated ones."""


@dataclass(frozen=True)
class Run:
    """What does one or several jobs that come to the same.

    command   what is typed after run.py
    settings  what that composes
    status    of the run before anything is launched
    """

    path: Path
    command: tuple[str, ...]
    settings: RunSettings
    status: Status
    jobs: list[Job] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.status.state == "finished" and not self.status.lost_files(self.path)


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Make the tables that the settings name; see the module."""
    options = cast(TablesTask, settings.task)
    tables = chosen_tables(options)
    workshop = Workshop(settings, options.data_root)
    models = options_of_group("model")
    cells = {
        name: cells_of(table, options.budget, options.seeds, models, workshop.needless, workshop.find_data)
        for name, table in tables.items()
    }
    outcomes = workshop.finish([cell.job for of_table in cells.values() for cell in of_table if cell.job is not None])
    place = settings.outputs / "tables"
    git = provenance(folder.command, folder.repository)["git"]
    results = []
    for name, table in tables.items():
        commit = git["commit"] if git else "none"
        notes = data_notes(table, workshop) if options.budget == "quick" else []
        results.append(table_result(name, table, cells[name], outcomes, options, notes, folder.command_text, commit))
        tracker.table(f"tables/{name}", flat_rows(results[-1]))
    pages = [write_table(place / f"{result.name}-{options.budget}", result) for result in results]
    index = write_index(place / f"index-{options.budget}.html", results, pages)
    done = sum(cell.is_complete for result in results for row in result.rows for cell in row.cells.values())
    everything = sum(len(row.cells) for result in results for row in result.rows)
    missing = list(dict.fromkeys(cell.reason for result in results for row in result.rows for cell in row.cells.values() if cell.reason))
    return TaskResult(
        messages=[
            *(f"not run  {reason}" for reason in missing),
            *(f"missing  {sentence}" for sentence in workshop.missing_data.values()),
            f"{done} of {everything} cells of {counted(len(results), 'table')}, budget {options.budget}, {counted(options.seeds, 'seed')}",
            *(f"table    {page}" for page in pages),
            f"index    {index}",
            "next     the same command runs only what is missing"
            + ("; task.budget=paper reproduces the published trainings" if options.budget == "quick" else ""),
        ],
        summary={"tables": len(results), "cells": done, "of": everything},
        report=index if len(pages) > 1 else pages[0],
        failure=f"{workshop.failed} runs failed, see 'not run' above; the same command tries them again." if workshop.failed else "",
    )


def chosen_tables(options: TablesTask) -> dict[str, TableConfig]:
    """Return the tables by name: the one that `sweeps=` chose, or those that `tables` names. Hydra must be composing.

    Raises ConfigError for a name that no file has.
    """
    if options.table is not None:
        choice = str(HydraConfig.get().runtime.choices.get("sweeps"))
        return {choice.rpartition("/")[2]: options.table}
    known = options_of_group("sweeps/tables")
    names = known if "all" in options.tables else list(options.tables)
    tables = {}
    for name in names:
        if name not in known:
            raise ConfigError(f"task.tables={name} does not exist; the tables are {', '.join(known)}.")
        task = group_config(compose(CONFIG_NAME, [f"sweeps=tables/{name}"]), "task")
        assert isinstance(task, TablesTask), f"sweeps/tables/{name}.yaml chooses another task"
        assert task.table is not None, f"sweeps/tables/{name}.yaml holds no table"
        tables[name] = task.table
    return tables


def needless_for(model: str) -> tuple[str, ...]:
    """Return how settings begin that have no effect on the training of `model`: its scale where one serves all, and the sampler's."""
    config = group_config(compose(CONFIG_NAME, [f"model={model}"]), "model")
    return (*(["scale="] if config.any_scale else []), *([] if config.samples else ["sampler.", "sampler="]))


class Workshop:
    """Finishes jobs, in waves: what depends on nothing unfinished is given to the launcher together.

    data_root  folder of published data sets that takes the place of 'data', or None
    """

    def __init__(self, settings: RunSettings, data_root: str | None) -> None:
        self.outputs = settings.outputs
        self.signature = settings.signature
        self.failed = 0
        """Runs that were begun and did not end well."""
        self.logger = settings.choices["logger"]
        self.data_root = data_root
        self.missing_data: dict[str, str] = {}
        """Sentences that name the published data sets for which generated data stand, by their settings in words."""
        self._needless: dict[str, tuple[str, ...]] = {}
        self._found: dict[str, QuickData | None] = {}
        self._begin: dict[Job, Run | Outcome] = {}
        """What the first jobs of chains were found to be before the first wave, which need not compose them again."""

    def needless(self, model: str) -> tuple[str, ...]:
        """Return `needless_for` a model, which is composed once."""
        if model not in self._needless:
            self._needless[model] = needless_for(model)
        return self._needless[model]

    def find_data(self, settings: Sequence[str]) -> QuickData | None:
        """Return the published data of an evaluation, a few images of them, if `data_root` is given and holds them."""
        chosen = data_settings(settings)
        if self.data_root is None or not chosen:
            return None
        words = " ".join(chosen)
        if words not in self._found:
            self._found[words] = self._look_for(chosen)
        return self._found[words]

    def _look_for(self, chosen: Sequence[str]) -> QuickData | None:
        dataset = group_config(compose(CONFIG_NAME, list(chosen)), "dataset")
        moved = self._data_folder(dataset)
        if not moved:
            return None
        place = (*chosen, *moved)
        dataset = group_config(compose(CONFIG_NAME, list(place)), "dataset")
        try:
            dataset.check()
        except DataError as error:
            self.missing_data[" ".join(chosen)] = f"{chosen[0]}: {error}"
            return None
        limits = [f"dataset.{name}={count}" for name, count in QUICK_LIMITS.items() if hasattr(dataset, name)]
        return QuickData((*place, *limits), trains="hr" in dataset.gives, brings_lr="lr" in dataset.gives)

    def finish(self, jobs: Sequence[Job]) -> dict[Job, Outcome]:
        """Run what is not finished yet and return how every job, and those before it, ended.

        What will be refused when its training has ended is not trained for.
        """
        refused = {job: reason for job in jobs if (reason := self._foreseen(job))}
        everything = list(dict.fromkeys(link for job in jobs if job not in refused for link in job.chain))
        outcomes: dict[Job, Outcome] = {}
        for wave in range(max((len(job.chain) for job in everything), default=0)):
            outcomes |= self._wave(wave, [job for job in everything if len(job.chain) == wave + 1], outcomes, len(everything))
        return {link: Outcome(reason=reason) for job, reason in refused.items() for link in job.chain} | outcomes

    def _foreseen(self, job: Job) -> str:
        """Return the sentence with which a run of a chain will be refused once what it starts from is trained; "" where nothing tells."""
        first, *others = job.chain
        if others and first not in self._begin:
            self._begin[first] = self._prepare(first, {})
        begins = self._begin.get(first, Outcome())
        if isinstance(begins, Outcome) or (begins.is_finished and len(others) == 1):
            return ""  # the wave says why it cannot begin, or composes what comes after from the checkpoint that is there
        trained = begins.settings
        try:
            for link in others:
                trained = foreseen(self._command(link), trained, self._data_folder)
        except UserError as refusal:
            return str(refusal)
        return ""

    def _command(self, job: Job) -> list[str]:
        return [*job.settings, f"outputs='{self.outputs}'", f"logger={self.logger}"]

    def _wave(self, wave: int, jobs: Sequence[Job], outcomes: Mapping[Job, Outcome], everything: int) -> dict[Job, Outcome]:
        """Run what is not finished of `jobs`, whose predecessors have ended, and return how each ended.

        A wave is one sweep with a name of its own, whatever of it was finished before.
        """
        ended: dict[Job, Outcome] = {}
        runs: dict[Path, Run] = {}
        for job in jobs:
            prepared = self._begin.get(job) or self._prepare(job, outcomes)
            if isinstance(prepared, Outcome):
                ended[job] = prepared
            else:
                runs.setdefault(prepared.path, prepared).jobs.append(job)
        finished = {
            number: Record(number, run.command, "finished", str(run.path), summary=run.status.summary)
            for number, run in enumerate(runs.values())
            if run.is_finished
        }
        records = [finished.get(number) for number in range(len(runs))]
        if len(finished) < len(runs):
            done, later = len(outcomes) + len(finished), everything - len(outcomes) - len(jobs)
            print(f"{len(runs) - len(finished)} runs to do, {done} finished, {later} waiting for them", flush=True)
            name = signature_of({"tables": self.signature, "wave": wave})
            records = list(launch([run.command for run in runs.values()], finished, self.outputs, name))
        for run, record in zip(runs.values(), records, strict=True):
            assert record is not None
            good = read_status(run.path).state == "finished"
            self.failed += not good
            ended |= dict.fromkeys(
                run.jobs, Outcome(run.path, settings=run.settings) if good else Outcome(reason=record.error or "it did not finish.")
            )
        return ended

    def _prepare(self, job: Job, outcomes: Mapping[Job, Outcome]) -> Run | Outcome:
        """Return the run that does `job`, or the sentence why there is none."""
        earlier = outcomes[job.after] if job.after is not None else None
        if earlier is not None and earlier.path is None:
            return Outcome(reason=earlier.reason)
        command = self._command(job)
        if earlier is not None:
            command.append(f"checkpoint='{earlier.path}'")
        if job.released:
            weights = self._released(job.released)
            if weights is None:
                return Outcome(reason=f"{WEIGHTS_FOLDER}/{job.released} is not there; get it so: {job.download}")
            command.append(f"checkpoint='{weights}'")
        try:
            settings = check_run(command)
            if moved := self._data_folder(settings.dataset):
                command += moved
                settings = check_run(command)
            run = Run(settings.run_path, tuple(command), settings, read_status(settings.run_path))
            if run.is_finished:
                forget_dead_owner(run.path)  # nobody else enters its folder
            else:
                settings.dataset.check()
        except (ConfigError, DataError, CheckpointError) as refusal:
            return Outcome(reason=str(refusal))
        return run

    def _released(self, name: str) -> Path | None:
        """Return the file of released weights of that name, or None where it is not there."""
        folders = [Path(WEIGHTS_FOLDER), *([Path(self.data_root) / WEIGHTS_FOLDER] if self.data_root is not None else [])]
        return next((folder / name for folder in folders if (folder / name).is_file()), None)

    def _data_folder(self, dataset: Any) -> list[str]:
        """Return the setting that moves a data set to `data_root`, if it looks in the repository's own place."""
        root = getattr(dataset, "root", None)
        if self.data_root is None or root is None:
            return []
        inside = Path(root)
        if inside.parts[:1] != (DATA_FOLDER,):
            return []
        return [f"dataset.root='{Path(self.data_root).joinpath(*inside.parts[1:])}'"]


def data_notes(table: TableConfig, workshop: Workshop) -> list[str]:
    """Return a sentence on every point's data in the quick budget, where a folder of published data was given."""
    notes = []
    for point in table.points:
        settings = [filled(setting, point.words) for setting in point.evaluate]
        found = workshop.find_data(settings)
        if found is not None:
            trained = "" if found.trains else "; trained on generated data, because these have no targets"
            notes.append(f"{point.name}: a few images of {data_settings(settings)[0]}{trained}.")
        elif missing := workshop.missing_data.get(" ".join(data_settings(settings))):
            notes.append(f"{point.name}: generated data stand for {missing}")
    return list(dict.fromkeys(notes))
