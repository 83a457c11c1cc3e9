"""The index of an outputs folder: every run, sweep and table below it, in one page `index.html` that needs no network.

What is known of a run that has ended is kept in its folder (`board.json`), so that a page of a thousand runs is renewed in a second.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from rsdiff.config import PlaceError, UserError
from rsdiff.data.durable import write_json
from rsdiff.runs import sweep
from rsdiff.runs.command import next_command, shell_text
from rsdiff.runs.console import LOG
from rsdiff.runs.identity import IDENTITY, read_identity
from rsdiff.runs.ownership import is_owned
from rsdiff.runs.status import STATUS, Status, read_status
from rsdiff.tracking.json_lines import HISTORY, read_history

INDEX = "index.html"
ENTRY = "board.json"
FORMAT = 3
"""Of board.json; another number makes all entries again."""
READ = (STATUS, HISTORY, "config.yaml", "provenance.jsonl", IDENTITY)
"""Files of a run that its entry is made of."""
POINTS = 200
"""Of a curve; longer ones are shown by the means of neighbours."""
IMAGES = 3
"""Images of a run that are shown."""
ENDED = ("finished", "failed", "interrupted")

Entry = dict[str, Any]


def write_board(outputs: Path) -> Path:
    """Write the page of everything in `outputs` and return its path; raises UserError where there is nothing to show."""
    from rsdiff.reporting.board_page import write_board_page  # draws nothing, but encodes pictures

    if not run_folders(outputs):
        raise UserError(f"{outputs} holds no run; start one with {next_command()}, or name another folder with outputs=FOLDER.")
    with _alone(outputs):
        runs = [entry for folder in run_folders(outputs) if (entry := entry_of(folder, outputs)) is not None]
        return write_board_page(outputs / INDEX, runs, sweeps_of(outputs), tables_of(outputs))


def renew_board(outputs: Path) -> str:
    """Write the page again where task=board made one before; return a sentence where that failed, which is no failure of the run."""
    if not (outputs / INDEX).is_file() or os.environ.get("RANK", "0") != "0":
        return ""
    try:
        write_board(outputs)
    except (OSError, ValueError) as error:
        return f"{outputs / INDEX} was not renewed ({error}); {next_command('task=board', f'outputs={outputs}')} writes it again."
    return ""


def run_folders(outputs: Path) -> list[Path]:
    """Return the folders of all runs, those that changed last first."""
    found = [path.parent for path in outputs.glob(f"*/*/*/{STATUS}")]
    return sorted(found, key=lambda folder: (folder / STATUS).stat().st_mtime, reverse=True)


def entry_of(folder: Path, outputs: Path) -> Entry | None:
    """Return what the page shows of one run, or None where its record cannot be read."""
    try:
        status = read_status(folder)
    except PlaceError:
        return None
    state = "killed" if status.state == "running" and not is_owned(folder) else status.state
    files = [folder / name for name in READ]
    known = [[path.stat().st_mtime_ns, path.stat().st_size] if path.exists() else None for path in files]
    with suppress(OSError, ValueError):
        kept = json.loads((folder / ENTRY).read_text())
        if kept["format"] == FORMAT and kept["files"] == known:
            return {**kept["entry"], **_place(folder, outputs, status, state)}
    entry = made_entry(folder, status)
    if state in ENDED:
        with suppress(OSError):  # a folder of somebody else: the page is made all the same
            write_json(folder / ENTRY, {"format": FORMAT, "files": known, "entry": entry}, is_only_writer=True)
    return {**entry, **_place(folder, outputs, status, state)}


def made_entry(folder: Path, status: Status) -> Entry:
    """Return what the page shows of a run and what does not depend on where its folder lies."""
    from rsdiff.reporting.board_page import described, pictures_of

    config = settings_used(_yaml(folder / "config.yaml"), folder)
    lines = _json_lines(folder / "provenance.jsonl")
    first, last = (lines[0], lines[-1]) if lines else ({}, {})
    command = [str(word) for word in last.get("command", [])]
    return {
        "error": status.error or "",
        "updated": status.updated or "",
        "started": str(first.get("time", ""))[:19].replace("T", " "),
        "host": str(last.get("host", "")),
        "commit": str((last.get("git") or {}).get("commit", ""))[:10],
        "command": shell_text(command) if command else "",
        "metrics": described(status.summary),
        "summary": {name: _plain(value) for name, value in status.summary.items()},
        "settings": sorted(f"{name}={value}" for name, value in flat(config) if not name.startswith("hydra.")),
        "series": series_of(read_history(folder)),
        "pictures": pictures_of(folder / "evaluation", IMAGES),
    }


def settings_used(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of a run without those of groups that its task does not read, as the trainer of an evaluation."""
    known = read_identity(folder)
    if known is None:
        return dict(config)
    return {name: value for name, value in config.items() if not isinstance(value, Mapping) or name in known[1].settings}


def _place(folder: Path, outputs: Path, status: Status, state: str) -> Entry:
    """Return what depends on where the run lies and on whether its process lives."""
    task, name, signature = folder.relative_to(outputs).parts
    report = status.report_in(folder)
    seen = os.path.relpath(report, outputs) if report is not None and report.is_file() else ""
    log = folder / LOG
    return {
        "id": f"{task}/{name}/{signature}",
        "task": task,
        "name": name,
        "signature": signature,
        "state": state,
        "report": seen,
        "log": os.path.relpath(log, outputs) if log.is_file() else "",
    }


def sweeps_of(outputs: Path) -> list[Entry]:
    """Return each sweep: its command, its page, how many runs it has in every state, and which they are; the newest first."""
    plans = sorted(outputs.glob(f"sweeps/*/{sweep.PLAN}"), key=lambda path: path.stat().st_mtime, reverse=True)
    sweeps = []
    for folder in (plan.parent for plan in plans):
        try:
            plan, records = sweep.read_plan(folder), sweep.stand(folder)
        except (UserError, OSError, ValueError, TypeError):
            continue  # of another version: its runs are shown all the same
        runs = [os.path.relpath(record.folder, outputs) for record in records if record.folder]
        page = folder / "summary.html"
        sweeps.append(
            {
                "name": folder.name,
                "command": shell_text([*(Path(word).name for word in plan.program), *plan.command]),
                "page": os.path.relpath(page, outputs) if page.is_file() else "",
                "counts": dict(Counter(record.state for record in records)),
                "runs": [Path(run).as_posix() for run in runs],
            }
        )
    return sweeps


def tables_of(outputs: Path) -> list[Entry]:
    """Return the published tables that task=tables made: their names and pages."""
    pages = sorted(outputs.glob("tables/*/table.html"))
    return [{"name": page.parent.name, "page": os.path.relpath(page, outputs)} for page in pages]


def series_of(history: Sequence[Mapping[str, float]]) -> dict[str, list[list[Any]]]:
    """Return each curve of a history as [steps, values]."""
    series: dict[str, list[tuple[float, float]]] = {}
    for record in history:
        for name, value in record.items():
            if name != "step":
                series.setdefault(name, []).append((record["step"], value))
    return {name: shortened(points) for name, points in series.items()}


def shortened(points: Sequence[tuple[float, float]]) -> list[list[Any]]:
    """Return [steps, values] of at most `POINTS` points: means of as many neighbours as that takes."""
    size = -(-len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    steps = [group[-1][0] for group in groups]
    return [steps, [_plain(sum(value for _, value in group) / len(group)) for group in groups]]


def flat(values: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting of nested values with its full name and its value as text."""
    if isinstance(values, Mapping) and values:
        for name, value in values.items():
            yield from flat(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, "null" if values is None else str(values).lower() if isinstance(values, bool) else str(values)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers of six digits, 'inf', None for NaN, text."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if value != value:
        return None
    return str(value) if value in (float("inf"), -float("inf")) else float(f"{value:.6g}")


def _yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except (OSError, yaml.YAMLError):
        return {}


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    except (OSError, ValueError):
        return []


@contextmanager
def _alone(outputs: Path) -> Iterator[None]:
    """Let one process of this machine write the page at a time, so that the last one has seen the runs of all."""
    descriptor = os.open(outputs / ".board.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with suppress(OSError):  # a file system without locks: the page of the next run shows all
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
