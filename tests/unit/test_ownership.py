"""A run folder has one living owner."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rsdiff.runs.ownership import (
    DEAD_AFTER_S,
    RECORD,
    TAKEOVER,
    OwnedElsewhereError,
    Ownership,
    forget_dead_owner,
    is_owned,
    read_owner,
)

HOLD = """
import fcntl, os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def record(folder: Path, host: str, pid: int, age: float) -> None:
    (folder / RECORD).write_text(json.dumps({"host": host, "pid": pid, "since": "2026-01-01 00:00:00"}))
    changed = time.time() - age
    os.utime(folder / RECORD, (changed, changed))


def test_the_owner_is_recorded_while_it_works(tmp_path: Path) -> None:
    with Ownership(tmp_path):
        owner = read_owner(tmp_path)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert read_owner(tmp_path) is None


def test_another_process_on_this_host_is_refused_until_the_owner_is_killed(tmp_path: Path) -> None:
    # The record lock itself, held by a small process without the package.
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "owner.lock")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    record(tmp_path, os.uname().nodename, holder.pid, age=0)
    with pytest.raises(OwnedElsewhereError, match=f"process {holder.pid} on "), Ownership(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with Ownership(tmp_path):
        pass


def test_a_living_owner_on_another_host_is_respected(tmp_path: Path) -> None:
    record(tmp_path, "elsewhere", 1, age=DEAD_AFTER_S / 2)
    with pytest.raises(OwnedElsewhereError, match="process 1 on elsewhere"), Ownership(tmp_path):
        pass


def test_an_owner_on_another_host_that_stopped_renewing_is_dead(tmp_path: Path) -> None:
    record(tmp_path, "elsewhere", 1, age=2 * DEAD_AFTER_S)
    with Ownership(tmp_path):
        owner = read_owner(tmp_path)
    assert owner is not None
    assert owner.pid == os.getpid()


def test_a_living_owner_is_seen_and_a_dead_one_forgotten(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for host, pid, age, lives in (
        (os.uname().nodename, os.getpid(), 0.0, True),
        (os.uname().nodename, ended.pid, 0.0, False),
        ("elsewhere", 1, DEAD_AFTER_S / 2, True),
        ("elsewhere", 1, 2 * DEAD_AFTER_S, False),
    ):
        record(tmp_path, host, pid, age)
        assert is_owned(tmp_path) == lives
        forget_dead_owner(tmp_path)
        assert (read_owner(tmp_path) is not None) == lives


@pytest.mark.parametrize("locks", [True, False])
def test_a_takeover_that_was_killed_on_this_host_holds_nobody_up(tmp_path: Path, locks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    record(tmp_path, os.uname().nodename, ended.pid, 0.0)
    (tmp_path / TAKEOVER).write_text((tmp_path / RECORD).read_text())
    if not locks:

        def no_locks(*_: object) -> None:
            raise OSError(errno.ENOLCK, "no locks here")

        monkeypatch.setattr("fcntl.lockf", no_locks)
    with Ownership(tmp_path) as mine:
        assert read_owner(tmp_path) == mine.owner
    assert not (tmp_path / TAKEOVER).exists()


def test_a_takeover_of_a_living_process_is_respected(tmp_path: Path) -> None:
    record(tmp_path, "elsewhere", 1, age=2 * DEAD_AFTER_S)
    (tmp_path / TAKEOVER).write_text(json.dumps({"host": "elsewhere too", "pid": 1, "since": "now"}))
    with pytest.raises(OwnedElsewhereError), Ownership(tmp_path):
        pass
    os.utime(tmp_path / TAKEOVER, (1, 1))
    with Ownership(tmp_path):
        pass


RACE = """
import errno, fcntl, sys, time
from pathlib import Path
from rsdiff.runs import ownership

def no_locks(*_):
    raise OSError(errno.ENOLCK, "no locks here")

fcntl.lockf = no_locks
ownership.socket.gethostname = lambda: sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
try:
    with ownership.Ownership(Path(sys.argv[1])):
        print("own", flush=True)
        sys.stdin.readline()
except ownership.OwnedElsewhereError:
    print("refused", flush=True)
"""


@pytest.mark.parametrize("before", ["nothing", "a dead owner's record"])
def test_of_nodes_that_start_at_once_on_a_file_system_without_locks_one_owns_the_folder(tmp_path: Path, before: str) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": "src"}
    nodes = [
        subprocess.Popen([*command, f"node{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for number in range(4)
    ]
    if before != "nothing":
        record(tmp_path, "gone", 1, age=2 * DEAD_AFTER_S)
    said = []
    for node in nodes:
        assert node.stdout is not None
        assert node.stdout.readline() == "ready\n"
    for node in nodes:
        assert node.stdin is not None
        node.stdin.write("\n")
        node.stdin.flush()
    for node in nodes:
        assert node.stdout is not None
        said.append(node.stdout.readline().strip())
    assert sorted(said) == ["own", "refused", "refused", "refused"]
    for node in nodes:
        node.communicate("\n")
    assert read_owner(tmp_path) is None


def test_a_number_that_another_process_has_by_now_is_no_living_owner(tmp_path: Path) -> None:
    with Ownership(tmp_path) as mine:
        assert is_owned(tmp_path)
        values = {"host": mine.owner.host, "pid": mine.owner.pid, "since": mine.owner.since, "started": "1"}
        (tmp_path / RECORD).write_text(json.dumps(values))
        assert not is_owned(tmp_path)
