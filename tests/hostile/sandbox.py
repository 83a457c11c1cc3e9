"""Reads a file in a forked child and says what became of it: how it ended, how long it took, how much memory."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """kind  'read', 'refused' (a ValueError or OSError of the project, one sentence), 'leaked' (another error), 'killed'"""

    kind: str
    message: str
    seconds: float
    grown_mib: float


def attempt(read: Callable[[], object], seconds: int = 20) -> Outcome:
    """Call `read` in a child of this process. The child may take 4 GiB more and `seconds`."""
    receive, send = os.pipe()
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        signal.alarm(seconds)
        answer = ("read", "")
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read()
        except (ValueError, OSError) as error:
            answer = ("refused", str(error))
        except BaseException as error:
            answer = ("leaked", f"{type(error).__name__}: {error}")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - own
        os.write(send, json.dumps([*answer[:1], answer[1][:2000], grown / 1024]).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as stream:
        told = stream.read()
    _, status, usage = os.wait4(pid, 0)
    taken = time.monotonic() - started
    if not told:
        return Outcome("killed", f"signal {os.WTERMSIG(status)}", taken, (usage.ru_maxrss - before) / 1024)
    kind, message, grown = json.loads(told)
    return Outcome(kind, message, taken, grown)
