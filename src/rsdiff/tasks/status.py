"""task=status: the state of every run of a sweep, read from files alone, so it works while they run anywhere on a shared file system."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import rsdiff
from rsdiff.config import UserError
from rsdiff.runs import sweep
from rsdiff.runs.command import next_command
from rsdiff.runs.console import LOG
from rsdiff.runs.result import TaskResult
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import StatusTask
from rsdiff.tracking.tracker import Cell

RETRIED = frozenset({"failed", "killed"})
ORDER = ("finished", "running", "waiting", "interrupted", "failed", "killed", "deleted")


class SweepError(RuntimeError):
    """Cells of a sweep did not finish."""


def run(settings: RunSettings) -> TaskResult:
    """Print the sweep's cells; with `retry_failed`, first run those again that failed or were killed.

    Raises UserError where there is no such sweep, SweepError where runs that were tried again did not finish.
    """
    task = settings.task
    assert isinstance(task, StatusTask)
    folder = find_sweep(settings.outputs / "sweeps", task.sweep)
    cells = sweep.stand(folder)
    if task.retry_failed:
        chosen = [record.number for record in cells if record.state in RETRIED]
        if chosen:
            retry(folder, chosen)
        cells = sweep.stand(folder)
        left = [record for record in cells if record.number in chosen and record.state != "finished"]
        if left:
            raise SweepError(f"{len(left)} of the {len(chosen)} runs that were tried again did not finish; first: {told(left[0])}")
    return TaskResult(messages=lines(folder, cells))


def find_sweep(sweeps: Path, name: str | None) -> Path:
    """Return the folder of a sweep by its signature or path, or of the one started last."""
    if name is not None:
        folder = sweeps / name if (sweeps / name).is_dir() else Path(name)
        if folder.is_dir():
            return folder
        raise UserError(f"task.sweep={name} is no sweep of {sweeps}; leave it out for the one started last.")
    plans = sorted(sweeps.glob(f"*/{sweep.PLAN}"), key=lambda path: path.stat().st_mtime)
    if not plans:
        raise UserError(f"{sweeps} holds no sweep; begin one with {next_command('-m', 'SETTING=A,B')}, or give outputs=FOLDER.")
    return plans[-1].parent


def retry(folder: Path, cells: Sequence[int]) -> None:
    """Give the sweep's command again for some of its cells and wait for its end."""
    plan = sweep.read_plan(folder)
    if plan.processes > 1 or not plan.is_whole:
        how = f"with {plan.processes} processes by accelerate launch" if plan.processes > 1 else "as a part of another task"
        again = shlex.join(plan.command)
        raise UserError(f"the sweep was started {how} (run.py {again}); give that command again, which runs only what has not finished.")
    command = [sys.executable, *plan.program, *plan.command]
    here = os.pathsep.join([str(Path(rsdiff.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])  # the current folder changes
    environment = {**os.environ, "PYTHONPATH": here, sweep.CHOSEN_CELLS: ",".join(map(str, cells))}
    subprocess.run(command, cwd=plan.where, env=environment, check=False)


def lines(folder: Path, records: Sequence[sweep.Record]) -> list[str]:
    """Return the lines to print: one line per cell, the errors with their logs, the counts, what to type next."""
    counts = Counter(record.state for record in records)
    total = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    told_lines = [sweep.text_table(rows_of(records))]
    told_lines += [told(record) for record in records if record.state in (*RETRIED, "interrupted", "deleted")]
    told_lines.append(f"{folder}: {len(records)} runs, {total}")
    if any(record.state in RETRIED for record in records):
        told_lines.append(f"next     {next_command('task=status', f'task.sweep={folder}', 'task.retry_failed=true')}")
    return told_lines


def rows_of(records: Sequence[sweep.Record]) -> list[dict[str, Cell]]:
    """Return one row per cell: what distinguishes it, its state, since when and where it runs or ran."""
    rows = sweep.table_rows([replace(record, summary={}) for record in records])
    return [
        {**{name: value for name, value in row.items() if name != "folder"}, "since": record.since, "place": record.place}
        for row, record in zip(rows, records, strict=True)
    ]


def told(record: sweep.Record) -> str:
    """Return a line on a cell that has not finished: its error, and where to read more."""
    trace = Path(record.folder) / LOG
    more = record.log or (str(trace) if record.folder and trace.exists() else "")
    return f"run {record.number} {record.state}: {record.error}" + (f" Log: {more}" if more else "")
