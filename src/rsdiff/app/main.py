"""The way of every command: check the command line, let Hydra compose it, work in the run's folder, report in one place.

Hydra calls `run_one` once, or once per run of a sweep, in this process or in a launcher's workers. A sweep goes on when one of its runs
fails and ends with one table of all of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rsdiff.app.command_line import ALSO_CALLED, CONFIG_NAME, check_command, with_options_of_checkpoint
from rsdiff.app.composition import settings_from
from rsdiff.app.groups import register_schemas
from rsdiff.app.help import print_help
from rsdiff.app.launchers import prepare_launcher
from rsdiff.data.stop_signals import STOP_SIGNALS, answered
from rsdiff.runs import sweep
from rsdiff.runs.compatibility import check_compatible
from rsdiff.runs.errors import OK, RUN_ERROR, PartFailedError, Terminated, exit_code, print_error, stops_everything, wants_traceback
from rsdiff.runs.ownership import OwnedElsewhereError, forget_dead_owner
from rsdiff.runs.run_folder import RunFolder, Status, read_status
from rsdiff.runs.settings import RunSettings
from rsdiff.runs.signature import run_signature
from rsdiff.tracking import RunIdentity, Tracker, Trackers

REPOSITORY, SWEEP, HYDRA_ERRORS = "RSDIFF_REPOSITORY", "RSDIFF_SWEEP", "HYDRA_FULL_ERROR"


class RunEnded(BaseException):
    """Carries the error of a run through Hydra, which would announce an Exception in its own words before passing it on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def main(repository: Path) -> None:
    """Do what the command line says and exit. `repository` holds the folders conf, experiments and sweeps."""
    repository = repository.resolve()
    os.environ[REPOSITORY] = str(repository)
    if os.environ.get(HYDRA_ERRORS) == "1":
        os.environ["RSDIFF_TRACEBACK"] = "1"
    register_schemas()
    arguments = get_args_parser().parse_args()
    conf = repository / "conf"
    if arguments.help:
        sys.exit(print_help(repository, arguments.overrides))
    try:
        overrides = with_options_of_checkpoint(conf, [ALSO_CALLED.get(word, word) for word in arguments.overrides])
        admitted = dict(zip(arguments.overrides, overrides, strict=True))
        sys.argv = [admitted.get(word, word) for word in sys.argv]  # where Hydra reads them again
        sweep_folder = _prepare(conf, overrides, arguments.multirun)
        try:
            with _hydra_raising():
                hydra.main(version_base="1.3", config_path=str(conf), config_name=CONFIG_NAME)(run_one)()
        finally:
            failed = sweep.conclude(sweep_folder) if sweep_folder is not None else 0
    except (Exception, KeyboardInterrupt, RunEnded) as ended:
        error = ended.error if isinstance(ended, RunEnded) else ended
        if wants_traceback():
            raise error from None
        print_error(error)
        sys.exit(exit_code(error))
    sys.exit(RUN_ERROR if failed else OK)


@contextmanager
def _hydra_raising() -> Iterator[None]:
    """Let Hydra pass errors on: left to itself it prints them in its own way and exits."""
    before = os.environ.get(HYDRA_ERRORS)
    os.environ[HYDRA_ERRORS] = "1"
    try:
        yield
    finally:
        os.environ[HYDRA_ERRORS] = before or "0"


def run_one(composed: DictConfig) -> None:
    """Do one run. In a sweep a failure is recorded and the others go on; alone it is raised."""
    node = HydraConfig.get()
    if node.mode != RunMode.MULTIRUN:
        try:
            _run(settings_from(composed, node))
        except Exception as error:
            raise RunEnded(error) from error
        return
    number = sweep.cell_number(int(node.job.num))
    if sweep.is_chosen(number):
        _run_cell(composed, node, number, Path(node.sweep.dir))


def _run_cell(composed: DictConfig, node: Any, number: int, folder: Path) -> None:
    """Do one run of a sweep, keeping its record in the sweep's folder."""
    record = sweep.Record(number, tuple(node.overrides.task))

    def begun(path: Path) -> None:
        nonlocal record
        record = record.begun(path)
        sweep.write_record(folder, record)

    try:
        settings = settings_from(composed, node)
        status = _run(settings, begun)
    except OwnedElsewhereError as error:
        print_error(error)  # the record belongs to the process that works on this cell
        return
    except (KeyboardInterrupt, SystemExit) as error:
        sweep.write_record(folder, record.failed(error))
        hand_on(error)
        raise
    except Exception as error:
        if wants_traceback():
            raise
        print_error(error)
        sweep.write_record(folder, record.failed(error))
        if stops_everything(error):
            hand_on(error)
            raise KeyboardInterrupt from error
        return
    sweep.write_record(folder, record.of(settings, status))


def hand_on(error: BaseException) -> None:
    """Pass the signal that ended a cell to the launcher, if it listens: on SIGUSR2 submitit puts the job into the queue again.

    Its handler must not run before: it exits at once, without a checkpoint.
    """
    number = getattr(error, "signal", None)
    if number is not None and callable(signal.getsignal(number)):
        signal.raise_signal(number)


def _prepare(conf: Path, overrides: Sequence[str], multirun: bool) -> Path | None:
    """Check the command line; for a sweep, return the folder of its table."""
    command = check_command(conf, overrides, multirun)
    if not command.is_sweep:
        return None
    prepare_launcher(command.launcher)
    os.environ[SWEEP] = run_signature({"overrides": sorted(overrides)})
    return sweep.start(command.runs[0].outputs / "sweeps" / os.environ[SWEEP], command.cells)


def _run(settings: RunSettings, begun: Callable[[Path], None] = lambda path: None) -> Status:
    """Do the run in its folder and say where its results are; a finished run is reported and not repeated.

    begun  called with the run's folder when this process owns it
    """
    check_compatible(settings)
    if settings.task.only_looks:
        _say(settings.task.function()(settings).messages)
        return Status("finished")
    status = read_status(settings.run_path)
    if status.state == "finished" and not settings.task.repeats:
        lost = status.lost_files()
        if not lost:
            forget_dead_owner(settings.run_path)
            _say([f"already finished: {status.report or settings.run_path}", f"Delete {settings.run_path} to run it again."])
            return status
        _say([f"finished before, but {lost[0]} is gone; it is made again."])
    folder = RunFolder(settings.run_path, settings.signature, settings.resolved, sys.argv, Path(os.environ[REPOSITORY]))
    with _terminate_as_interrupt(), folder, _tracking(settings, folder) as tracker:
        begun(folder.path)
        folder.finish(settings.task.function()(settings, folder, tracker))
    assert folder.result is not None
    _say(folder.result.messages)
    if folder.result.failure:
        raise PartFailedError(folder.result.failure)
    return folder.status


@contextmanager
def _tracking(settings: RunSettings, folder: RunFolder) -> Iterator[Tracker]:
    """Give the run's tracker, which is closed however the run ends; processes other than the owner keep silent."""
    if not folder.is_owner:
        yield Trackers()
        return
    tags = tuple(f"{group}={option}" for group, option in settings.choices.items() if group in settings.task.uses)
    group = f"sweep-{os.environ[SWEEP]}" if SWEEP in os.environ else settings.choices["task"]
    identity = RunIdentity(folder.path, settings.name, group, settings.signature, tags, settings.resolved)
    tracker = settings.logger.build(identity)
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.finish("interrupted")
        raise
    except BaseException:
        tracker.finish("failed")
        raise
    tracker.finish("finished")


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let a scheduler's signals end the run as Ctrl-C does, so that its folder says so.

    Training itself waits for the end of a step, see the trainer. Loader workers, which inherit the handler, die as before.
    """
    owner = os.getpid()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated(number)

    with answered(STOP_SIGNALS, interrupt):
        yield


def _say(lines: Sequence[str]) -> None:
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(lines))
