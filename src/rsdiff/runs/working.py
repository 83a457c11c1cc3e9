"""Doing a run: in its folder, with its tracker, so that however it ends the folder says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import rsdiff
from rsdiff.config import ConfigError
from rsdiff.data.stop_signals import STOP_SIGNALS, answered
from rsdiff.runs.board import renew_board
from rsdiff.runs.command import typed_command
from rsdiff.runs.compatibility import Offers, check_compatible
from rsdiff.runs.console import accept_any_encoding, say
from rsdiff.runs.errors import PartFailedError, Terminated
from rsdiff.runs.ownership import forget_dead_owner
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.runs.status import Status, read_status
from rsdiff.tracking.tracker import RunIdentity, Tracker, Trackers


def do_run(
    settings: RunSettings,
    offers: Callable[[], Offers] = dict,
    begun: Callable[[Path], None] = lambda path: None,
    sweep: str | None = None,
    command: Sequence[str] | None = None,
) -> Status:
    """Do the run in its folder and say where its results are; a finished run is reported and not repeated.

    offers  what options give to a batch, for messages
    begun   called with the run's folder when this process owns it
    sweep   name of the sweep that the run belongs to
    command what is noted as typed after `python`; None takes what the user typed
    """
    accept_any_encoding()
    check_compatible(settings, offers)
    if settings.task.only_looks:
        say(settings.task.function()(settings).messages)
        return Status("finished")
    decision = settings.decision
    if decision.action == "finished" and not settings.task.repeats:
        forget_dead_owner(decision.folder)
        status = read_status(decision.folder)
        _send_finished(settings, decision.folder, sweep)
        say([f"already finished: {status.report_in(decision.folder) or decision.folder}", f"Delete {decision.folder} to run it again."])
        return status
    say(decision.reasons)
    is_new = not decision.folder.exists()
    code = Path(rsdiff.__file__).resolve().parent
    folder = RunFolder(
        decision.folder, decision.signature, settings.resolved, command or typed_command(), code, settings.identity, decision.rescored
    )
    try:
        with _terminate_as_interrupt(), folder, _tracking(settings, folder, sweep) as tracker:
            begun(folder.path)
            folder.finish(settings.task.function()(settings, folder, tracker))
            assert folder.result is not None
            say(folder.result.messages)
    except ConfigError:
        if is_new and sweep is None:
            folder.remove_refused(settings.outputs)
        raise
    finally:
        say([sentence for sentence in [renew_board(settings.outputs)] if sentence])
    if folder.result.failure:
        raise PartFailedError(folder.result.failure)
    return folder.status


def _identity(settings: RunSettings, folder: Path, sweep: str | None) -> RunIdentity:
    """Return what trackers record of the run."""
    tags = tuple(f"{group}={option}" for group, option in settings.choices.items() if group in settings.task.uses)
    group = f"sweep-{sweep}" if sweep else settings.choices["task"]
    return RunIdentity(folder, settings.name, group, settings.signature, tags, settings.resolved)


def _send_finished(settings: RunSettings, folder: Path, sweep: str | None) -> None:
    """Give the records of a finished run to a logger that was chosen only now."""
    if "logger" not in settings.groups:
        return
    tracker = settings.logger.absent(_identity(settings, folder, sweep))
    if tracker is None:
        return
    from rsdiff.tracking.replay import replay
    from rsdiff.training.checkpoints import best_checkpoint, last_checkpoint

    store = folder / "checkpoints"
    replay(folder, tracker, best_checkpoint(store) or last_checkpoint(store))
    say([f"the records of this finished run were given to logger={settings.choices.get('logger', 'the one chosen')}"])


@contextmanager
def _tracking(settings: RunSettings, folder: RunFolder, sweep: str | None) -> Iterator[Tracker]:
    """Give the run's tracker, which is closed however the run ends; processes other than the owner keep silent."""
    if not folder.is_owner:
        yield Trackers()
        return
    tracker = settings.logger.build(_identity(settings, folder.path, sweep))
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
