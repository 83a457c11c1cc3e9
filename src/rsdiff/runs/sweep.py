"""The folder of a sweep, which any process can read at any time, whichever launcher runs the cells (a cell is one run of a sweep).

sweep.json       the command and the settings of every cell
run_<n>.json     what cell n is doing or how it ended; its own process writes it
summary.md, csv  one table, at the end of the sweep
"""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rsdiff.config import UserError
from rsdiff.data.durable import remove_leftovers, write_json
from rsdiff.data.frames import markdown_of
from rsdiff.runs.command import next_command, typed_command
from rsdiff.runs.errors import is_interruption, one_sentence
from rsdiff.runs.ownership import is_owned
from rsdiff.runs.settings import RunSettings
from rsdiff.runs.status import Status, read_status
from rsdiff.tracking.tracker import Cell, columns_of

WIDTH_OF_LOG_FILES = 200
"""Characters of a table that no terminal limits."""
PLAN = "sweep.json"
CHOSEN_CELLS, LAUNCHED_CELLS = "RSDIFF_CELLS", "RSDIFF_LAUNCHED_CELLS"
"""Environment: numbers of the cells that are to run, of all that are launched; and of those that are launched, where some are left out."""


@dataclass(frozen=True)
class Plan:
    """What a sweep was asked to do.

    program    what Python ran: run.py, or -m rsdiff
    command    its arguments
    where      folder the command was given in
    processes  processes of `accelerate launch`, 1 without it
    cells      the settings of every run
    is_whole   whether the command is the sweep and nothing else, so that it can be given again for some of the cells
    """

    program: tuple[str, ...]
    command: tuple[str, ...]
    where: str
    processes: int
    cells: tuple[tuple[str, ...], ...]
    is_whole: bool


@dataclass(frozen=True)
class Record:
    """One run of a sweep.

    state    waiting (it has not begun), running, finished, failed or interrupted
    place    host and process, and the Slurm job where there is one
    since    when it last began
    log      what it prints, where a launcher sends that to a file
    """

    number: int
    overrides: tuple[str, ...]
    state: str = "waiting"
    folder: str = ""
    error: str = ""
    place: str = ""
    since: str = ""
    log: str = ""
    summary: Mapping[str, float | int | str] = field(default_factory=dict)

    def begun(self, folder: Path) -> Record:
        """Return the record of a run that begins now in this process."""
        job = os.environ.get("SLURM_JOB_ID")
        array = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}" if "SLURM_ARRAY_JOB_ID" in os.environ else job
        place = f"{socket.gethostname()} pid {os.getpid()}" + (f", Slurm job {array}" if job else "")
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        return replace(self, state="running", folder=str(folder), place=place, since=since, log=str(launcher_log() or ""))

    def of(self, settings: RunSettings, status: Status) -> Record:
        """Return the record of a run that ended by itself."""
        return replace(self, state=status.state, folder=str(settings.run_path), summary=status.summary, error=status.error or "")

    def failed(self, error: BaseException) -> Record:
        """Return the record of a run that `error` ended."""
        return replace(self, state="interrupted" if is_interruption(error) else "failed", error=one_sentence(error))

    def ended(self, state: str) -> Record:
        """Return the record with another state."""
        return replace(self, state=state)


def start(folder: Path, cells: Sequence[Sequence[str]], is_whole: bool = True) -> Path:
    """Make the sweep's folder, note what the sweep is to do, and return it. Records of an earlier attempt stay until their cells begin.

    cells     none where a sweeper chooses them as it goes; records of an earlier attempt, whose cells were others, are deleted then
    is_whole  see `Plan`
    """
    if _is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        for record in [] if cells else folder.glob("run_*.json"):
            record.unlink()
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        plan = Plan(program(), tuple(typed_command()[1:]), os.getcwd(), processes, tuple(tuple(cell) for cell in cells), is_whole)
        write_json(folder / PLAN, asdict(plan))
    return folder


def program() -> tuple[str, ...]:
    """Return what Python runs in this process: the file run.py, or -m rsdiff."""
    started = Path(sys.argv[0]).absolute()
    return (str(started),) if started.name == "run.py" and started.is_file() else ("-m", "rsdiff")


def read_plan(folder: Path) -> Plan:
    """Return what the sweep in `folder` is to do; raises OSError or ValueError in one sentence where there is none."""
    try:
        content = json.loads((folder / PLAN).read_text())
        cells = tuple(tuple(cell) for cell in content["cells"])
        return Plan(
            tuple(content["program"]), tuple(content["command"]), content["where"], content["processes"], cells, content["is_whole"]
        )
    except FileNotFoundError:
        raise UserError(f"{folder} is not the folder of a sweep; sweeps are in outputs/sweeps.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / PLAN} cannot be read; give the sweep's command again, which runs only what has not finished.") from None


def read_records(folder: Path) -> list[Record]:
    """Return one record per cell of the sweep, in their order; 'waiting' for cells that have not begun, which are known of most sweeps."""
    planned = {number: Record(number, cell) for number, cell in enumerate(read_plan(folder).cells)}
    begun = [_read_record(path) for path in sorted(folder.glob("run_*.json"))]
    known = {record.number: record for record in begun if record.number in planned or not planned}
    return list((planned | known).values())


def stand(folder: Path) -> list[Record]:
    """Return the records of a sweep's cells, corrected by what became of their runs.

    A cell whose process vanished without a message is 'killed', one whose results were deleted 'deleted'.
    """
    records = []
    for record in read_records(folder):
        path = Path(record.folder)
        if record.state == "running" and not is_owned(path):
            status = read_status(path)
            state = "finished" if status.state == "finished" else "killed"
            error = "" if state == "finished" else "its process ended without a message (killed, out of memory, or its host went down)."
            record = replace(record, state=state, error=error, summary=status.summary)
        elif record.state == "finished" and read_status(path).state == "new":
            record = replace(record, state="deleted", error=f"{path} was deleted.")
        records.append(record)
    return records


def keep_records(folder: Path, cells: Sequence[Sequence[str]], finished: Mapping[int, Record]) -> None:
    """Write the records of `finished` cells and delete those that another list of cells left; the other cells' own stay until they begin.

    For a sweep whose list may change under the same name.
    """
    if not _is_main_process():
        return
    for path in folder.glob("run_*.json"):
        number = int(path.stem.removeprefix("run_"))
        if number >= len(cells) or json.loads(path.read_text())["overrides"] != list(cells[number]):
            path.unlink()
    for record in finished.values():
        write_record(folder, record)


def cell_number(job: int) -> int:
    """Return the number of the cell that the launcher's job number `job` is."""
    launched = os.environ.get(LAUNCHED_CELLS)
    return int(launched.split(",")[job]) if launched else job


def is_chosen(number: int) -> bool:
    """Whether this attempt is to run cell `number`; a retry runs some of a sweep's cells."""
    chosen = os.environ.get(CHOSEN_CELLS)
    return chosen is None or str(number) in chosen.split(",")


def launcher_log() -> Path | None:
    """Return the file that this process's errors are printed to, where submitit started it."""
    if "SUBMITIT_FOLDER" not in os.environ:
        return None
    import submitit

    return Path(submitit.JobEnvironment().paths.stderr)


def write_record(folder: Path, record: Record) -> None:
    """Keep a run's record for the table."""
    if _is_main_process():
        seen = os.path.relpath(record.folder, folder) if record.folder else ""  # from the sweep's folder: outputs may be moved
        write_json(_record_path(folder, record.number), asdict(replace(record, folder=seen)))


def conclude(folder: Path) -> int:
    """Write and print the table of all runs; return how many did not finish."""
    if not _is_main_process():
        return 0
    records = stand(folder)
    rows = table_rows(records)
    columns = columns_of(rows)
    import pandas  # with all that makes tables and pages, for which a sweep is over

    pandas.DataFrame(rows, columns=columns, dtype=object).to_csv(folder / "summary.csv", index=False)
    (folder / "summary.md").write_text(markdown_of(columns, [[_cell(row.get(column)) for column in columns] for row in rows]) + "\n")
    page = write_page(folder, records, rows, columns)
    print(text_table([{name: value for name, value in row.items() if name != "folder"} for row in rows]))
    unfinished = [record for record in records if record.state != "finished"]
    for record in unfinished:
        print(f"run {record.number} ({' '.join(record.overrides)}) {record.state}{': ' + record.error if record.error else ''}")
    print(f"{len(records) - len(unfinished)} of {len(records)} runs finished; the table is in {folder / 'summary.md'} and summary.csv.")
    print(f"page     {page}")
    if unfinished:
        print(
            "The same command runs only what has not finished; "
            f"{next_command('task=status', f'task.sweep={folder.name}')} shows the state of every run."
        )
    return len(unfinished)


def table_rows(records: Sequence[Record]) -> list[dict[str, Cell]]:
    """Return one row per run: what distinguishes it from the others, its state, its summary, its folder."""
    return [
        {"run": record.number, **settings, "state": record.state, **record.summary, "folder": record.folder}
        for record, settings in zip(records, varied_settings(records), strict=True)
    ]


def varied_settings(records: Sequence[Record]) -> list[dict[str, str]]:
    """Return for each run the settings that are not the same in all of them."""
    settings = [dict(override.partition("=")[::2] for override in record.overrides) for record in records]
    names = list(dict.fromkeys(name for given in settings for name in given))
    varied = [name for name in names if len({given.get(name) for given in settings}) > 1]
    return [{name: given.get(name, "") for name in varied} for given in settings]


def write_page(folder: Path, records: Sequence[Record], rows: Sequence[Mapping[str, Cell]], columns: Sequence[str]) -> Path:
    """Write the sweep's page, with figures of quality against cost where the runs have both, and return its path."""
    from rsdiff.reporting import SweptRun, write_sweep_page  # draws figures, for which a sweep is over

    finished = [
        SweptRun(settings, record.summary)
        for record, settings in zip(records, varied_settings(records), strict=True)
        if record.state == "finished"
    ]
    common = [override for override in records[0].overrides if all(override in record.overrides for record in records)]
    cells = [{column: _cell(row.get(column)) for column in columns} for row in rows]
    return write_sweep_page(folder / "summary.html", f"Sweep {folder.name}", " ".join(common), columns, cells, finished)


def text_table(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Return rows as a table for the terminal."""
    from rich.console import Console
    from rich.table import Table

    columns = columns_of(rows)
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    terminal = sys.stdout.isatty()
    stream = io.StringIO()
    width = None if terminal else WIDTH_OF_LOG_FILES
    console = Console(file=stream, force_terminal=terminal, width=width, markup=False, emoji=False)  # a list in brackets is no colour
    console.print(table, soft_wrap=not terminal)
    return stream.getvalue().rstrip()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) >= 1e-3 else f"{value:.4g}"


def _read_record(path: Path) -> Record:
    """Return a record; its run's folder is noted as seen from the sweep's, by earlier versions as it was typed."""
    record = Record(**json.loads(path.read_text()))
    place = Path(os.path.normpath(path.parent / record.folder))
    return replace(record, folder=str(place)) if record.folder and (record.folder.startswith("..") or place.exists()) else record


def _record_path(folder: Path, number: int) -> Path:
    return folder / f"run_{number:05d}.json"


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
