"""Every failure ends in one sentence on stderr and an exit code; its traceback is in the log of the run's folder.

RSDIFF_TRACEBACK=1 shows tracebacks instead.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from rsdiff.config import ConfigError, UserError
from rsdiff.config.errors import Interrupted, part_of

OK, RUN_ERROR, CONFIG_ERROR, TO_BE_CONTINUED, INTERRUPTED = 0, 1, 2, 75, 130
"""Exit codes. 75 (EX_TEMPFAIL): stopped cleanly by a time limit or a signal, the same command continues."""

LOST_WORKER = "DataLoader worker (pid"
"""What PyTorch says, from a signal handler and thus anywhere, of a loader process that is gone."""
NO_MEMORY = re.compile("DefaultCPUAllocator|alloc_cpu|can't allocate memory|out of memory")
"""What PyTorch says, in a RuntimeError, when the machine's memory is used up."""
RUN, LOG_OF = "rsdiff_run", "rsdiff_log"
"""What is noted on an error: the run that it ended, and the file with its traceback."""

_SPACE = "free some space, or set outputs=FOLDER (and output=PATH) on another disk, and give the same command again"
ADVICE: Mapping[int, str] = {
    errno.ENOSPC: f"the disk is full; {_SPACE}",
    errno.EDQUOT: f"your disk quota is used up; {_SPACE}",
    errno.EFBIG: "the file would be larger than the system lets files be; raise that limit (ulimit -f), or choose a folder on another disk",
    errno.EEXIST: "a file of this name exists where a folder is needed; choose another folder",
    errno.EROFS: "the file system is read-only; set outputs=FOLDER (or output=FILE) to a place that can be written",
    errno.EACCES: "permission is denied; choose a path you may read or write",
    errno.EPERM: "the operation is not permitted; choose a path you may read or write",
    errno.ENOENT: "it does not exist; check the path",
    errno.EEXIST: "a file is there and a folder is needed; choose another folder",
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
    """Return what went wrong in one line. Only sentences written for users, and the system's about files, are shown as they are."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted; the same command continues from the last checkpoint."
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        return memory_sentence(error)
    if is_lost_loader(error):
        return (
            "a process that loads images was killed, or ran out of memory; give the same command again, which continues from the last "
            "checkpoint, with fewer of them (trainer.workers) if it happens again."
        )
    if is_lost_cell(error):
        return (
            "a run left Slurm's queue without a result (cancelled, killed, or its node failed); the table says which, and the same "
            "command runs it again."
        )
    if is_for_users(error):
        return text
    if isinstance(error, OSError) and error.errno is not None:
        advice = ADVICE.get(error.errno, (error.strerror or type(error).__name__).lower())
        return f"{error.filename}: {advice}." if error.filename else f"{advice}."
    return f"a fault of rsdiff ({type(error).__name__}: {text[:200] or 'no message'})."


def is_for_users(error: BaseException) -> bool:
    """Whether the message is a sentence written for users."""
    of_rsdiff = type(error).__module__.startswith("rsdiff.")
    return isinstance(error, UserError | HydraException | OmegaConfBaseException | yaml.YAMLError) or of_rsdiff


def is_fault(error: BaseException) -> bool:
    """Whether an error is the software's own: nothing that the user typed, the system or the machine explains it."""
    explained = is_out_of_memory(error) or is_lost_loader(error) or is_lost_cell(error) or is_interruption(error)
    return not (explained or is_for_users(error) or (isinstance(error, OSError) and error.errno is not None))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the accelerator or of the machine, was too small."""
    if isinstance(error, MemoryError) or _is_accelerators(error):
        return True
    return isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))


def _is_accelerators(error: BaseException) -> bool:
    """Whether PyTorch says that the accelerator has no memory left. Its class is known by name: most commands that fail need no PyTorch."""
    return type(error).__module__.partition(".")[0] == "torch" and type(error).__name__ == "OutOfMemoryError"


def memory_sentence(error: BaseException) -> str:
    """Return what to do when memory is too small, by the part of the run that needed it."""
    on = "the accelerator's memory" if _is_accelerators(error) else "the memory"
    run = error.__dict__.get(RUN, "RUN")
    match part_of(error):
        case "validation":
            return (
                f"{on} is too small to validate on whole images; the training is saved up to here. Give the same command where there is "
                f"more, or continue without validation: add trainer.extend={run} trainer.validate_every_steps=0."
            )
        case "evaluation":
            return (
                f"{on} is too small to restore whole test images; what was trained and scored is saved. Give the same command where "
                "there is more memory, or smaller test images."
            )
        case _:
            return f"{on} is too small; set trainer.accumulate=auto, or lower trainer.patch."


def print_error(error: BaseException) -> None:
    """Print the sentence, naming the rank where there are several, and for a fault of the software the log with its traceback.

    A mistake in the settings is the same on every rank and is printed by one. A clean stop is no error.
    """
    if exit_code(error) == CONFIG_ERROR and os.environ.get("RANK", "0") != "0":
        return
    rank = f" (rank {os.environ['RANK']})" if "RANK" in os.environ else ""
    word = "stopped" if is_interruption(error) else "error"
    sentence = one_sentence(error)
    print(sentence if sentence.startswith("stopped") else f"{word}{rank}: {sentence}", file=sys.stderr)
    if is_fault(error):
        print(f"Its traceback is in {log_of(error)}; please report it with that file.", file=sys.stderr)


def note_run(error: BaseException, run: str, log: Path) -> None:
    """Remember with an error which run it ended and where its log is."""
    error.__dict__.setdefault(RUN, run)
    error.__dict__.setdefault(LOG_OF, str(log))


def log_of(error: BaseException) -> str:
    """Return the log that has the traceback of an error; of one outside a run's folder, a new file beside the system's temporary ones."""
    known = error.__dict__.get(LOG_OF)
    if known is not None:
        return str(known)
    try:
        with tempfile.NamedTemporaryFile("w", prefix="rsdiff-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
        return file.name
    except OSError:
        return "no file, for none can be written (set RSDIFF_TRACEBACK=1 to see it)"


def is_lost_loader(error: BaseException) -> bool:
    """Whether PyTorch says that a loader process is gone."""
    return isinstance(error, RuntimeError) and LOST_WORKER in str(error)


def is_lost_cell(error: BaseException) -> bool:
    """Whether submitit says that a job is gone and has left no result."""
    return type(error).__module__.startswith("submitit.") and type(error).__name__ == "UncompletedJobError"
