"""The history every run keeps: one JSON object per line, pictures as PNG, tables as CSV, all inside the run's folder.

Lines hold steps and values and no times, so the history of a resumed run equals, byte for byte, that of an uninterrupted one.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TextIO

from rsdiff.config import config
from rsdiff.data.durable import write_text
from rsdiff.tracking.progress import Progress
from rsdiff.tracking.tracker import Cell, End, Recorder, RunIdentity, Trackers, columns_of

if TYPE_CHECKING:
    from torch import Tensor

HISTORY = "history.jsonl"


@config
class JsonLinesConfig:
    """Records the run in its own folder only."""

    result_neutral: ClassVar[frozenset[str]] = frozenset({"progress"})

    progress: Literal["auto", "off"] = "auto"
    """auto: a bar on a terminal, else a line now and then; off: nothing."""

    def build(self, run: RunIdentity) -> Trackers:
        """Return the tracker of `run`."""
        return Trackers([JsonLines(run.folder), *([Progress()] if self.progress == "auto" else [])])

    def absent(self, run: RunIdentity) -> None:
        """Every run has its history."""


class JsonLines(Recorder):
    """Writes `history.jsonl`, `images/` and `tables/` in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / HISTORY
        self._stream: TextIO | None = None
        self._kept: frozenset[str] = frozenset()

    def rewind(self, step: int) -> None:
        self._close()
        if not self.path.exists():
            return
        with self.path.open() as stream:
            lines = [line for line in stream if _step_of(line, default=step + 1) <= step]
        write_text(self.path, "".join(lines))
        # A validation that was logged before a kill is repeated; its line is not.
        self._kept = frozenset(line for line in lines if _step_of(line, default=0) == step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._stream is None:
            self._stream = self.path.open("a")
        record = {"step": step, **{name: _number(value) for name, value in values.items()}}
        line = json.dumps(record) + "\n"
        if line not in self._kept:
            self._stream.write(line)
            self._stream.flush()

    def image(self, name: str, image: Tensor, step: int = 0) -> None:
        path = self.folder / "images" / f"{name}_{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        from PIL import Image

        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        path = self.folder / "tables" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns_of(rows), restval="")
            writer.writeheader()
            writer.writerows(rows)

    def finish(self, end: End) -> None:
        self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def read_history(folder: Path) -> list[dict[str, float]]:
    """Return the records of a run's history, oldest first; an incomplete last line (a killed run) is left out."""
    path = folder / HISTORY
    if not path.exists():
        return []
    records = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    return [{name: float(value) for name, value in record.items()} for record in records]


def _step_of(line: str, default: int) -> int:
    """Return a line's step; `default` for a line that a kill left incomplete."""
    try:
        return int(json.loads(line)["step"])
    except ValueError:
        return default


def _number(value: float) -> float | str:
    """JSON has no infinities: they are written as the words 'inf', '-inf' and 'nan', which float() reads back."""
    return float(value) if math.isfinite(value) else str(float(value))
