"""What every task hands back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TaskResult:
    """The end of a run.

    messages  lines for the user: where the results are and what to run next
    summary   the run's figures (and short facts), one table row; stored in the run's status and in a sweep's table
    report    the page to open, shown again when the same command is given once more
    files     what else the run was to make; where one of them or the report is gone, the same command makes it again
    failure   one sentence where a part of the work failed: the rest is kept, and the command ends with code 1
    """

    messages: Sequence[str]
    summary: Mapping[str, float | int | str] = field(default_factory=dict)
    report: Path | None = None
    files: Sequence[Path] = ()
    failure: str = ""
