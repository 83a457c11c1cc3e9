"""The way of every command: Hydra composes it and calls `run_one`, once, or once per run of a sweep, here or in a launcher's processes.

What stands before Hydra only reads words (`rsdiff.app.words`); the checks run inside, on what Hydra composed. A sweep goes on when one
of its runs fails and ends with one table of all of them.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import rsdiff
from rsdiff.app.command_line import COMPOSING, CONFIG_NAME, OF_LISTS, composing, refuse_lists
from rsdiff.app.composition import settings_from, words_typed
from rsdiff.app.diagnosis import diagnosis
from rsdiff.app.ended import RunEnded
from rsdiff.app.help import print_help
from rsdiff.app.offers import offers_of_hydra
from rsdiff.app.plugins import load_plugins, name_plugins
from rsdiff.app.records import FOLDER
from rsdiff.app.schemas import register_schemas
from rsdiff.app.words import Words, for_hydra, refuse_unknown_flags, words_of
from rsdiff.config import ConfigError, UserError
from rsdiff.runs import sweep
from rsdiff.runs.board import renew_board
from rsdiff.runs.command import remember_typed
from rsdiff.runs.console import SAID, accept_any_encoding
from rsdiff.runs.errors import OK, RUN_ERROR, exit_code, print_error, stops_everything, wants_traceback
from rsdiff.runs.identity import signature_of
from rsdiff.runs.ownership import OwnedElsewhereError
from rsdiff.runs.settings import RunSettings
from rsdiff.runs.status import Status
from rsdiff.runs.working import do_run

CONF = (Path(rsdiff.__file__).parent / "conf").resolve()
"""The configs of the package."""
SWEEP, HYDRA_ERRORS = "RSDIFF_SWEEP", "HYDRA_FULL_ERROR"


def main(repository: Path | None = None) -> None:
    """Do what the command line says and exit. `repository` holds the folders conf, experiments and sweeps; None takes the package's."""
    conf = CONF if repository is None else repository.resolve() / "conf"
    accept_any_encoding()
    words = words_of(sys.argv[1:])
    if "--version" in words.flags:
        print(f"rsdiff {rsdiff.__version__} (Hydra {hydra.__version__})")
        sys.exit(OK)
    if os.environ.get(HYDRA_ERRORS) == "1":
        os.environ["RSDIFF_TRACEBACK"] = "1"
    try:
        refuse_unknown_flags(words)
        name_plugins(words.plugins)
        load_plugins()
        if words.wants_help:
            sys.exit(_helped(conf, words))
        failed = _with_hydra(conf, words)
    except (Exception, KeyboardInterrupt, RunEnded) as ended:
        error = ended.error if isinstance(ended, RunEnded) else ended
        if wants_traceback():
            raise error from None
        print_error(error)
        sys.exit(exit_code(error))
    sys.exit(RUN_ERROR if failed else OK)


def _helped(conf: Path, words: Words) -> int:
    """Print help; a reader who has had enough (`--help | head`) is no error."""
    try:
        code = print_help(conf, words)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # at its end Python flushes again
        return OK
    return code


def _with_hydra(conf: Path, words: Words) -> int:
    """Let Hydra do the command; return how many runs of a sweep did not finish."""
    register_schemas()
    arguments = for_hydra(words)
    overrides = arguments[len(words.flags) :]
    remember_typed()
    sys.argv = [sys.argv[0], *arguments]
    os.environ[SWEEP] = signature_of({"overrides": sorted(overrides)})
    os.environ.pop(FOLDER, None)
    os.environ.pop(SAID, None)
    failed = 0
    try:
        with _hydra_raising():
            hydra.main(version_base="1.3", config_path=str(conf), config_name=CONFIG_NAME)(run_one)()
    except UserError:
        raise
    except COMPOSING as error:
        raise _explained(conf, words, overrides, error) from error
    finally:
        if FOLDER in os.environ:
            failed = sweep.conclude(Path(os.environ[FOLDER]))
            renew_board(Path(os.environ[FOLDER]).parents[1])
    return failed


def _explained(conf: Path, words: Words, overrides: list[str], error: Exception) -> Exception:
    """Return the error in a sentence that says what to type instead, for a command line that Hydra could not compose."""
    try:
        with composing(conf, words.config_folders):
            if not words.is_multirun:
                refuse_lists(overrides)
            return ConfigError(diagnosis(words.value("config_name") or CONFIG_NAME, overrides, error))
    except ConfigError as better:
        return better


@contextmanager
def _hydra_raising() -> Iterator[None]:
    """Let Hydra pass errors on: left to itself it prints them in its own way and exits."""
    before = os.environ.get(HYDRA_ERRORS)
    os.environ[HYDRA_ERRORS] = "1"
    try:
        yield
    finally:
        os.environ[HYDRA_ERRORS] = before or "0"


def run_one(composed: DictConfig) -> float | None:
    """Do one run and return the figure that a sweeper may optimise. A failure in a sweep is recorded and the others go on."""
    register_schemas()  # in a launcher's process nobody has
    _collect_garbage_again()
    node = HydraConfig.get()
    if node.mode != RunMode.MULTIRUN:
        try:
            settings = settings_from(composed, node)
            return _figure(settings, do_run(settings, offers_of_hydra))
        except Exception as error:
            raise RunEnded(error) from error
    number = sweep.cell_number(int(node.job.num))
    return _run_cell(composed, node, number) if sweep.is_chosen(number) else None


def _collect_garbage_again() -> None:
    """Let Python look for unreachable objects, but not among those that the start of the command made, see `rsdiff.__main__.command`."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _run_cell(composed: DictConfig, node: Any, number: int) -> float | None:
    """Do one run of a sweep, keeping its record in the sweep's folder."""
    folder = Path(node.runtime.cwd) / str(node.sweep.dir)
    record = sweep.Record(number, tuple(words_typed(node.overrides.task)))

    def begun(path: Path) -> None:
        nonlocal record
        record = record.begun(path)
        sweep.write_record(folder, record)

    try:
        settings = settings_from(composed, node)
        status = do_run(settings, offers_of_hydra, begun, os.environ.get(SWEEP, folder.name))
        figure = _figure(settings, status)
    except OwnedElsewhereError as error:
        print_error(error)  # the record belongs to the process that works on this cell
        return None
    except (KeyboardInterrupt, SystemExit) as error:
        sweep.write_record(folder, record.failed(error))
        hand_on(error)
        raise
    except Exception as error:
        if wants_traceback():
            raise
        sweep.write_record(folder, record.failed(error))
        if composed.get("stop_on_failure"):
            raise RunEnded(error) from error
        print_error(error)
        if stops_everything(error):
            hand_on(error)
            raise KeyboardInterrupt from error
        if not str(node.sweeper._target_).endswith(OF_LISTS):
            raise  # a sweeper that learns from the runs has to know
        return None
    sweep.write_record(folder, record.of(settings, status))
    return figure


def _figure(settings: RunSettings, status: Status) -> float | None:
    """Return the figure of a run's summary that `optimise` names, by default the first; None for a run without any.

    Raises ConfigError where the run has no figure of that name.
    """
    figures = {name: float(value) for name, value in status.summary.items() if isinstance(value, int | float)}
    wanted = settings.options.optimise
    if wanted is None:
        return next(iter(figures.values()), None)
    if wanted not in figures:
        raise ConfigError(f"optimise={wanted} is not a figure of this run; its figures are {', '.join(figures) or 'none'}.")
    return figures[wanted]


def hand_on(error: BaseException) -> None:
    """Pass the signal that ended a cell to the launcher, if it listens: on SIGUSR2 submitit puts the job into the queue again.

    Its handler must not run before: it exits at once, without a checkpoint.
    """
    number = getattr(error, "signal", None)
    if number is not None and callable(signal.getsignal(number)):
        signal.raise_signal(number)
