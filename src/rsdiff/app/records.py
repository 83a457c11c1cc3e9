"""A callback of Hydra that checks what a command asks for and keeps the records of a sweep, whichever launcher and sweeper runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import DictConfig

from rsdiff.app.command_line import OF_LISTS, check_sweep, checked
from rsdiff.app.composition import hydra_of, words_typed
from rsdiff.app.ended import RunEnded
from rsdiff.app.gpus import SHARED_GPUS, shares_of, take_gpus, visible_gpus
from rsdiff.runs import sweep

FOLDER = "RSDIFF_SWEEP_FOLDER"
"""Environment: folder of the sweep that this process began and has to conclude."""


class CheckAndRecord(Callback):
    """Checks a command before Hydra makes a folder for it; writes the plan of a sweep; gives every cell of a local launcher its GPU.

    Hydra only warns of an Exception in a callback; RunEnded ends the command.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the settings of a single run."""
        try:
            checked(config)
        except Exception as error:
            raise RunEnded(error) from error

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Check the runs of a sweep and write its plan."""
        try:
            with hydra_of(config):
                self._begin(config)
        except Exception as error:
            raise RunEnded(error) from error

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **_: Any) -> None:
        """Take GPUs for this process where the sweep shares them out."""
        if SHARED_GPUS in os.environ:
            take_gpus(os.environ[SHARED_GPUS].split(","), float(config.gpus_per_cell))

    def _begin(self, config: DictConfig) -> None:
        hydra = config.hydra
        params = hydra.sweeper.get("params") or {}
        given = [f"{key}={value}" for key, value in params.items()] + words_typed(hydra.overrides.task)
        known = str(hydra.sweeper._target_).endswith(OF_LISTS)
        searched = [word for word in words_typed(hydra.overrides.hydra) if word.startswith("hydra.searchpath")]
        cells = check_sweep([*searched, *given], hydra.job.config_name).cells if known else []
        prepare_launcher(str(hydra.launcher._target_))
        if SHARED_GPUS in os.environ:
            shares_of(os.environ[SHARED_GPUS].split(","), float(config.gpus_per_cell))  # refuses what cannot be
        folder = Path(hydra.runtime.cwd) / str(hydra.sweep.dir)
        sweep.start(folder, cells)
        os.environ[FOLDER] = str(folder)


def prepare_launcher(launcher: str) -> None:
    """Prepare what Hydra's launcher (its class) needs of this process.

    Slurm: wait for the cells by asking squeue. Launchers of one machine: tell the cells which GPUs they share out among them.
    """
    os.environ.pop(SHARED_GPUS, None)
    if launcher.endswith(".SlurmLauncher"):
        from rsdiff.app import slurm_queue  # submitit is imported only for those who use it

        slurm_queue.install()
    elif launcher.endswith((".JoblibLauncher", ".LocalLauncher")) and (gpus := visible_gpus()):
        os.environ[SHARED_GPUS] = ",".join(gpus)
