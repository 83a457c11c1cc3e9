"""The folder of a run: who works in it, what state it is in, and what it takes to know later how its results came about.

    status.json       state, error, summary and report of the run
    identity.json     what the run is: its settings and the content of what it reads; images.json: the digest of every image
    config.yaml       the composed settings
    provenance.jsonl  one line per process that worked here: command, code version, package versions, host, time
    history.jsonl     what the tracker logged
    checkpoints/      what training saved
    run.log           what every process that worked here said, and the traceback of a failure

With several processes (accelerate launch) rank 0 owns the folder and the others wait until it does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from rsdiff.config import PlaceError
from rsdiff.data.durable import write_json, write_text
from rsdiff.runs.command import shell_text
from rsdiff.runs.console import LOG, logging_to, own_log
from rsdiff.runs.errors import is_interruption, note_run, one_sentence
from rsdiff.runs.identity import IDENTITY, IMAGES, Identity
from rsdiff.runs.ownership import LOCK, Ownership
from rsdiff.runs.provenance import provenance
from rsdiff.runs.result import TaskResult
from rsdiff.runs.status import STATUS, State, Status, read_status, relative_to

WAIT_FOR_OWNER_S = 300.0
RECORDS = frozenset({STATUS, IDENTITY, IMAGES, LOCK, LOG, "config.yaml", "provenance.jsonl"})
"""Files that say which run a folder is of, and no result."""


class RunFolder:
    """Context in which this process works in the run folder `path`.

    Entering makes the folder, takes it (rank 0) or waits for rank 0 to take it, and records the settings; leaving records how the run
    ended. A finished run is not entered: ask `decide` first. Raises OwnedElsewhereError, or OSError for a folder that cannot be written.

    identity  what the run is, recorded in the folder
    rescored  whether the results in the folder are of other test images or metrics: they are moved to `evaluation-<number>`
    """

    def __init__(
        self,
        path: Path,
        signature: str,
        settings: Mapping[str, Any],
        command: Sequence[str],
        repository: Path,
        identity: Identity | None = None,
        rescored: bool = False,
    ) -> None:
        self.path = path
        self.signature = signature
        self.identity = identity
        self.rescored = rescored
        self.settings = settings
        self.command = command
        self.repository = repository
        self.rank = int(os.environ.get("RANK", "0"))
        self.result: TaskResult | None = None
        self._unreadable: tuple[str, ...] = ()
        self._log = ExitStack()
        self._ownership = Ownership(path)

    @property
    def is_owner(self) -> bool:
        """Whether this process writes; one of all ranks does."""
        return self.rank == 0

    @property
    def command_text(self) -> str:
        """The command line as a shell reads it."""
        return shell_text(self.command)

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
            self._log.enter_context(logging_to(self.path, f"rank {self.rank}"))
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        self._ownership.__enter__()
        try:
            self._remove_leftovers()
            unreadable = tuple(self.status.unreadable)
            self._write(Status("running", unreadable=unreadable, launch=launch_id()))
            self._unreadable = unreadable
            if self.rescored:
                self._move_results()
            if self.identity is not None:
                self.identity.write(self.path, self.signature)
            write_text(self.path / "config.yaml", yaml.safe_dump(dict(self.settings), sort_keys=False))
            with (self.path / "provenance.jsonl").open("a") as stream:
                stream.write(json.dumps(provenance(self.command, self.repository)) + "\n")
            self._log.enter_context(logging_to(self.path, self.command_text))
        except BaseException:
            self._ownership.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            note_run(error, self.signature, self.path / LOG)
            trace_text = "" if is_interruption(error) else "".join(traceback.format_exception(kind, error, trace))
            own_log().error("%s%s", trace_text, one_sentence(error))
        self._log.close()
        if not self.is_owner:
            return
        try:
            self._write(self._end(error))
        except OSError:
            if error is None:
                raise
            # The disk that broke the run cannot take the news either; the error itself says more.
        finally:
            self._ownership.__exit__(kind, error, trace)

    def finish(self, result: TaskResult) -> None:
        """Say what the run's result is; it is recorded when the context is left without an error."""
        self.result = result

    def remove_refused(self, outputs: Path) -> None:
        """Delete the folder of a run that its settings did not let begin, and the empty folders above it; not where it holds any result."""
        if not self.is_owner or {path.name for path in self.path.iterdir()} - RECORDS:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # not empty
            for parent in self.path.parents:
                if parent.is_relative_to(outputs):
                    parent.rmdir()

    def require_space(self, needed_bytes: int) -> None:
        """Raise OSError in one sentence if the disk of the folder has less free space than `needed_bytes`."""
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

    def _move_results(self) -> None:
        """Give results of other test images another name, so that no row of theirs is taken for one of this evaluation."""
        results = self.path / "evaluation"
        number = 1 + len(list(self.path.glob("evaluation-*")))
        if results.exists():
            results.rename(self.path / f"evaluation-{number}")

    def _unread(self, error: BaseException) -> tuple[str, ...]:
        """Return the names of the run's images that an error names as files, with those that earlier attempts could not read."""
        images = self.identity.images.values() if self.identity is not None else ()
        text = str(error)
        named = [name for split in images for name in split if re.search(rf"(^|[/\\\s]){re.escape(name)}[^/\s]*\.\w", text)]
        return tuple(dict.fromkeys([*self._unreadable, *named]))

    def _end(self, error: BaseException | None) -> Status:
        if error is not None:
            unreadable = self._unreadable if is_interruption(error) else self._unread(error)
            return Status("interrupted" if is_interruption(error) else "failed", error=one_sentence(error), unreadable=unreadable)
        if self.result is None:
            return Status("failed", error="the task ended without a result.")
        made = dict.fromkeys(relative_to(self.path, path) for path in (self.result.report, *self.result.files) if path)
        report = relative_to(self.path, self.result.report) if self.result.report else None
        messages, summary = tuple(self.result.messages), dict(self.result.summary)
        failure = self.result.failure  # of a part: the same command tries that again
        state: State = "failed" if failure else "finished"
        return Status(state, failure or None, messages, summary, report, tuple(made), self._unreadable)

    def _write(self, status: Status) -> None:
        write_json(self.path / STATUS, asdict(replace(status, updated=time.strftime("%Y-%m-%d %H:%M:%S"))))

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


def launch_id() -> str:
    """Return a name that the processes of one launch share and other launches do not: of torchrun's variables, else the process itself."""
    if "RANK" not in os.environ:
        return f"pid {os.getpid()}"
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID")
    one_node = os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE")
    return " ".join([*(os.environ.get(name, "-") for name in names), str(os.getppid()) if one_node else "-"])
