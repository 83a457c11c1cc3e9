"""Shows how far a run is: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence

import rich.progress
import torch
from rich.console import Console
from torch import Tensor

from rsdiff.tracking.tracker import Cell, End

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Prints to stderr, so that stdout holds results only.

    The loss shown is the first value whose name ends in 'total', else the first value.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._started: tuple[float, int] | None = None
        self._last_line = -float("inf")
        self._work: Work | None = None

    def rewind(self, step: int) -> None:
        if step:
            self.console.print(f"continuing after step {step}", highlight=False)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Shown by `advance`."""

    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        if self.console.is_terminal:
            self._show_bar(step, total, values, images_per_second)
        else:
            self._print_line(step, total, values, images_per_second)

    def progress(self, what: str, done: int, total: int) -> None:
        if self._work is None or self._work.what != what:
            self._close_work()
            self._work = Work(what, self.console)
        self._work.show(done, total)
        if done == total:
            self._close_work()

    def image(self, name: str, image: Tensor, step: int = 0) -> None:
        """Not shown."""

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Not shown: tasks print their own."""

    def finish(self, end: End) -> None:
        self._close_work()
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _close_work(self) -> None:
        if self._work is not None:
            self._work.close()
            self._work = None

    def _show_bar(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        if self._bar is None:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[facts]}"),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task("steps", total=total, completed=step, facts="")
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=step, total=total, facts=facts(values, images_per_second))
        if step >= total:
            self._close_bar()  # a terminal shows one bar at a time, and the evaluation has its own

    def _print_line(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        now = time.monotonic()
        if self._started is None:
            self._started = (now, step)
        if now - self._last_line < SECONDS_BETWEEN_LINES and step < total:
            return
        self._last_line = now
        began, first = self._started
        left = f", {duration((now - began) / (step - first) * (total - step))} left" if first < step < total else ""
        self.console.print(f"step {step}/{total}, {facts(values, images_per_second)}{left}", highlight=False, soft_wrap=True)


class Work:
    """Shows the progress of one piece of work other than training: its name, done of total, time left."""

    def __init__(self, what: str, console: Console) -> None:
        self.what = what
        self._console = console
        self._bar: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)
        self._began = self._last_line = time.monotonic()
        self._first: int | None = None

    def show(self, done: int, total: int) -> None:
        """Show `done` of `total`."""
        if self._first is None:
            self._first = done
        if self._console.is_terminal:
            if self._bar is None:
                columns = (rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn())
                self._bar = rich.progress.Progress(*columns, rich.progress.TimeRemainingColumn(), console=self._console)
                self._task = self._bar.add_task(self.what, total=total, completed=done)
                self._bar.start()
            self._bar.update(self._task, completed=done, total=total)
            return
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES and done < total:
            return
        self._last_line = now
        made = done - self._first
        left = f", {duration((now - self._began) / made * (total - done))} left" if made and done < total else ""
        self._console.print(f"{self.what} {done}/{total}{left}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def facts(values: Mapping[str, float], images_per_second: float) -> str:
    """Return 'loss 0.0123, 45.6 images/s, 1.2 GiB'."""
    name = next((name for name in values if name.endswith("total")), next(iter(values), None))
    loss = f"loss {values[name]:.4g}, " if name is not None else ""
    return f"{loss}{images_per_second:.3g} images/s, {memory_gib():.1f} GiB"


def memory_gib() -> float:
    """Return the peak memory of the accelerator in use, else of this process, in GiB."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def duration(seconds: float) -> str:
    """Return '1 h 05 min', '5 min 03 s' or '12 s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
