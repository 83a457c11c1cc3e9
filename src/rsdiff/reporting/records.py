"""The per-image records of an evaluation on disk: Parquet for programs, CSV for people, both written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsdiff.config import PlaceError
from rsdiff.data import durable

if TYPE_CHECKING:
    import pandas

    from rsdiff.degradations.base import RecordValue
    from rsdiff.metrics import Summary

PARQUET = "records.parquet"
CSV = "records.csv"
SUMMARIES = "summary.json"


def write_records(folder: Path, rows: Sequence[Mapping[str, RecordValue]]) -> pandas.DataFrame:
    """Write one row per image to `folder`/records.parquet and records.csv, sorted by name, and return them as a frame.

    Rows that share a name (the padding of a distributed loader's last batch) are written once. Columns keep the order in which the rows
    first name them.
    """
    import pandas  # here and not above: a page of runs that are known needs none

    frame = pandas.DataFrame(list({str(row["name"]): dict(row) for row in rows}.values()))
    if not frame.empty:
        frame = frame.sort_values("name", ignore_index=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / PARQUET, lambda path: frame.to_parquet(path, index=False))
    write_whole(folder / CSV, lambda path: frame.to_csv(path, index=False, float_format="%.6g"))
    return frame


def read_records(folder: Path) -> pandas.DataFrame:
    """Return the records of `folder`; raises FileNotFoundError that names the command which makes them."""
    path = folder / PARQUET
    if not path.is_file():
        raise PlaceError(f"{path} does not exist; run task=evaluate first.")
    import pandas

    return pandas.read_parquet(path)


def write_summaries(folder: Path, summary: Summary, cases: Sequence[tuple[str, Summary]]) -> None:
    """Write `folder`/summary.json: the means over everything under '' and those of every test set under its name."""
    content = {"": summary.as_dict(), **{name: part.as_dict() for name, part in cases}}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SUMMARIES, json.dumps(content, indent=1))


def read_summaries(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `write_summaries` wrote; raises FileNotFoundError that names the command which makes it."""
    path = folder / SUMMARIES
    if not path.is_file():
        raise PlaceError(f"{path} does not exist; run task=evaluate first.")
    summaries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return summaries


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_whole` does."""
    write_whole(path, lambda at: at.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole (`rsdiff.data.durable.write_whole`), and delete what a killed process was writing here.

    Nobody else would: `path` may lie outside the run's folder. Nor may another process be writing it.
    """
    durable.write_whole(path, write, is_only_writer=True)
