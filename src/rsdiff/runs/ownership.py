"""One process owns a run folder at a time, on this host or any other that shares the file system.

On one host the operating system holds the lock and drops it when the owner dies, however it dies. Between hosts, where file locks are
not always honoured, a record names the owner and a thread renews its date; an owner whose record is no longer renewed is dead.
Dates are compared with the date the file system gives a new file, so the hosts' clocks need not agree.

Why no library: a killed owner must hold nobody up, because the cell of a sweep that is refused is lost to this attempt. filelock's
SoftFileLease (4.3) refuses the lock of another host's owner that was killed an hour ago until it has watched it for a whole lease;
flufl.lock (9) refuses that of a process killed on this host until its lifetime and ten seconds are over. Here both are taken over at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from rsdiff.config import PlaceError
from rsdiff.data.durable import write_json

RENEWED_EVERY_S = 20.0
DEAD_AFTER_S = 120.0
LOCK, RECORD, TAKEOVER = "owner.lock", "owner.json", "owner.takeover"


class OwnedElsewhereError(PlaceError):
    """Another living process works in the folder; one sentence that names it."""


@dataclass(frozen=True)
class Owner:
    """The process that owns a folder; `started` tells it from a later one with its number (empty where the system does not say)."""

    host: str
    pid: int
    since: str
    started: str = ""


class Ownership:
    """Context in which this process owns `folder`, which exists.

    Raises OwnedElsewhereError on entry when another process does. A POSIX record lock is used rather than flock because it belongs to the
    process: loader workers, which are forked and may outlive a killed owner by seconds, do not hold it. Where locks are not honoured, the
    record decides: it comes into being by a link, which only one of several processes succeeds in, and that of a dead owner is replaced
    by the one process that created the file TAKEOVER.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = Owner(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"), _start_of(os.getpid()))
        self._descriptor: int | None = None
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="rsdiff-owner", daemon=True)

    def __enter__(self) -> Ownership:
        self._descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._record(is_locked=self._lock())
        except BaseException:
            os.close(self._descriptor)
            raise
        self._renewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._renewer.join()
        try:
            if read_owner(self.folder) == self.owner:
                (self.folder / RECORD).unlink(missing_ok=True)
        except OSError:
            if error is None:
                raise
            # The disk that broke the run breaks this as well; the run's own error says more, and a record that stays grows old.
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)

    def _lock(self) -> bool:
        """Take the lock and return True, or False on a file system without locks; raise where another process of this host has it."""
        assert self._descriptor is not None
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise self._owned_by(read_owner(self.folder)) from None
        except OSError:
            return False
        return True

    def _record(self, is_locked: bool) -> None:
        """Write the record that names this process, unless a living one has its own there."""
        mine = self.folder / f".{RECORD}.{self.owner.host}.{self.owner.pid}.partial"
        write_json(mine, asdict(self.owner))
        try:
            if not _linked(mine, self.folder / RECORD):
                with self._takeover(mine, is_locked):
                    owner = read_owner(self.folder)
                    if self._lives(owner, is_locked):
                        raise self._owned_by(owner)
                    mine.replace(self.folder / RECORD)
        finally:
            mine.unlink(missing_ok=True)

    def _lives(self, owner: Owner | None, is_locked: bool) -> bool:
        """Whether the owner that the record names is alive; on this host nobody else is while this process holds the lock."""
        if owner is None:
            return False
        if owner.host == self.owner.host:
            return not is_locked and owner.pid != self.owner.pid and _is_alive(owner)
        return record_age(self.folder) < DEAD_AFTER_S

    @contextmanager
    def _takeover(self, mine: Path, is_locked: bool) -> Iterator[None]:
        """Context in which this process, which `mine` names, alone may replace the record; raises where another one is doing so."""
        mark = self.folder / TAKEOVER
        if self._is_abandoned(mark, is_locked):
            mark.unlink(missing_ok=True)
        if not _linked(mine, mark):
            raise self._owned_by(read_owner(self.folder))
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def _is_abandoned(self, mark: Path, is_locked: bool) -> bool:
        """Whether the process that made TAKEOVER was killed, or its disk broke, before it could delete it."""
        taker = _read(mark)
        if taker is not None and taker.host == self.owner.host:
            return is_locked or not _is_alive(taker)
        return mark.exists() and _age(self.folder, mark) > DEAD_AFTER_S

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
    return _read(folder / RECORD)


def _read(record: Path) -> Owner | None:
    try:
        return Owner(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_owned(folder: Path) -> bool:
    """Whether a living process owns `folder`, as far as this host can tell; takes nothing and leaves nothing."""
    owner = read_owner(folder)
    if owner is None:
        return False
    if owner.host == socket.gethostname():
        return _is_alive(owner)
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
    return _age(folder, folder / RECORD)


def _age(folder: Path, path: Path) -> float:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock.") as probe:
            return os.stat(probe.name).st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name, which succeeds for one process alone; where links are not possible, create the name exclusively."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        try:
            with target.open("x", encoding="utf-8") as file:
                file.write(source.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _is_alive(owner: Owner) -> bool:
    """Whether the process of an owner on this host lives and is not another one that was given its number."""
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not owner.started or _start_of(owner.pid) in ("", owner.started)


def _start_of(pid: int) -> str:
    """Return when a process started, in the system's ticks, or '' where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
