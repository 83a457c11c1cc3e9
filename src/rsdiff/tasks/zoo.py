"""task=zoo: the weights that come with rsdiff, with their figures, data and licences."""

from __future__ import annotations

from rsdiff.runs.command import restore_with
from rsdiff.runs.result import TaskResult
from rsdiff.runs.settings import RunSettings
from rsdiff.weights.about import listing
from rsdiff.weights.stores import zoo_entries


def run(settings: RunSettings) -> TaskResult:
    """List the zoo."""
    entries = zoo_entries()
    if not entries:
        return TaskResult(["the zoo of this version is empty; task=publish output=zoo/NAME adds to it"])
    first = entries[0][0]
    return TaskResult([*listing(entries), "", f"next     {restore_with(f'zoo:{first}')}"])
