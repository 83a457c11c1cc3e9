"""Shows how far a run is: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rsdiff.config.pace import Pace, duration, roughly
from rsdiff.config.quiet import is_quiet
from rsdiff.tracking.tracker import End, Recorder

if TYPE_CHECKING:
    import rich.progress
    from rich.console import Console

SECONDS_BETWEEN_LINES = (5.0, 300.0)
"""Of a log file: the second line, with the time left, comes soon; the seconds to the next one double up to the last figure."""


class Progress(Recorder):
    """Prints to stderr, so that stdout holds results only.

    The loss shown is the first value whose name ends in 'total', else the first value.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console  # with its bars, for runs; commands that compose and check do without

        self.console = console or Console(stderr=True, quiet=is_quiet(), markup=False, emoji=False)  # [x] and :x: are names of files
        self._bars: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._paces: dict[str, Pace] = {}
        self._next_line = -float("inf")
        self._seconds = SECONDS_BETWEEN_LINES[0]

    def rewind(self, step: int) -> None:
        if step:
            self.console.print(f"continuing after step {step}", highlight=False)

    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        self._show("step", step, total, facts(values, images_per_second))

    def progress(self, what: str, done: int, total: int) -> None:
        if (estimate := self._paces.setdefault(what, Pace(total)).after(done)) is not None:
            self.console.print(f"time     about {roughly(estimate.left)} of {what}", highlight=False, soft_wrap=True)
        self._show(what, done, total, f"{memory_gib():.1f} GiB of memory")

    def finish(self, end: End) -> None:
        self._close_bars()

    def _close_bars(self) -> None:
        self._tasks.clear()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _show(self, what: str, done: int, total: int, facts: str) -> None:
        now = time.monotonic()
        if what not in self._started:
            self._next_line, self._seconds = now + (0 if done else SECONDS_BETWEEN_LINES[0]), SECONDS_BETWEEN_LINES[0]
        began, first = self._started.setdefault(what, (now, done))
        if self.console.is_terminal:
            self._show_bar(what, done, total, facts)
        elif done >= total or now >= self._next_line:
            if done < total:
                self._next_line = now + self._seconds
                self._seconds = min(2 * self._seconds, SECONDS_BETWEEN_LINES[1])
            left = f", {duration((now - began) / (done - first) * (total - done))} left" if first < done < total else ""
            self.console.print(f"{what} {done}/{total}, {facts}{left}", highlight=False, soft_wrap=True)

    def _show_bar(self, what: str, done: int, total: int, facts: str) -> None:
        if self._bars is None:
            import rich.progress

            self._bars = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[facts]}"),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TimeRemainingColumn(),
                console=self.console,
            )
            self._bars.start()
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, completed=done, facts=facts)
        self._bars.update(self._tasks[what], completed=done, total=total, facts=facts)
        if done >= total:
            self._close_bars()  # what a task prints next stays below it


def facts(values: Mapping[str, float], images_per_second: float) -> str:
    """Return 'loss 0.0123, 45.6 images/s, 1.2 GiB'."""
    name = next((name for name in values if name.endswith("total")), next(iter(values), None))
    loss = f"loss {values[name]:.4g}, " if name is not None else ""
    return f"{loss}{images_per_second:.3g} images/s, {memory_gib():.1f} GiB"


def memory_gib() -> float:
    """Return the peak memory of the accelerator in use, else of this process, in GiB."""
    import torch  # what trains has imported it; who only looks at runs has not

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
