"""Runs commands as the runs of a sweep are run: by the Hydra launcher of this command, one after another or spread."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext

from rsdiff.app.command_line import CONFIG_NAME
from rsdiff.app.composition import words_typed
from rsdiff.app.main import SWEEP, run_one
from rsdiff.app.records import CheckAndRecord, prepare_launcher
from rsdiff.runs import sweep
from rsdiff.runs.sweep import Record

OF_THIS_COMMAND = ("hydra.mode=", "hydra.run.", "hydra.sweep.", "hydra/sweeper=", "hydra.sweeper.")
"""Hydra settings that say how this command runs, not how its launcher does."""


def launch(commands: Sequence[Sequence[str]], finished: Mapping[int, Record], outputs: Path, name: str) -> list[Record]:
    """Run every command (its settings, as typed after run.py) and return how each ended, in their order.

    Hydra must be composing (see `composing`). A run that fails is recorded and the others go on; an interruption is raised when it reaches
    this process.

    finished  records of the commands, by number, that finished before and are not run
    outputs   the folder of all run folders
    name      of the sweep's folder; the same for the same work, so that repeating it leaves no second folder
    """
    folder = sweep.start(outputs / "sweeps" / name, commands, is_whole=False)
    sweep.keep_records(folder, commands, finished)
    left = [number for number in range(len(commands)) if number not in finished]
    with _environment({SWEEP: name, sweep.CHOSEN_CELLS: None, sweep.LAUNCHED_CELLS: ",".join(map(str, left))}):
        given = words_typed(HydraConfig.get().overrides.hydra)
        kept = [override for override in given if not override.startswith(OF_THIS_COMMAND)]
        master = compose(CONFIG_NAME, ["hydra.mode=MULTIRUN", f"outputs='{outputs}'", *kept], return_hydra_config=True)
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        callbacks: Any = CheckAndRecord()  # asked by the launcher as Hydra's own collection of callbacks is
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
        prepare_launcher(str(master.hydra.launcher._target_))
        launcher = Plugins.instance().instantiate_launcher(context, run_one, master)
        end_idle_workers()
        launcher.launch([list(commands[number]) for number in left], initial_job_idx=0)
    return sweep.read_records(folder)


def end_idle_workers() -> None:
    """End the processes that joblib keeps for its next call: they have the environment of the sweep they were started for."""
    loky = sys.modules.get("joblib.externals.loky")
    if loky is not None:
        loky.get_reusable_executor().shutdown(wait=True)


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, which launchers hand to their workers; None removes one."""
    previous = {name: os.environ.get(name) for name in values}
    try:
        _set(values)
        yield
    finally:
        _set(previous)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
