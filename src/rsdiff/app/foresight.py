"""What a run on a checkpoint will be refused for, known before that checkpoint is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rsdiff.app.command_line import compose_command
from rsdiff.app.composition import settings_from
from rsdiff.app.offers import offers_of_hydra
from rsdiff.config import ConfigError
from rsdiff.methods.base import Problem
from rsdiff.metrics.evaluator import unavailable
from rsdiff.runs.compatibility import check_compatible
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import problem_of, sets_to_test

TO_COME = "to come"
"""Stands for the checkpoint of a training that has not run."""


def foreseen(command: Sequence[str], trained: RunSettings, moved: Callable[[Any], Sequence[str]]) -> RunSettings:
    """Return the settings of a run that starts from the checkpoint of a training that has not run yet.

    command  of that run, without the checkpoint
    trained  settings of the training
    moved    (data set) -> settings that let it be found, or nothing
    Raises UserError in the sentence with which the run would be refused. Hydra must be composing.
    """
    settings = _composed(command, trained)
    if found := moved(settings.dataset):
        settings = _composed([*command, *found], trained)
    check_compatible(settings, offers_of_hydra)
    settings.dataset.check()
    if "trainer" in settings.groups:
        for split in settings.task.reads:
            settings.split(split)
    else:
        _require_evaluable(settings, trained)
    return settings


def _composed(command: Sequence[str], trained: RunSettings) -> RunSettings:
    """Return the settings of a run; a training starts from the checkpoint to come, any other run continues the training."""
    composed = compose_command(command)
    settings = settings_from(composed, composed.hydra, trained)
    return settings if settings.task.continues else replace(settings, options=replace(settings.options, checkpoint=TO_COME))


def _require_evaluable(settings: RunSettings, trained: RunSettings) -> None:
    """Raise UserError where the model that is trained will not fit the test images, or no metric can be computed of them."""
    if settings.scale != trained.scale and not settings.model.any_scale:
        raise ConfigError(
            f"model={settings.choices['model']} is trained at scale={trained.scale:g} and has one scale; it cannot be tested at "
            f"scale={settings.scale:g}."
        )
    test, learnt = settings.split("test"), problem_of(trained, trained.split("train"))
    wanted = problem_of(settings, test)
    if (wanted.bands, wanted.lr_bands) != (learnt.bands, learnt.lr_bands):
        raise ConfigError(
            f"model={settings.choices['model']} is trained on {learnt.lr_bands} to {learnt.bands} bands and "
            f"dataset={settings.choices['dataset']} has {wanted.lr_bands} to {wanted.bands}; choose data with as many bands."
        )
    reason = settings.model.refuse(Problem(settings.scale, learnt.bands, learnt.lr_bands))
    if reason is not None:
        raise ConfigError(f"model={settings.choices['model']}: {reason}")
    operator = None if "lr" in test.gives else sets_to_test(settings, test)[0].degradation
    missing = unavailable(settings.metrics, test.bands, "hr" in test.gives, operator, getattr(settings.task, "samples", 1))
    if len(missing) == len(settings.metrics.metrics):
        raise ConfigError(f"no metric can be computed: {missing[0].title}: {missing[0].reason}")
