"""Does one run: decides whether there is anything to do, works in the run's folder, and says where the results are."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rsdiff.data.stop_signals import STOP_SIGNALS, answered
from rsdiff.runs.console import accept_any_encoding, say
from rsdiff.runs.errors import PartFailedError, Terminated
from rsdiff.runs.ownership import forget_dead_owner
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.runs.status import Status, read_status
from rsdiff.tracking import RunIdentity, Tracker, Trackers


def work(
    settings: RunSettings,
    command: Sequence[str],
    repository: Path,
    sweep: str | None = None,
    begun: Callable[[Path], None] = lambda path: None,
) -> Status:
    """Do the run and return how it stands; a finished run is reported and not repeated.

    command     as it was typed, for the record
    repository  whose commit is recorded
    sweep       name of the sweep that the run belongs to
    begun       called with the run's folder when this process owns it
    Raises PartFailedError where a part of the work failed and the rest is kept.
    """
    accept_any_encoding()
    if settings.task.only_looks:
        say(settings.task.function()(settings).messages)
        return Status("finished")
    decision = settings.decision
    if decision.action == "finished" and not settings.task.repeats:
        forget_dead_owner(decision.folder)
        status = read_status(decision.folder)
        say([f"already finished: {status.report_in(decision.folder) or decision.folder}", f"Delete {decision.folder} to run it again."])
        return status
    say(decision.reasons)
    folder = RunFolder(
        decision.folder, decision.signature, settings.resolved, command, repository, settings.identity, rescored=decision.rescored
    )
    with _terminate_as_interrupt(), folder, _tracking(settings, folder, sweep) as tracker:
        begun(folder.path)
        folder.finish(settings.task.function()(settings, folder, tracker))
        assert folder.result is not None
        say(folder.result.messages)
    if folder.result.failure:
        raise PartFailedError(folder.result.failure)
    return folder.status


def _run_identity(settings: RunSettings, folder: Path, sweep: str | None) -> RunIdentity:
    """Return what trackers are told of the run."""
    tags = tuple(f"{group}={option}" for group, option in settings.choices.items() if group in settings.task.uses)
    group = f"sweep-{sweep}" if sweep is not None else settings.choices["task"]
    return RunIdentity(folder, settings.name, group, settings.signature, tags, settings.resolved)


@contextmanager
def _tracking(settings: RunSettings, folder: RunFolder, sweep: str | None) -> Iterator[Tracker]:
    """Give the run's tracker, which is closed however the run ends; processes other than the owner keep silent."""
    if not folder.is_owner:
        yield Trackers()
        return
    tracker = settings.logger.build(_run_identity(settings, folder.path, sweep))
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
