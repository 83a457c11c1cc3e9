"""Which runs a table needs: one chain of trainings and one evaluation per row, point and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rsdiff.app.table_options import TableConfig, TablePoint, TableRow, filled
from rsdiff.runs.settings import RunSettings

Budget = Literal["quick", "paper"]
Settings = tuple[str, ...]

QUICK_TRAINING = ("trainer=minimal", "sampler.steps=4", "metrics=standard", "metrics.metrics=[psnr]", "metrics.panels=0")
QUICK_DATA = ("dataset.train_images=5", "dataset.test_images=2")


@dataclass(frozen=True)
class Job:
    """A run: what is typed after run.py, and the run whose checkpoint it starts from.

    released  name of a file of weights that is its checkpoint, or ''
    download  where that file is to be had
    """

    settings: tuple[str, ...]
    after: Job | None = None
    released: str = ""
    download: str = ""

    @property
    def chain(self) -> list[Job]:
        """This job and those before it, first things first."""
        return [*(self.after.chain if self.after else []), self]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the folder of its run, or the sentence why it has none.

    settings  of the run, whose data and protocol a table prints
    """

    path: Path | None = None
    reason: str = ""
    settings: RunSettings | None = None


@dataclass(frozen=True)
class QuickData:
    """Published data that the quick budget takes in place of generated ones.

    settings   that choose them, e.g. ('dataset=airs', 'dataset.root=..', 'dataset.limit=5')
    trains     whether they have targets to train on; else generated data train
    brings_lr  whether the LR images are files: the trainings then take those, not the table's degradation
    """

    settings: Settings
    trains: bool
    brings_lr: bool


FindData = Callable[[Sequence[str]], QuickData | None]
"""(settings of a point's evaluation) -> its published data, or None where generated data must stand for them."""


@dataclass(frozen=True)
class Cell:
    """A row at a point with one seed: the evaluation to be run, or the sentence why there is none."""

    row: TableRow
    point: TablePoint
    seed: int
    job: Job | None
    reason: str = ""


def cells_of(
    table: TableConfig,
    budget: Budget,
    seeds: int,
    models: Sequence[str],
    needless: Callable[[str], tuple[str, ...]],
    find_data: FindData,
) -> list[Cell]:
    """Return every cell of a table.

    models     options of the group model
    needless   how settings begin that have no effect on the training of a model
    find_data  asked by the quick budget alone
    """
    cells = []
    for row in table.rows:
        for point in (point for point in table.points if not row.points or point.name in row.points):
            for seed in range(seeds):
                if row.model not in models:
                    reason = f"model={row.model} is not part of this version (there is no conf/model/{row.model}.yaml)."
                    cells.append(Cell(row, point, seed, None, reason))
                elif budget == "paper" and row.unevaluable:
                    cells.append(Cell(row, point, seed, None, row.unevaluable))
                elif budget == "quick":
                    cells.append(Cell(row, point, seed, _quick(table, row, point, seed, models, needless, find_data)))
                else:
                    cells.append(Cell(row, point, seed, _paper(table, row, point, seed)))
    return cells


def merged(*groups: Iterable[str]) -> tuple[str, ...]:
    """Return settings with every key once, at its first place with its last value: Hydra refuses a group that is chosen twice."""
    found: dict[str, str] = {}
    for setting in (setting for group in groups for setting in group):
        found[setting.partition("=")[0].lstrip("+~")] = setting
    return tuple(found.values())


def _paper(table: TableConfig, row: TableRow, point: TablePoint, seed: int) -> Job:
    job: Job | None = None
    for command in row.train:
        job = Job(merged(filled(command, point.words).split(), (f"seed={seed}",)), job)
    return _evaluation(table, row, point, seed, row.model, job, ())


def _quick(
    table: TableConfig,
    row: TableRow,
    point: TablePoint,
    seed: int,
    models: Sequence[str],
    needless: Callable[[str], tuple[str, ...]],
    find_data: FindData,
) -> Job:
    tiny = (
        row.model
        if row.released
        else row.tiny
        or next(name for name in (f"{row.model}_quick", f"{row.model}_tiny", row.model) if name in models or name == row.model)
    )
    generated = merged(table.generated, point.generated, QUICK_DATA)
    found = find_data([filled(setting, point.words) for setting in point.evaluate])
    job: Job | None = None
    if row.train:
        common = [filled(setting, point.words) for setting in table.quick_train]
        if found is not None and found.trains and found.brings_lr:
            common = [setting for setting in common if group_of(setting) != "degradation"]
        data = found.settings if found is not None and found.trains else generated
        for model, further in ((row.before, row.before_quick), (tiny, row.quick)):
            if not model:
                continue
            settings = merged((f"model={model}",), data, common, QUICK_TRAINING, further, (f"seed={seed}",))
            job = Job(tuple(setting for setting in settings if not setting.startswith(needless(model))), job)
    if found is not None:
        return _evaluation(table, row, point, seed, tiny, job, (*found.settings, "metrics.panels=1"))
    stand_in = merged(generated, [filled(setting, point.words) for setting in table.quick_evaluate], ("metrics.panels=1",))
    return _evaluation(table, row, point, seed, tiny, job, stand_in)


def group_of(setting: str) -> str:
    """Return the group that a typed setting belongs to: 'dataset' of dataset=airs and of dataset.root=x."""
    return setting.partition("=")[0].partition(".")[0].lstrip("+~")


def data_settings(settings: Sequence[str]) -> list[str]:
    """Return those of `settings` that choose data."""
    return [setting for setting in settings if group_of(setting) == "dataset"]


def _evaluation(
    table: TableConfig, row: TableRow, point: TablePoint, seed: int, model: str, trained: Job | None, instead: Sequence[str]
) -> Job:
    """Return the evaluation; where `instead` holds settings of data, they take the place of those of the published ones."""
    published = [filled(setting, point.words) for setting in point.evaluate]
    data = data_settings(instead)
    if data:
        published = [setting for setting in published if group_of(setting) != "dataset"]
    only = (f"degradation.only=[{','.join(point.cases)}]",) if point.cases else ()
    # Settings of a model can be changed only where it is named; else the checkpoint brings it.
    is_named = trained is None or any(setting.startswith("model.") for setting in row.evaluate)
    weights = (f"model={model}",) if is_named else ()
    others = [setting for setting in instead if group_of(setting) != "dataset"]
    fixed = ("task=evaluate", *weights, *data)
    settings = merged(fixed, (f"metrics={table.metrics}",), published, others, only, row.evaluate, (f"seed={seed}",))
    return Job(settings, trained, row.released, row.download)
