"""A training that lasts a processor time in place of a number of steps, and what it used: seconds, and energy where that is known."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsdiff.config import UserError
from rsdiff.training.config import TrainerConfig

RAPL = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of processors (Intel and AMD); often only root may read them."""


class Budget:
    """How far a training is, by its steps or by the processor time it used.

    Processor time is that of this process, over all the processes that continued the training: a busy machine does not count, and neither
    do loader processes, which is why there may be none.
    """

    def __init__(self, config: TrainerConfig, processes: int) -> None:
        if config.processor_minutes is not None and processes > 1:
            raise UserError(f"trainer.processor_minutes counts the time of one process and there are {processes}; train with one.")
        self.steps = config.steps
        self.seconds_allowed = None if config.processor_minutes is None else 60 * config.processor_minutes
        self._before = self._joules_before = 0.0
        self._begun, self._joules_begun = time.process_time(), joules()

    @property
    def seconds(self) -> float:
        """Processor seconds used."""
        return self._before + time.process_time() - self._begun

    @property
    def energy(self) -> float | None:
        """Joules that all processors of the machine took meanwhile, whoever used them; None where that cannot be measured."""
        now = joules()
        return None if now is None or self._joules_begun is None else self._joules_before + max(0.0, now - self._joules_begun)

    def position(self, step: int) -> int:
        """Return the step that schedules and stages are at: `step`, or the share of the time used, in steps."""
        if self.seconds_allowed is None:
            return step
        return min(self.steps, int(self.steps * self.seconds / self.seconds_allowed))

    def is_spent(self, step: int) -> bool:
        """Whether the training is complete after `step` steps."""
        return step >= self.steps if self.seconds_allowed is None else self.seconds >= self.seconds_allowed

    def total(self, step: int) -> int:
        """Return how many steps the training will have, as far as one can say after `step` of them."""
        if self.seconds_allowed is None or step == 0:
            return self.steps
        return max(step, round(step * self.seconds_allowed / self.seconds))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: nothing where steps count, so that equal trainings leave equal files."""
        if self.seconds_allowed is None:
            return {}
        return {"processor_seconds": self.seconds, "joules": self.energy}

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept; those of earlier versions kept nothing."""
        self._before, self._begun = float(state.get("processor_seconds", 0.0)), time.process_time()
        self._joules_before, self._joules_begun = float(state.get("joules") or 0.0), joules()


def joules(folder: Path = RAPL) -> float | None:
    """Return the energy counters of all processor packages, in joules from some moment on; None where they cannot be read."""
    counters = sorted(folder.glob("intel-rapl:?/energy_uj"))
    try:
        return sum(int(counter.read_text()) for counter in counters) / 1e6 if counters else None
    except (OSError, ValueError):
        return None
