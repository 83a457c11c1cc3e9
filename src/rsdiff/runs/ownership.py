"""One process owns a run folder at a time, on this host or any other that shares the file system.

On one host the operating system holds the lock and drops it when the owner dies, however it dies. Between hosts, where file locks are
not always honoured, a record names the owner and a thread renews its date; an owner whose record is no longer renewed is dead.
Dates are compared with the date the file system gives a new file, so the hosts' clocks need not agree.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from rsdiff.config import PlaceError
from rsdiff.data.durable import write_json

RENEWED_EVERY_S = 20.0
DEAD_AFTER_S = 120.0
LOCK, RECORD = "owner.lock", "owner.json"


class OwnedElsewhereError(PlaceError):
    """Another living process works in the folder; one sentence that names it."""


@dataclass(frozen=True)
class Owner:
    """The process that owns a folder."""

    host: str
    pid: int
    since: str


class Ownership:
    """Context in which this process owns `folder`, which exists.

    Raises OwnedElsewhereError on entry when another process does. A POSIX record lock is used rather than flock because it belongs to the
    process: loader workers, which are forked and may outlive a killed owner by seconds, do not hold it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="rsdiff-owner", daemon=True)

    def __enter__(self) -> Ownership:
        self._descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._lock()
            self._refuse_owner_on_another_host()
            write_json(self.folder / RECORD, asdict(Owner(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))))
        except BaseException:
            os.close(self._descriptor)
            raise
        self._renewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._renewer.join()
        try:
            (self.folder / RECORD).unlink(missing_ok=True)
        except OSError:
            if error is None:
                raise
            # The disk that broke the run breaks this as well; the run's own error says more, and a record that stays grows old.
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)

    def _lock(self) -> None:
        assert self._descriptor is not None
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise self._owned_by(read_owner(self.folder)) from None
        except OSError:
            # A file system without locks: the record has to do, for this host as for others.
            owner = read_owner(self.folder)
            if owner is not None and owner.host == socket.gethostname() and owner.pid != os.getpid() and _is_alive(owner.pid):
                raise self._owned_by(owner) from None

    def _refuse_owner_on_another_host(self) -> None:
        owner = read_owner(self.folder)
        if owner is not None and owner.host != socket.gethostname() and record_age(self.folder) < DEAD_AFTER_S:
            raise self._owned_by(owner)

    def _owned_by(self, owner: Owner | None) -> OwnedElsewhereError:
        who = f"process {owner.pid} on {owner.host}, since {owner.since}" if owner else "another process"
        return OwnedElsewhereError(
            f"{self.folder} is being worked on by {who}; wait for it, stop it, or change a setting (such as seed) to begin another run."
        )

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED_EVERY_S):
            try:
                os.utime(self.folder / RECORD)
            except OSError:  # a full disk or a lost mount ends the run where it writes results, not here
                continue


def read_owner(folder: Path) -> Owner | None:
    """Return who the folder's record names, or None where there is no readable record."""
    try:
        return Owner(**json.loads((folder / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_owned(folder: Path) -> bool:
    """Whether a living process owns `folder`, as far as this host can tell; takes nothing and leaves nothing."""
    owner = read_owner(folder)
    if owner is None:
        return False
    if owner.host == socket.gethostname():
        return _is_alive(owner.pid)
    try:
        return record_age(folder) < DEAD_AFTER_S
    except OSError:  # a folder that may only be read: the clocks of the hosts have to do
        return time.time() - (folder / RECORD).stat().st_mtime < DEAD_AFTER_S


def forget_dead_owner(folder: Path) -> None:
    """Delete the record of an owner that was killed between the end of its run and the end of its ownership."""
    if read_owner(folder) is not None and not is_owned(folder):
        with suppress(OSError):
            (folder / RECORD).unlink(missing_ok=True)


def record_age(folder: Path) -> float:
    """Return the seconds since the folder's record was renewed, by the file system's own clock; infinity without a record."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock.") as probe:
            return os.stat(probe.name).st_mtime - (folder / RECORD).stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
