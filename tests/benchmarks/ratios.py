"""Ratios of processor seconds, measured alternately in one process, and the one table that they go into."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

Work = Callable[[], object]


def seconds_of(work: Work) -> float:
    """Return the processor seconds of `work`, which other processes of a shared machine do not change much."""
    began = time.process_time()
    work()
    return max(time.process_time() - began, 1e-9)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that processor seconds are work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class Table:
    """One line per comparison: what was compared with what, ours over theirs, and the distance between the results."""

    lines: list[str] = field(default_factory=list)

    def compare(self, what: str, against: str, ours: Work, baseline: Work, distance: str = "", pairs: int = 5) -> float:
        """Add the median ratio (lowest to highest) of `pairs` alternating pairs, after one of each that is not counted."""
        with one_thread():
            ours()
            baseline()
            found: list[tuple[float, float]] = []
            for number in range(pairs):
                if number % 2:
                    theirs, own = seconds_of(baseline), seconds_of(ours)
                else:
                    own, theirs = seconds_of(ours), seconds_of(baseline)
                found.append((own, theirs))
        ratios = sorted(own / theirs for own, theirs in found)
        middle = sorted(own for own, _ in found)[pairs // 2], sorted(theirs for _, theirs in found)[pairs // 2]
        spread = f"{ratios[pairs // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        self.lines.append(f"| {what} | {1000 * middle[0]:.3g} | {1000 * middle[1]:.3g} | {spread} | {against} | {distance} |")
        return ratios[pairs // 2]

    def note(self, what: str, value: str, against: str) -> None:
        """Add a figure that is no ratio of times."""
        self.lines.append(f"| {what} | | | {value} | {against} | |")

    def text(self) -> str:
        """Return the table in Markdown."""
        head = ["| work | ours, CPU ms | baseline, CPU ms | ratio | baseline | distance |", "|---|---|---|---|---|---|"]
        return "\n".join([*head, *self.lines])
