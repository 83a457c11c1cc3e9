"""speed=fast of the tasks that restore: measured when a run begins, said, noted in the run's folder, and kept when it goes on."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TypeVar

from accelerate import Accelerator

from rsdiff.inference import speed
from rsdiff.inference.speed import Arithmetic
from rsdiff.methods.base import Method, Problem
from rsdiff.runs.console import say
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import EvaluateTask, RestoreTask
from rsdiff.training.processes import any_process, smallest_of_processes

Restoring = TypeVar("Restoring", EvaluateTask, RestoreTask)


def sped_up(
    task: Restoring, settings: RunSettings, folder: RunFolder, method: Method, problem: Problem, accelerator: Accelerator
) -> Restoring:
    """Return `task` with what its `speed` stands for, and prepare the method for it."""
    if task.speed == "exact":
        return task
    earlier = speed.recall(folder.path)
    if any_process(accelerator, earlier is None):  # all have looked before one of them notes what was found
        measured = speed.measure(method, problem, settings.model.requires, settings.sampler, accelerator.device)
        chosen = one_for_all(accelerator, measured.arithmetic)
        if accelerator.is_main_process:
            speed.remember(folder.path, replace(measured, arithmetic=chosen))
            say([measured.told()])
    else:
        assert earlier is not None
        chosen = earlier
        if accelerator.is_main_process:
            say([f"speed=fast: {chosen.told()}, as found when the run began"])
    chosen.prepare(method)
    return replace(task, **asdict(chosen))


def one_for_all(accelerator: Accelerator, found: Arithmetic) -> Arithmetic:
    """Return what every process of a run found worth its while."""
    taken = {name: value != getattr(speed.EXACT, name) for name, value in asdict(found).items()}
    agreed = {name: bool(smallest_of_processes(accelerator, int(value))) for name, value in taken.items()}
    return replace(found, **{name: getattr(speed.EXACT, name) for name, value in agreed.items() if not value})
