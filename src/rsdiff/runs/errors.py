"""Every failure ends in one sentence on stderr and an exit code; tracebacks are for those who ask (RSDIFF_TRACEBACK=1)."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Mapping

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from rsdiff.config import ConfigError, UserError
from rsdiff.config.errors import Interrupted

OK, RUN_ERROR, CONFIG_ERROR, TO_BE_CONTINUED, INTERRUPTED = 0, 1, 2, 75, 130
"""Exit codes. 75 (EX_TEMPFAIL): stopped in good order by a time limit or a signal, the same command continues."""

LOST_WORKER = "DataLoader worker (pid"
"""What PyTorch says, from a signal handler and thus anywhere, of a loader process that is gone."""

ADVICE: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full; free some space, or set outputs=FOLDER on another disk, and give the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space, or set outputs=FOLDER on another disk, and give the same command again",
    errno.EROFS: "the file system is read-only; set outputs=FOLDER (or output=FILE) to a place that can be written",
    errno.EACCES: "permission is denied; choose a path you may read or write",
    errno.EPERM: "the operation is not permitted; choose a path you may read or write",
    errno.ENOENT: "it does not exist; check the path",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EISDIR: "it is a folder and a file is needed",
}


class Terminated(KeyboardInterrupt):
    """A scheduler's signal `signal` ended the run, as Ctrl-C does; the same command continues."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("RSDIFF_TRACEBACK") == "1"


def is_interruption(error: BaseException) -> bool:
    """Whether the run was stopped from outside and can be continued, rather than having failed."""
    return isinstance(error, KeyboardInterrupt | SystemExit | Interrupted)


def stops_everything(error: BaseException) -> bool:
    """Whether a run was stopped by someone who wants the whole sweep to stop: Ctrl-C or a scheduler's signal, not the run's time limit."""
    return is_interruption(error) and getattr(error, "signal", signal.SIGINT) is not None


class PartFailedError(UserError):
    """A part of what a task was to do failed; the rest is done and kept. The message is one sentence."""


def exit_code(error: BaseException) -> int:
    """Return the exit code that tells scripts what kind of failure it was."""
    if isinstance(error, Terminated):
        return TO_BE_CONTINUED
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, ConfigError | HydraException | OmegaConfBaseException | yaml.YAMLError):
        return CONFIG_ERROR
    return TO_BE_CONTINUED if is_interruption(error) else RUN_ERROR


def one_sentence(error: BaseException) -> str:
    """Return what went wrong in one line: rsdiff's own errors say it themselves, the others are named."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted; the same command continues from the last checkpoint."
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        return f"the accelerator's memory is too small ({text[:160]}); set trainer.accumulate=auto, or lower trainer.patch."
    if is_lost_loader(error):
        return (
            "a process that loads images was killed, or ran out of memory; give the same command again, which continues from the last "
            "checkpoint, with fewer of them (trainer.workers) if it happens again."
        )
    if is_lost_cell(error):
        return (
            "a cell left Slurm's queue without a result (cancelled, killed, or its node failed); the table says which, and the same "
            "command runs it again."
        )
    if isinstance(error, OSError) and error.errno is not None:
        advice = ADVICE.get(error.errno, (error.strerror or type(error).__name__).lower())
        return f"{error.filename}: {advice}." if error.filename else f"{advice}."
    if _is_ours(error):
        return text
    return f"{type(error).__name__}: {text or 'no message'}"


def print_error(error: BaseException) -> None:
    """Print the sentence, naming the rank where there are several, and where to find more about an error that is not explained.

    A mistake in the settings is the same on every rank and is printed by one.
    """
    if exit_code(error) == CONFIG_ERROR and os.environ.get("RANK", "0") != "0":
        return
    rank = f" (rank {os.environ['RANK']})" if "RANK" in os.environ else ""
    print(f"error{rank}: {one_sentence(error)}", file=sys.stderr)
    known = is_lost_loader(error) or is_lost_cell(error)
    explained = known or _is_ours(error) or is_out_of_memory(error) or isinstance(error, OSError | KeyboardInterrupt)
    if not explained:
        print("Set RSDIFF_TRACEBACK=1 to see where it happened.", file=sys.stderr)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch says that the accelerator has no memory left. Its class is known by name: most commands that fail need no PyTorch."""
    return type(error).__module__.partition(".")[0] == "torch" and type(error).__name__ == "OutOfMemoryError"


def is_lost_loader(error: BaseException) -> bool:
    """Whether PyTorch says that a loader process is gone."""
    return isinstance(error, RuntimeError) and LOST_WORKER in str(error)


def is_lost_cell(error: BaseException) -> bool:
    """Whether submitit says that a job is gone and has left no result."""
    return type(error).__module__.startswith("submitit.") and type(error).__name__ == "UncompletedJobError"


def _is_ours(error: BaseException) -> bool:
    """Whether the message is a sentence written for users: rsdiff raises ValueError, OSError and errors of its own modules that way."""
    return isinstance(error, ValueError | OSError) or type(error).__module__.startswith("rsdiff.")
