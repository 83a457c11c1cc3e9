"""The tasks that give commands or describe them, with their own options: the application is what they work on."""

from __future__ import annotations

from typing import ClassVar, Literal

from rsdiff.app.table_options import TableConfig
from rsdiff.config import UserError, config
from rsdiff.runs.options import TaskOptions


@config
class SchemaTask(TaskOptions):
    """Write JSON schemas of all settings into the folder output=, with which editors complete and check YAML files."""

    module: ClassVar[str] = "rsdiff.app.yaml_schema"
    uses: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset({"output"})
    only_looks: ClassVar[bool] = True


@config
class TablesTask(TaskOptions):
    """Run what a published table needs and is not finished yet, and write the table with published values beside ours."""

    module: ClassVar[str] = "rsdiff.app.tables"
    uses: ClassVar[frozenset[str]] = frozenset()
    repeats: ClassVar[bool] = True

    table: TableConfig | None = None
    """The table; chosen by its file: sweeps=tables/<name>."""
    tables: tuple[str, ...] = ("all",)
    """Names of table files, made together in one run (all: every one); used where `table` is not chosen."""
    budget: Literal["quick", "paper"] = "quick"
    """quick: tiny models, generated data, a few steps, which checks the machinery; paper: the published recipes and data."""
    seeds: int = 1
    """Trainings per method, with the seeds 0, 1, ...; tables give their mean and spread."""
    data_root: str | None = None
    """Folder of published data sets, each in a folder of its own name; None takes the folder of the data set's file."""

    def __post_init__(self) -> None:
        if self.table is None and not self.tables:
            raise UserError("no table was named; choose sweeps=tables/NAME, or task.tables=[NAME, ..] or [all].")
        if self.seeds < 1:
            raise UserError(f"seeds={self.seeds} was given; give at least 1.")
