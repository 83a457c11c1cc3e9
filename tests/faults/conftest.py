"""Running commands that are killed or meet a broken file system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code of each process (negative: the signal that killed it), time, file operations, memory, output."""

    codes: list[int]
    seconds: float
    operations: int
    peak_mib: float
    said: str

    @property
    def code(self) -> int:
        """The first that is not 0."""
        return next((code for code in self.codes if code), 0)


class Commands:
    """Runs `python run.py ...` in forked children of one warm process."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, folder: Path, **faults: Any) -> Ended:
        """Run a command in `folder`; `faults` are the request's, see tests/faults/server.py."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        log = folder.parent / f"{folder.name}.log"
        before = log.stat().st_size if log.exists() else 0
        request = {"arguments": arguments, "folder": str(folder), "log": str(log), **faults}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the server of the fault tests ended"
        return Ended(**json.loads(answer), said=log.read_bytes()[before:].decode(errors="replace"))

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    started = Commands()
    yield started
    started.close()
