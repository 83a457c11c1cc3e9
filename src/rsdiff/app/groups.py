"""The config groups of the command line: those of the tasks, and the tasks that work on the application itself."""

from __future__ import annotations

from collections.abc import Mapping

from rsdiff.config.kinds import Kinds
from rsdiff.tasks import groups
from rsdiff.tasks.groups import FAMILIES

TASKS = groups.GROUPS["task"].joined(
    {
        "schema": "rsdiff.app.options:SchemaTask",
        "tables": "rsdiff.app.options:TablesTask",
        "leaderboard": "rsdiff.app.options:LeaderboardTask",
    }
)
"""Config class of every task by `kind`."""
GROUPS: Mapping[str, Kinds] = {**groups.GROUPS, "task": TASKS}
"""Config classes by group and `kind`. Every YAML file of a group names one: `defaults: [/schema/<group>/<kind>@_here_, _self_]`."""
RECIPES = ("experiments", "sweeps")
"""Groups whose files set options of others."""

__all__ = ["FAMILIES", "GROUPS", "RECIPES", "TASKS"]
