"""Hydra's plugin `hydra/sweeper=lists`, the sweeper of rsdiff. Hydra imports it in every application, so it imports little."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ListSweeper(Sweeper):
    """Runs every combination of lists of values, as Hydra's basic sweeper does.

    Hydra's own composes every run before the first, 0.25 s each. Here they have been checked before, see `rsdiff.app.records`.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, Any] | None = None) -> None:
        """max_batch_size: runs given to the launcher at once, None for all; params: settings of the sweep, as on the command line."""
        self.max_batch_size = max_batch_size
        self.params = dict(params or {})
        self._launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self._launcher = Plugins.instance().instantiate_launcher(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the combinations and return what the launcher returned of them, batch by batch."""
        from rsdiff.app.command_line import choices_of
        from rsdiff.app.diagnosis import parse, text_of

        assert self._launcher is not None
        choices = choices_of(parse([*(f"{key}={value}" for key, value in self.params.items()), *arguments]))
        cells: Sequence[list[str]] = [[text_of(override) for override in cell] for cell in itertools.product(*choices)]
        size = self.max_batch_size or len(cells)
        returned = []
        for start in range(0, len(cells), size):
            returned.append(self._launcher.launch(cells[start : start + size], initial_job_idx=start))
            for job in returned[-1]:
                _ = job.return_value  # raises what ended the job
        return returned


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="lists",
    node={"_target_": f"{__name__}.ListSweeper", "max_batch_size": None, "params": None},
    provider="rsdiff",
)
# Chosen by a config of its own: what the primary config overrides, a file of the group `sweeps` could not override again.
ConfigStore.instance().store(
    name="sweep_by_lists", node={"defaults": [{"override /hydra/sweeper": "lists"}, "_self_"]}, package="_global_", provider="rsdiff"
)
