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
    takes: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset({"output"})
    only_looks: ClassVar[bool] = True


@config
class TablesTask(TaskOptions):
    """Run what a published table needs and is not finished yet, and write the table with published values beside ours."""

    module: ClassVar[str] = "rsdiff.app.tables"
    uses: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[frozenset[str]] = frozenset()
    repeats: ClassVar[bool] = True
    starts_others: ClassVar[bool] = True

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


@config
class LeaderboardMethod:
    """A method on the board."""

    name: str
    """Name on the board."""
    train: tuple[str, ...] = ()
    """Its trainings, each on the one before, with settings separated by spaces; they share the minutes equally."""
    evaluate: tuple[str, ...] = ()
    """Settings of its evaluation where nothing is trained, e.g. [model=bicubic]."""

    def __post_init__(self) -> None:
        if bool(self.train) == bool(self.evaluate):
            raise UserError(f"method {self.name} needs either trainings (train) or the settings of an evaluation (evaluate).")


@config
class LeaderboardTask(TaskOptions):
    """Train every method of a list for the same processor time on the same data, and compare them on the same images: sweeps=leaderboard"""

    module: ClassVar[str] = "rsdiff.app.leaderboard"
    uses: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[frozenset[str]] = frozenset()
    repeats: ClassVar[bool] = True
    starts_others: ClassVar[bool] = True

    methods: tuple[LeaderboardMethod, ...] = ()
    """The methods; sweeps/leaderboard.yaml lists those of this version that train on a processor."""
    only: tuple[str, ...] = ()
    """Names of the methods that take part; empty means all of the list."""
    minutes: float = 30.0
    """Processor minutes that each method is trained for, all its stages together."""
    data: tuple[str, ...] = ("dataset=synthetic", "dataset.second_date=false", "degradation=bicubic", "scale=4", "metrics=standard")
    """Settings of every run: data set, degradation, scale and metrics."""
    shown: tuple[str, ...] = ("psnr", "ssim", "lpips_alex")
    """Metrics on the board, which `data` must let be computed; the first one orders it."""
    seed: int = 0
    """Seed of every run."""

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names):
            raise UserError(f"every method needs a name of its own, and the names are {names}.")
        if names and (strange := [name for name in self.only if name not in names]):
            raise UserError(f"only names {', '.join(strange)}, and the methods are {', '.join(names)}.")
        if self.minutes <= 0:
            raise UserError(f"minutes={self.minutes} was given; choose more than 0.")
        if not self.shown:
            raise UserError("shown is empty; name at least one metric.")
