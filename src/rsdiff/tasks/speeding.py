"""speed=fast of trainer and task: measured when a run begins, said, noted in the run's folder, and kept when it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TypeVar

from accelerate import Accelerator

from rsdiff.inference import speed
from rsdiff.inference.speed import Arithmetic
from rsdiff.methods.base import Method, Problem
from rsdiff.runs.console import say
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import EvaluateTask, RestoreTask
from rsdiff.training.config import TrainerConfig
from rsdiff.training.processes import any_process, smallest_of_processes
from rsdiff.training.speed import Passes, TrainingArithmetic, measure

Options = TypeVar("Options", Arithmetic, TrainingArithmetic)
Restoring = TypeVar("Restoring", EvaluateTask, RestoreTask)


def sped_up(
    task: Restoring, settings: RunSettings, folder: RunFolder, method: Method, problem: Problem, accelerator: Accelerator
) -> Restoring:
    """Return `task` with what its `speed` stands for, and prepare the method for it."""
    if task.speed == "exact":
        return task
    chosen = kept_or_found(
        Arithmetic,
        lambda: speed.measure(method, problem, settings.model.requires, settings.sampler, accelerator.device),
        folder,
        accelerator,
    )
    chosen.prepare(method)
    return replace(task, **asdict(chosen))


def trained_fast(config: TrainerConfig, folder: RunFolder, accelerator: Accelerator, passes: Callable[[], Passes]) -> TrainerConfig:
    """Return the trainer's options with what its `speed` stands for; `passes` are tried where nothing was found before."""
    if config.speed == "exact":
        return config
    return replace(config, **asdict(kept_or_found(TrainingArithmetic, lambda: measure(passes()), folder, accelerator)))


def kept_or_found(kind: type[Options], measured: Callable[[], Any], folder: RunFolder, accelerator: Accelerator) -> Options:
    """Return what the run chose when it began, or the `arithmetic` of what is measured now, the same in every process; say which."""
    earlier = speed.recall(folder.path, kind)
    if not any_process(accelerator, earlier is None):  # all have looked before one of them notes what was found
        assert earlier is not None
        if accelerator.is_main_process:
            say([f"speed=fast: {speed.words(earlier)}, as found when the run began"])
        return earlier
    found = measured()
    chosen = one_for_all(accelerator, found.arithmetic)
    if accelerator.is_main_process:
        speed.remember(folder.path, replace(found, arithmetic=chosen))
        say([found.told()])
    return chosen


def one_for_all(accelerator: Accelerator, found: Options) -> Options:
    """Return what every process of a run found worth its while."""
    exact, values = type(found)(), asdict(found)
    taken = {name: value != getattr(exact, name) for name, value in values.items()}
    agreed = {name: bool(smallest_of_processes(accelerator, int(value))) for name, value in taken.items()}
    return replace(found, **{name: getattr(exact, name) for name, value in agreed.items() if not value})
