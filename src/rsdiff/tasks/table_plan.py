"""Which runs a table needs: one chain of trainings and one evaluation per row, point and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rsdiff.tasks.table_options import TableConfig, TablePoint, TableRow, filled

Budget = Literal["quick", "paper"]

QUICK_TRAINING = ("trainer=minimal", "sampler.steps=4", "metrics=standard", "metrics.metrics=[psnr]", "metrics.panels=0")
QUICK_DATA = ("dataset.train_images=5", "dataset.test_images=2")


@dataclass(frozen=True)
class Job:
    """A run: what is typed after run.py, and the run whose checkpoint it starts from."""

    settings: tuple[str, ...]
    after: Job | None = None

    @property
    def chain(self) -> list[Job]:
        """This job and those before it, first things first."""
        return [*(self.after.chain if self.after else []), self]


@dataclass(frozen=True)
class Cell:
    """A row at a point with one seed: the evaluation to be run, or the sentence why there is none."""

    row: TableRow
    point: TablePoint
    seed: int
    job: Job | None
    reason: str = ""


def cells_of(table: TableConfig, budget: Budget, seeds: int, models: Sequence[str], any_scale: Callable[[str], bool]) -> list[Cell]:
    """Return every cell of a table.

    models     options of the group model
    any_scale  whether one training of a model serves every scale
    """
    cells = []
    for row in table.rows:
        for point in (point for point in table.points if not row.points or point.name in row.points):
            for seed in range(seeds):
                if row.model not in models:
                    reason = f"model={row.model} is not part of this version (there is no conf/model/{row.model}.yaml)."
                    cells.append(Cell(row, point, seed, None, reason))
                elif budget == "quick":
                    cells.append(Cell(row, point, seed, _quick(table, row, point, seed, models, any_scale)))
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


def _quick(table: TableConfig, row: TableRow, point: TablePoint, seed: int, models: Sequence[str], any_scale: Callable[[str], bool]) -> Job:
    tiny = row.tiny or (f"{row.model}_tiny" if f"{row.model}_tiny" in models else row.model)
    data = merged(table.generated, point.generated, QUICK_DATA)
    job: Job | None = None
    if row.train:
        for model, further in ((row.before, row.before_quick), (tiny, row.quick)):
            if not model:
                continue
            common = [filled(setting, point.words) for setting in table.quick_train]
            settings = merged((f"model={model}",), data, common, QUICK_TRAINING, further, (f"seed={seed}",))
            if any_scale(model):
                settings = tuple(setting for setting in settings if not setting.startswith("scale="))
            job = Job(settings, job)
    return _evaluation(table, row, point, seed, tiny, job, data)


def _evaluation(
    table: TableConfig, row: TableRow, point: TablePoint, seed: int, model: str, trained: Job | None, generated: Sequence[str]
) -> Job:
    """Return the evaluation; `generated` settings take the place of those of the published data set."""
    published = [filled(setting, point.words) for setting in point.evaluate]
    if generated:
        published = [setting for setting in published if setting.partition("=")[0].partition(".")[0] != "dataset"]
        published += [filled(setting, point.words) for setting in table.quick_evaluate]
    only = (f"degradation.only=[{','.join(point.cases)}]",) if point.cases else ()
    # Settings of a model can be changed only where it is named; else the checkpoint brings it.
    is_named = trained is None or any(setting.startswith("model.") for setting in row.evaluate)
    weights = (f"model={model}",) if is_named else ()
    panels = ("metrics.panels=1",) if generated else ()
    fixed = ("task=evaluate", *weights, *generated)
    return Job(merged(fixed, (f"metrics={table.metrics}",), published, only, panels, row.evaluate, (f"seed={seed}",)), trained)
