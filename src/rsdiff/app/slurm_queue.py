"""Waiting for the cells of a sweep on Slurm by asking squeue, which every cluster has.

submitit asks sacct, which works only where Slurm keeps accounts: without them it waits for ever for a cell that was cancelled. With them it
stops waiting at the first such cell, while the others still run.
"""

from __future__ import annotations

import os
import subprocess
import time

from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

ASKED_EVERY_S = 20.0
TIMES_GONE = 2
"""Answers in a row without any of the jobs before they count as ended: one put back into the queue may be nowhere for a moment."""


class QueueWatcher(SlurmInfoWatcher):
    """Tells submitit that jobs are done when none of those it waits for is in the queue; those with a result are done for it anyway."""

    def __init__(self) -> None:
        super().__init__()
        self._times_gone = 0

    def register_job(self, job_id: str) -> None:
        super().register_job(job_id)
        self._times_gone = 0

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        self.update_if_long_enough(mode)
        return self._times_gone >= TIMES_GONE

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        return "LEFT THE QUEUE" if self.is_done(job_id, "cache") else "UNKNOWN"

    def update_if_long_enough(self, mode: str) -> None:
        if mode == "force" or (mode != "cache" and time.time() - self._last_status_check > ASKED_EVERY_S):
            self.update()

    def update(self) -> None:
        self._last_status_check = time.time()
        command = ["squeue", "--array", "--noheader", f"--user={os.getuid()}", "--format=%i"]
        try:
            listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
        except (OSError, subprocess.SubprocessError):
            return  # the controller does not answer; it is asked again
        self._num_calls += 1
        self._times_gone = 0 if self._registered.intersection(listed) else self._times_gone + 1


def install() -> None:
    """Let submitit wait this way."""
    SlurmJob.watcher = QueueWatcher()
