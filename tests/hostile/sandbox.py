"""Reads files in forked children and says what became of each: how it ended, how long it took, how much memory."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FRESH_ABOVE_MIB = 64.0
"""A child that has grown by more is replaced before the next file, so that what one file took is not blamed on another."""


@dataclass(frozen=True)
class Outcome:
    """kind  'read', 'refused' (a ValueError or OSError, as the project's are), 'leaked' (another error), 'killed' (crashed or too slow)"""

    kind: str
    message: str
    seconds: float
    grown_mib: float


def attempt(read: Callable[[Path], object], path: Path, seconds: int = 20) -> Outcome:
    """Call `read` with `path` in a child of this process, for at most `seconds` of computing and ten times as long in all."""
    return attempt_all(read, [path], seconds)[0]


def attempt_all(read: Callable[[Path], object], paths: Sequence[Path], seconds: int = 20) -> list[Outcome]:
    """Call `read` with each path; one child reads as many as it survives."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(paths):
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(receive)
            with os.fdopen(send, "w") as answers:
                _read_all(read, paths[len(outcomes) :], seconds, lambda line: print(line, file=answers, flush=True))  # noqa: B023
            os._exit(0)
        os.close(send)
        with os.fdopen(receive) as stream:
            answers = stream.readlines()
        _, status, usage = os.wait4(pid, 0)
        outcomes += [Outcome(*json.loads(answer)) for answer in answers]
        if os.WIFSIGNALED(status):
            outcomes.append(Outcome("killed", f"signal {os.WTERMSIG(status)}", float(seconds), usage.ru_maxrss / 1024))
    return outcomes


def _read_all(read: Callable[[Path], object], paths: Sequence[Path], seconds: int, tell: Callable[[str], None]) -> None:
    before = _memory_mib()
    for path in paths:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(10 * seconds)
        started = time.process_time()
        kind, message = "read", ""
        try:
            read(path)
        except (ValueError, OSError) as error:
            kind, message = "refused", str(error)
        except BaseException as error:
            kind, message = "leaked", f"{type(error).__name__}: {error}"
        grown = _memory_mib() - before
        tell(json.dumps([kind, message[:2000], time.process_time() - started, grown]))
        if grown > FRESH_ABOVE_MIB:
            break


def _memory_mib() -> float:
    """The largest memory this process had so far, or, in a child, has had since its birth."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
