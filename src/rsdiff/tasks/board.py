"""task=board: one page of everything in the outputs folder, renewed after every run from then on."""

from __future__ import annotations

from rsdiff.runs.board import write_board
from rsdiff.runs.result import TaskResult
from rsdiff.runs.settings import RunSettings


def run(settings: RunSettings) -> TaskResult:
    """Write the page; raises UserError where the outputs folder holds no run."""
    page = write_board(settings.outputs)
    return TaskResult([f"page     {page}", "every run that ends renews it; delete the page to stop that"])
