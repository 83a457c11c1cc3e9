"""The folder of a run: who works in it, what state it is in, and what it takes to know later how its results came about.

    status.json       state, error, summary and report of the run
    config.yaml       the composed settings
    provenance.jsonl  one line per process that worked here: command, code version, package versions, host, time
    history.jsonl     what the tracker logged
    checkpoints/      what training saved
    traceback.txt     of the last failure

With several processes (accelerate launch) rank 0 owns the folder and the others wait until it does.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import yaml

import rsdiff
from rsdiff.config import PlaceError
from rsdiff.data.durable import write_json, write_text
from rsdiff.runs.errors import is_interruption, one_sentence
from rsdiff.runs.ownership import Ownership
from rsdiff.runs.result import TaskResult

State = Literal["new", "running", "finished", "failed", "interrupted"]
WAIT_FOR_OWNER_S = 300.0
PACKAGES = ("torch", "numpy", "accelerate", "hydra-core", "opencv-python-headless", "rasterio", "scipy", "h5py", "safetensors", "pillow")
"""Packages whose version can change a result."""


@dataclass(frozen=True)
class Status:
    """What status.json says."""

    state: State = "new"
    error: str | None = None
    messages: Sequence[str] = ()
    summary: Mapping[str, float | int | str] = field(default_factory=dict)
    report: str | None = None
    files: Sequence[str] = ()
    launch: str | None = None
    updated: str | None = None

    def lost_files(self) -> list[Path]:
        """Return which of the run's results were deleted since it finished."""
        return [path for path in map(Path, self.files) if not path.exists()]


class RunFolder:
    """Context in which this process works in the run folder `path`.

    Entering makes the folder, takes it (rank 0) or waits for rank 0 to take it, and records the settings; leaving records how the run
    ended. A finished run is not entered: ask `status` first. Raises OwnedElsewhereError, or OSError for a folder that cannot be written.
    """

    def __init__(self, path: Path, signature: str, settings: Mapping[str, Any], command: Sequence[str], repository: Path) -> None:
        self.path = path
        self.signature = signature
        self.settings = settings
        self.command = command
        self.repository = repository
        self.rank = int(os.environ.get("RANK", "0"))
        self.result: TaskResult | None = None
        self._ownership = Ownership(path)

    @property
    def is_owner(self) -> bool:
        """Whether this process writes; one of all ranks does."""
        return self.rank == 0

    @property
    def command_text(self) -> str:
        """The command line as a shell reads it."""
        return shlex.join(["python", *self.command])

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.path / "checkpoints"

    @property
    def status(self) -> Status:
        """What the folder says of its run; state 'new' where there is none."""
        return read_status(self.path)

    def __enter__(self) -> RunFolder:
        if not self.is_owner:
            self._wait_for_owner()
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        self._ownership.__enter__()
        try:
            self._remove_leftovers()
            write_text(self.path / "config.yaml", yaml.safe_dump(dict(self.settings), sort_keys=False))
            with (self.path / "provenance.jsonl").open("a") as stream:
                stream.write(json.dumps(provenance(self.command, self.repository)) + "\n")
            self._write(Status("running", launch=launch_id()))
        except BaseException:
            self._ownership.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.is_owner:
            return
        try:
            self._write(self._end(error))
            if error is not None and not is_interruption(error):
                write_text(self.path / "traceback.txt", "".join(traceback.format_exception(kind, error, trace)))
        except OSError:
            if error is None:
                raise
            # The disk that broke the run cannot take the news either; the error itself says more.
        finally:
            self._ownership.__exit__(kind, error, trace)

    def finish(self, result: TaskResult) -> None:
        """Say what the run's result is; it is recorded when the context is left without an error."""
        self.result = result

    def require_space(self, needed_bytes: int) -> None:
        """Raise OSError in one sentence if the disk of the folder has less room than `needed_bytes`."""
        free = shutil.disk_usage(self.path).free
        if free < needed_bytes:
            raise PlaceError(
                f"{self.path} has {free / 2**20:.0f} MiB left on its disk and this run needs about {needed_bytes / 2**20:.0f} MiB; "
                "free some or set outputs=FOLDER on another disk."
            )

    def _remove_leftovers(self) -> None:
        """Delete what killed processes were writing: nobody else works here now."""
        for leftover in self.path.rglob(".*.partial"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def _end(self, error: BaseException | None) -> Status:
        if error is not None:
            return Status("interrupted" if is_interruption(error) else "failed", error=one_sentence(error))
        if self.result is None:
            return Status("failed", error="the task ended without a result.")
        report = str(self.result.report) if self.result.report else None
        files = dict.fromkeys(str(path.absolute()) for path in (self.result.report, *self.result.files) if path)
        return Status("finished", None, tuple(self.result.messages), dict(self.result.summary), report, tuple(files))

    def _write(self, status: Status) -> None:
        write_json(self.path / "status.json", asdict(replace(status, updated=time.strftime("%Y-%m-%d %H:%M:%S"))))

    def _wait_for_owner(self) -> None:
        """Return when rank 0 of this launch works in the folder."""
        deadline = time.monotonic() + WAIT_FOR_OWNER_S
        while self.status.launch != launch_id():
            if time.monotonic() > deadline:
                raise PlaceError(
                    f"rank {self.rank} waited {WAIT_FOR_OWNER_S:.0f} s for rank 0 to begin the run in {self.path}; look at what rank 0 "
                    "says, and let all processes see the same outputs folder."
                )
            time.sleep(0.1)


def read_status(path: Path) -> Status:
    """Return the status of the run in folder `path`; state 'new' where none is recorded."""
    try:
        return Status(**json.loads((path / "status.json").read_text()))
    except FileNotFoundError:
        return Status()
    except (ValueError, TypeError, RecursionError):
        raise PlaceError(f"{path / 'status.json'} cannot be read; delete it to let the run continue from its last checkpoint.") from None


def launch_id() -> str:
    """Return a name that the processes of one launch share and other launches do not: of torchrun's variables, else the process itself."""
    if "RANK" not in os.environ:
        return f"pid {os.getpid()}"
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID")
    one_node = os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE")
    return " ".join([*(os.environ.get(name, "-") for name in names), str(os.getppid()) if one_node else "-"])


def provenance(command: Sequence[str], repository: Path) -> dict[str, Any]:
    """Return what is needed to know which code and machine worked on a run."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": list(command),
        "host": platform.node(),
        "pid": os.getpid(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "git": git_state(repository),
        "rsdiff": rsdiff.__version__,
        "python": sys.version.split()[0],
        "packages": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that can change a result."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def git_state(repository: Path) -> dict[str, Any] | None:
    """Return the commit of the working tree and whether it was changed since; None outside a git checkout."""
    try:
        commit = _git(repository, "rev-parse", "HEAD").strip()
        return {"commit": commit, "changed": bool(_git(repository, "status", "--porcelain").strip())}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(repository: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(repository), *arguments], check=True, capture_output=True, text=True, timeout=20).stdout


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
