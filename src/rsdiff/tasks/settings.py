"""The settings of a run built in Python from typed configs, without Hydra and its files."""

from __future__ import annotations

from typing import Any, TypeVar

from rsdiff.config import UserError, config_from_mapping, plain_values
from rsdiff.runs.options import RunOptions, TaskOptions
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.groups import GROUPS

T = TypeVar("T")
BY_THEMSELVES = {"sampler": "solver", "trainer": "trainer", "metrics": "metrics", "logger": "jsonl"}
"""Groups that a run may leave to the defaults of a class, and its kind."""


def typed_settings(task: TaskOptions, options: RunOptions | None = None, **groups: Any) -> RunSettings:
    """Return the settings of a run, as the command line would compose them of the same values; `rsdiff.runs.working.do_run` does the run.

    task     with its own options: TrainTask(), EvaluateTask(), ...
    options  scale, seed, checkpoint, input, output, ...
    groups   config objects by group: model=RRDBConfig(), dataset=SyntheticDataset(size=64), degradation=.., trainer=TrainerConfig(steps=2)
    Of the groups that the task uses, sampler, trainer, metrics and logger may be left out, which takes the defaults of their classes.
    Raises UserError for a group that is lacking, is not used or has an object that does not belong to it.

    >>> from rsdiff.data import SyntheticDataset
    >>> from rsdiff.degradations import BicubicConfig
    >>> from rsdiff.methods.bicubic import BicubicMethodConfig
    >>> from rsdiff.tasks.options import EvaluateTask
    >>> groups = {"model": BicubicMethodConfig(), "dataset": SyntheticDataset(size=64), "degradation": BicubicConfig()}
    >>> run = typed_settings(EvaluateTask(), RunOptions(scale=2), **groups)
    >>> run.name, run.scale, run.metrics.metrics
    ('bicubic-synthetic', 2.0, ('psnr', 'ssim', 'lr_psnr'))
    """
    options = _checked(options or RunOptions(), "")
    wanted = task.uses | {"logger"}
    given: dict[str, Any] = {"task": task}
    for group in sorted({*wanted, *groups}):
        if group not in wanted:
            raise UserError(f"{type(task).__name__} does not use a {group}; leave {group}= out.")
        if group not in groups and group not in BY_THEMSELVES:
            raise UserError(f"{type(task).__name__} needs a {group}; give {group}=, such as {_example(group)}.")
        given[group] = groups.get(group) or GROUPS[group][BY_THEMSELVES[group]]()
    kinds = {group: _kind(group, config) for group, config in given.items()}
    chosen = {group: _checked(config, group) for group, config in given.items()}
    resolved = {**plain_values(options), **{group: {"kind": kinds[group], **plain_values(config)} for group, config in chosen.items()}}
    return RunSettings(options, chosen.pop("task"), chosen, kinds, resolved)


def _checked(config: T, where: str) -> T:
    """Return a config with its values as a file's would be read: scale=2 is 2.0, and what is no number is refused."""
    values = {name: value for name, value in plain_values(config).items() if name != "kind"}
    return config_from_mapping(type(config), values, where)


def _kind(group: str, config: Any) -> str:
    try:
        return GROUPS[group].kind_of(config)
    except KeyError:
        raise UserError(f"{group}={config!r} is none of the configs of {group}; give one such as {_example(group)}.") from None


def _example(group: str) -> str:
    """Return how an object of a group is made: that of the group's first kind."""
    table = GROUPS[group]
    return f"{table[next(iter(table))].__name__}()"
