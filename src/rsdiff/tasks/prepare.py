"""task=prepare: pack a data set into one verified HDF5 file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from rsdiff.config.paths import typed_path
from rsdiff.data.packed import PackedDataset, is_packed
from rsdiff.data.packing import PrepareReport, pack
from rsdiff.data.source import DataError, DatasetConfig, ImageSource, Split
from rsdiff.runs.command import next_command
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tracking import Tracker

LISTED = 10


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Pack settings.dataset, read from `source=` where it is given, into `output=` or the run's folder."""
    on_error: Literal["stop", "skip"] = settings.task.on_error  # type: ignore[attr-defined] # PrepareTask's own option
    source = read_from(settings.dataset, settings.source)
    output = settings.output or folder.path / "packed.h5"
    try:
        report = prepare(source, output, on_error, lambda done, total: tracker.progress("packing", done, total), settings.scale)
    except DataError as error:
        if settings.source is None:
            raise
        raise DataError(str(error).replace("dataset.root", "source")) from error  # which the user typed
    figures: dict[str, float | int | str] = {"images": report.images, "bands": report.bands, "bytes": report.size_bytes}
    return TaskResult(messages=told(report), summary=figures, files=[report.output])


def prepare(
    source: DatasetConfig,
    output: Path,
    on_error: Literal["stop", "skip"],
    progress: Callable[[int, int], None],
    scale: float = 1.0,
) -> PrepareReport:
    """Write both splits of `source` into one packed file at `output`, verified; see rsdiff.data.packing.

    on_error  'skip' also leaves out files that the data set itself would refuse (its option `odd`)
    progress  called with the samples done and in all
    scale     the ratio of data that bring HR and LR; others do not depend on it
    """
    if isinstance(source, PackedDataset) or is_packed(getattr(source, "root", "")):
        raise DataError("the data set is packed already; give the folder it was made of with source=FOLDER.")
    source.check()
    if on_error == "skip" and "odd" in _options(source):
        source = replace(source, odd="skip")  # type: ignore[type-var] # every data set's config is a dataclass
    return pack(open_splits(source, scale), typed_path(output), on_error, scale, progress)


def open_splits(source: DatasetConfig, scale: float) -> dict[Split, ImageSource]:
    """Return the training and the test images; of a data set that is all for testing, the test images alone."""
    test = source.build("test", scale)
    if getattr(source, "split", None) == "test":
        return {"test": test}
    return {"train": source.build("train", scale), "test": test}


def read_from(dataset: DatasetConfig, source: Path | None) -> DatasetConfig:
    """Return the data set with `source` as its root; raises DataError for data that are not read from a folder."""
    if source is None:
        return dataset
    if "root" not in _options(dataset):
        raise DataError("this data set is not read from a folder; leave source= out, or use dataset=folder.")
    return replace(dataset, root=str(source))  # type: ignore[type-var]


def told(report: PrepareReport) -> list[str]:
    """Return the lines printed at the end."""
    counts = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    verb = "already holds" if report.was_done else "holds"
    lines = [
        f"{report.output} {verb} {report.images} images ({counts}; {', '.join(report.gives)}; {report.bands} bands; "
        f"{report.size_bytes / 1e6:.1f} MB), every checksum verified."
    ]
    if report.resumed and not report.was_done:
        lines.append(f"{report.resumed} of them had been packed by an earlier attempt.")
    if report.left_out:
        lines.append(f"{len(report.left_out)} images were left out:")
        lines += [f"  {name}: {reason}" for name, reason in report.left_out[:LISTED]]
        if len(report.left_out) > LISTED:
            lines.append(f"  and {len(report.left_out) - LISTED} more.")
    lines.append(f"next     {next_command('dataset=packed', f'dataset.file={report.output}')}")
    return lines


def _options(dataset: DatasetConfig) -> set[str]:
    names: Any = fields(dataset)  # type: ignore[arg-type] # a dataclass, as every config
    return {field.name for field in names}
