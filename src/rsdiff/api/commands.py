"""Commands in Python: composed, checked and done as on the command line, in folders of their own, with results as values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsdiff.app.command_line import check_run, composing, refuse_lists
from rsdiff.app.main import CONF
from rsdiff.app.plugins import name_plugins
from rsdiff.app.words import for_hydra, words_of
from rsdiff.config import ConfigError, UserError, config_from_mapping
from rsdiff.config.quiet import quietly
from rsdiff.runs.options import RunOptions
from rsdiff.runs.settings import RunSettings

if TYPE_CHECKING:
    import pandas

    from rsdiff.metrics.calibration import Calibration


def compose(*settings: str) -> RunSettings:
    """Return the checked settings of a command, typed and frozen; raises ConfigError as the command does.

    >>> import rsdiff
    >>> run = rsdiff.compose("model=sr3_tiny", "degradation=iso", "scale=2")
    >>> run.scale, run.model.width
    (2.0, 16)
    """
    words = words_of(_texts(settings))
    name_plugins(words.plugins)
    typed_words = for_hydra(words)
    with composing(CONF):
        refuse_lists(typed_words)
        return check_run(typed_words)


def _texts(settings: Sequence[Any]) -> Sequence[str]:
    """Return settings as they are; raises ConfigError for what is none."""
    for given in settings:
        if not isinstance(given, str) or given.startswith("-"):
            raise ConfigError(f"{given!r} is no setting; give texts such as 'scale=2', each by itself, and flags to the command alone.")
    return settings


def checked_options(scale: Any, seed: Any = 0) -> RunOptions:
    """Return scale and seed as a run takes them; raises UserError in one sentence."""
    return config_from_mapping(RunOptions, {"scale": scale, "seed": seed}, "")


@dataclass(frozen=True)
class Ended:
    """A run that is done, or was done before.

    folder   of the run
    summary  its figures, as a sweep's table has them
    report   the page to open, None of tasks without one
    files    what else it made
    settings what it was composed of
    """

    folder: Path
    summary: Mapping[str, float | int | str]
    report: Path | None
    files: tuple[Path, ...]
    settings: RunSettings


def run(*settings: str, verbose: bool = False) -> Ended:
    """Do what a command says and return what became of it; what was finished before is not repeated, as on the command line.

    settings  as on the command line, of one run: rsdiff.run("model=rrdb_tiny", "trainer.steps=100") trains
    verbose   print what the command prints
    Raises UserError in one sentence where the command ends with an error.

    >>> import rsdiff, tempfile
    >>> small = ("dataset.size=32", "dataset.test_images=2", "metrics.metrics=[psnr]", f"outputs={tempfile.mkdtemp()}")
    >>> ended = rsdiff.run("task=evaluate", "model=bicubic", *small)
    >>> ended.summary["images"], ended.report.name
    (2, 'report.html')
    """
    from rsdiff.runs.status import found_at
    from rsdiff.runs.working import do_run

    chosen = compose(*settings)
    if chosen.task.only_looks or chosen.task.starts_others:
        how = "only shows what there is" if chosen.task.only_looks else "starts runs of its own"
        raise UserError(f"task={chosen.choices['task']} {how}; type it as a command: python -m rsdiff {shlex.join(settings)}.")
    with quietly(not verbose):
        status = do_run(chosen, command=("-m", "rsdiff", *settings))
    folder = chosen.run_path
    files = tuple(found_at(folder, name) for name in status.files)
    return Ended(folder, status.summary, status.report_in(folder), files, chosen)


def evaluate(checkpoint: str | Path, *settings: str, outputs: str | Path = "outputs", verbose: bool = False) -> pandas.DataFrame:
    """Evaluate a checkpoint as task=evaluate does, and return one row per image.

    settings  as on the command line: rsdiff.evaluate(RUN, "dataset=whu", "metrics=basicsr_y"); what is not chosen comes from the checkpoint
    outputs   folder of all run folders: the evaluation's report is there, and a finished one is read from there
    verbose   print what the command prints

    >>> import rsdiff, tempfile
    >>> small = ("dataset=synthetic", "dataset.size=32", "dataset.test_images=2", "metrics.metrics=[psnr]")
    >>> rows = rsdiff.evaluate("zoo:any_scale", *small, outputs=tempfile.mkdtemp())
    >>> len(rows), bool((rows["psnr"] > 10).all())
    (2, True)
    """
    from rsdiff.reporting.records import read_records

    return read_records(run("task=evaluate", *_with(checkpoint, outputs), *settings, verbose=verbose).folder / "evaluation")


def calibrate(checkpoint: str | Path, *settings: str, outputs: str | Path = "outputs", verbose: bool = False) -> Calibration:
    """Calibrate the intervals of several restorations as task=calibrate does, and return how wide they are.

    settings  as on the command line: rsdiff.calibrate(RUN, "dataset=whu", "task.samples=8")
    outputs, verbose  as `evaluate` has them
    The calibration is stored with the checkpoint (that of weights of the zoo in the run's folder alone), where `Model.restore` finds it.

    >>> import rsdiff, tempfile
    >>> small = ("dataset=synthetic", "dataset.size=32", "dataset.test_images=24", "task.samples=2")
    >>> rsdiff.calibrate("zoo:any_scale", *small, outputs=tempfile.mkdtemp()).images
    12
    """
    from rsdiff.runs import calibrations

    ended = run("task=calibrate", *_with(checkpoint, outputs), *settings, verbose=verbose)
    return calibrations.read(ended.folder / calibrations.FILE).calibration


def _with(checkpoint: str | Path, outputs: str | Path) -> Sequence[str]:
    return f"checkpoint={checkpoint}", f"outputs={outputs}"


def typed(value: Any) -> str:
    """Return a value as Hydra's grammar writes it."""
    if isinstance(value, str | Path):
        return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(typed, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{typed(item)}" for name, item in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
