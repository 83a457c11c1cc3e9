"""How a run stands: status.json in its folder. Paths in it are relative to that folder, so that outputs can be moved."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rsdiff.config import PlaceError

STATUS = "status.json"
State = Literal["new", "running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class Status:
    """What status.json says.

    report, files  what the run was to make, as paths from its folder on
    unreadable     names of images that could not be read: where they alone change, the run goes on
    """

    state: State = "new"
    error: str | None = None
    messages: Sequence[str] = ()
    summary: Mapping[str, float | int | str] = field(default_factory=dict)
    report: str | None = None
    files: Sequence[str] = ()
    unreadable: Sequence[str] = ()
    launch: str | None = None
    updated: str | None = None

    def lost_files(self, folder: Path) -> list[Path]:
        """Return which results of the run in `folder` were deleted since it finished."""
        return [path for path in (found_at(folder, name) for name in self.files) if not path.exists()]

    def report_in(self, folder: Path) -> Path | None:
        """Return the path of the run's report."""
        return None if self.report is None else found_at(folder, self.report)


def read_status(folder: Path) -> Status:
    """Return the status of the run in `folder`; state 'new' where none is recorded."""
    try:
        values = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        return Status(**values)
    except FileNotFoundError:
        return Status()
    except (ValueError, TypeError, RecursionError):
        raise PlaceError(f"{folder / STATUS} cannot be read; delete it to let the run continue from its last checkpoint.") from None


def relative_to(folder: Path, path: Path) -> str:
    """Return `path` as it is recorded: from `folder` on where it lies below it, else absolute (an output elsewhere)."""
    full, base = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else str(full)


def found_at(folder: Path, recorded: str) -> Path:
    """Return the path that is recorded in the run in `folder`, by earlier versions as an absolute one of where outputs were then."""
    path = Path(recorded)
    if not path.is_absolute():
        return folder / path
    parts = path.parts
    if not path.exists() and folder.name in parts:
        moved = folder.joinpath(*parts[len(parts) - parts[::-1].index(folder.name) :])
        if moved.exists():
            return moved
    return path
