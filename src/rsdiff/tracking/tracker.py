"""What a run reports to while it works, whatever records it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Cell = float | int | str | bool | None
End = Literal["finished", "failed", "interrupted"]


@dataclass(frozen=True)
class RunIdentity:
    """How trackers know a run.

    folder     the run's folder, which trackers write into
    name       '<model>-<dataset>'
    group      runs that belong together: the task
    signature  the same for the same command, so that a resumed run is continued and not begun anew
    tags       words to filter by
    settings   the composed settings as plain values
    """

    folder: Path
    name: str
    group: str
    signature: str
    tags: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


class Tracker(Protocol):
    """Records a run. Called on the main process only; no call changes the run's result."""

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`, from which the run continues."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers by name at `step`."""
        ...

    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        """Show that `step` of `total` is done; nothing is stored."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far work other than training is ('evaluating', 12 of 100 images); nothing is stored."""
        ...

    def image(self, name: str, image: Tensor, step: int = 0) -> None:
        """Record a picture: (C, H, W) in [0, 1] with one or three bands."""
        ...

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Record a table; columns are the keys of all rows in order of appearance."""
        ...

    def model(self, checkpoint: Path) -> None:
        """Record the checkpoint folder that the run's results are of."""
        ...

    def finish(self, end: End) -> None:
        """Flush and close. Safe to call twice."""
        ...


class LoggerConfig(Protocol):
    """A config class of the group `logger`."""

    def build(self, run: RunIdentity) -> Tracker: ...
    def absent(self, run: RunIdentity) -> Tracker | None:
        """Return a tracker for the records that a finished run has not got yet, or None where it has all."""
        ...


class Recorder:
    """A tracker that does nothing: subclasses override what they record."""

    def rewind(self, step: int) -> None: ...
    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None: ...
    def progress(self, what: str, done: int, total: int) -> None: ...
    def image(self, name: str, image: Tensor, step: int = 0) -> None: ...
    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None: ...
    def model(self, checkpoint: Path) -> None: ...
    def finish(self, end: End) -> None: ...


class Trackers:
    """Hands every call to each of `parts`; with no parts it is the tracker of the processes that keep silent."""

    def __init__(self, parts: Sequence[Tracker] = ()) -> None:
        self.parts = tuple(parts)

    def rewind(self, step: int) -> None:
        for part in self.parts:
            part.rewind(step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for part in self.parts:
            part.log(step, values)

    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        for part in self.parts:
            part.advance(step, total, values, images_per_second)

    def progress(self, what: str, done: int, total: int) -> None:
        for part in self.parts:
            part.progress(what, done, total)

    def image(self, name: str, image: Tensor, step: int = 0) -> None:
        for part in self.parts:
            part.image(name, image, step)

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        for part in self.parts:
            part.table(name, rows)

    def model(self, checkpoint: Path) -> None:
        for part in self.parts:
            part.model(checkpoint)

    def finish(self, end: End) -> None:
        for part in self.parts:
            part.finish(end)


def columns_of(rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Return the keys of all rows in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))
