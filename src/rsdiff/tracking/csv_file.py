"""The numbers of a run as one CSV file that any spreadsheet opens: step, name, value, one line per number."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from rsdiff.config import config
from rsdiff.data.durable import write_text
from rsdiff.tracking.json_lines import JsonLinesConfig
from rsdiff.tracking.tracker import End, Recorder, RunIdentity, Trackers

FILE = "metrics.csv"
COLUMNS = ("step", "name", "value")


@config
class CsvConfig:
    """Records the run's numbers in metrics.csv of its folder, beside the history that every run keeps."""

    result_neutral: ClassVar[frozenset[str]] = frozenset({"progress"})

    progress: Literal["auto", "off"] = "auto"
    """auto: a bar on a terminal, else a line now and then; off: nothing."""

    def build(self, run: RunIdentity) -> Trackers:
        """Return the tracker of `run`."""
        return Trackers([*JsonLinesConfig(progress=self.progress).build(run).parts, CsvFile(run.folder)])

    def absent(self, run: RunIdentity) -> CsvFile | None:
        """See LoggerConfig."""
        return None if (run.folder / FILE).exists() else CsvFile(run.folder)


class CsvFile(Recorder):
    """Appends to the file; a run that is continued forgets what came after the step it continues from."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        if not self.path.exists():
            write_text(self.path, ",".join(COLUMNS) + "\n")

    def rewind(self, step: int) -> None:
        with self.path.open(newline="", encoding="utf-8") as stream:
            kept = [line for line in csv.reader(stream) if line[:1] == ["step"] or (len(line) == len(COLUMNS) and int(line[0]) <= step)]
        write_text(self.path, "".join(",".join(line) + "\n" for line in kept))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([step, name, float(value)] for name, value in values.items())

    def finish(self, end: End) -> None:
        """Every line is written when it is logged."""
