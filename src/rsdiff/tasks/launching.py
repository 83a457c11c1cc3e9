"""Runs commands as the runs of a sweep are run: by the Hydra launcher of this command, one after another or spread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra import compose
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext

from rsdiff.config.signature import run_signature
from rsdiff.tasks import sweep
from rsdiff.tasks.command_line import CONFIG_NAME
from rsdiff.tasks.main import SWEEP, run_one
from rsdiff.tasks.sweep import Record

OF_THIS_COMMAND = ("hydra.mode=", "hydra.run.", "hydra.sweep.", "hydra/sweeper=", "hydra.sweeper.")
"""Hydra settings that say how this command runs, not how its launcher does."""


def launch(commands: Sequence[Sequence[str]], outputs: Path) -> list[Record]:
    """Run every command (its settings, as typed after run.py) and return how each ended, in their order.

    Hydra must be composing (see `composing`). A run that fails is recorded and the others go on; an interruption is raised when it reaches
    this process. outputs: the folder of all run folders.
    """
    previous = os.environ.get(SWEEP)
    os.environ[SWEEP] = run_signature({"commands": [list(command) for command in commands]})
    folder = sweep.start(outputs / "sweeps" / os.environ[SWEEP], commands, is_whole=False)
    try:
        given = [str(override) for override in HydraConfig.get().overrides.hydra]
        kept = [override for override in given if not override.startswith(OF_THIS_COMMAND)]
        master = compose(CONFIG_NAME, ["hydra.mode=MULTIRUN", f"outputs='{outputs}'", *kept], return_hydra_config=True)
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(master))
        launcher = Plugins.instance().instantiate_launcher(context, run_one, master)
        launcher.launch([list(command) for command in commands], initial_job_idx=0)
    finally:
        if previous is None:
            del os.environ[SWEEP]
        else:
            os.environ[SWEEP] = previous
    return sweep.read_records(folder)
