"""The table of a sweep: every run leaves a record in the sweep's folder, whichever launcher ran it; the end of the sweep collects them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rsdiff.tasks.errors import is_interruption, one_sentence
from rsdiff.tasks.run_folder import Status
from rsdiff.tasks.settings import RunSettings
from rsdiff.tracking.tracker import Cell, columns_of
from rsdiff.training.checkpoints import write_json

WIDTH_OF_LOG_FILES = 200
"""Characters of a table that no terminal limits."""


@dataclass(frozen=True)
class Record:
    """One run of a sweep."""

    number: int
    overrides: tuple[str, ...]
    state: str = "unknown"
    folder: str = ""
    error: str = ""
    summary: Mapping[str, float | int | str] = field(default_factory=dict)

    def of(self, settings: RunSettings, status: Status) -> Record:
        """Return the record of a run that ended in good order."""
        return replace(self, state=status.state, folder=str(settings.run_path), summary=status.summary, error=status.error or "")

    def failed(self, error: BaseException) -> Record:
        """Return the record of a run that `error` ended."""
        return replace(self, state="interrupted" if is_interruption(error) else "failed", error=one_sentence(error))

    def ended(self, state: str) -> Record:
        """Return the record with another state."""
        return replace(self, state=state)


def start(folder: Path) -> Path:
    """Make the sweep's folder, forgetting the records of an earlier attempt, and return it."""
    if _is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("run_*.json"):
            path.unlink(missing_ok=True)
    return folder


def write_record(folder: Path, record: Record) -> None:
    """Keep a run's record for the table."""
    if _is_main_process():
        write_json(record_path(folder, record.number), asdict(record))


def record_path(folder: Path, number: int) -> Path:
    """Return the file of the record of a sweep's run."""
    return folder / f"run_{number:05d}.json"


def conclude(folder: Path) -> int:
    """Write and print the table of all runs; return how many did not finish."""
    if not _is_main_process():
        return 0
    records = [Record(**json.loads(path.read_text())) for path in sorted(folder.glob("run_*.json"))]
    if not records:
        return 0
    rows = table_rows(records)
    columns = columns_of(rows)
    with (folder / "summary.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "summary.md").write_text(markdown(rows, columns))
    _print_table(rows, [column for column in columns if column != "folder"])
    unfinished = [record for record in records if record.state != "finished"]
    for record in unfinished:
        print(f"run {record.number} ({' '.join(record.overrides)}) {record.state}: {record.error}")
    print(f"{len(records) - len(unfinished)} of {len(records)} runs finished; the table is in {folder / 'summary.md'} and summary.csv.")
    if unfinished:
        print("The same command runs only what has not finished.")
    return len(unfinished)


def table_rows(records: Sequence[Record]) -> list[dict[str, Cell]]:
    """Return one row per run: what distinguishes it from the others, its state, its summary, its folder."""
    settings = [dict(override.partition("=")[::2] for override in record.overrides) for record in records]
    names = list(dict.fromkeys(name for given in settings for name in given))
    varied = [name for name in names if len({given.get(name) for given in settings}) > 1]
    return [
        {
            "run": record.number,
            **{name: given.get(name, "") for name in varied},
            "state": record.state,
            **record.summary,
            "folder": record.folder,
        }
        for record, given in zip(records, settings, strict=True)
    ]


def markdown(rows: Sequence[Mapping[str, Cell]], columns: Sequence[str]) -> str:
    """Return rows as a Markdown table."""
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _print_table(rows: Sequence[Mapping[str, Cell]], columns: Sequence[str]) -> None:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console = Console()
    console.print(table, width=None if console.is_terminal else WIDTH_OF_LOG_FILES, soft_wrap=not console.is_terminal)


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) and abs(value) >= 1e-3 else str(value)


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
