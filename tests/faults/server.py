"""A process that has imported everything and forks a child per command, so that a hundred killed runs do not cost a hundred imports.

Reads one JSON request per line: {"arguments": [...], "folder": current folder of the child, "log": file of its output, and optionally
"processes", "environment", "kill_after_s", "kill_at_operation", "at_step", "break"}. Answers one JSON line each:
{"codes": exit status of every process, negative for a signal, "seconds": ..., "operations": file operations counted, "peak_mib": memory}.

processes          ranks of one run, as accelerate launch starts them, but nobody watches over them
kill_after_s       seconds until the (first) process is killed
at_step            {"rank": r, "step": n, "do": what, "to": whom}: in the n-th training step of process r; see `happen`
kill_at_operation  the child kills itself right before its n-th opening, renaming or deleting of a file: kills by the clock rarely hit
                   the moments between two of them
break              {"errno": number, "at_operation": n, "name": part of a path}: from the n-th such operation on, the file system refuses
                   what names the path
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
COUNTED = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"})


class FileOperations:
    """Counts this process's file operations inside `folder` and interferes with one of them."""

    def __init__(self, folder: Path, kill_at: int | None, refusal: dict[str, Any] | None) -> None:
        self.folder = str(folder)
        self.kill_at = kill_at
        self.refusal = refusal
        self.count = 0
        self.pid = os.getpid()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in COUNTED or os.getpid() != self.pid or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.path.abspath(os.fspath(arguments[0]))
        reads = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if not path.startswith(self.folder) or reads:
            return
        self.count += 1
        if self.count == self.kill_at:
            os.kill(self.pid, signal.SIGKILL)
        if self.refusal is not None and self.refusal["name"] in path and self.count >= self.refusal.get("at_operation", 0):
            raise OSError(self.refusal["errno"], os.strerror(self.refusal["errno"]), path)


def happen(what: str, whom: str) -> None:
    """Do one of the things that go wrong."""
    match what:
        case "signal":
            os.kill(os.getpid(), getattr(signal, whom))
        case "kill a loader process":
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        case "delete":
            Path(whom).unlink()
        case "replace":
            shutil.copyfile(Path(whom).with_name("other.image"), whom)
        case "out of memory":
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        case "clock":
            offset = -86400.0
            true_time = time.time
            time.time = lambda: true_time() + offset
        case _:
            raise ValueError(what)


def let_happen_at_step(fault: dict[str, Any]) -> None:
    """Let something happen when this process degrades the batch of a training step."""
    from rsdiff.training import trainer

    made, count = trainer.degrade_on, itertools.count(1)

    def degrade_on(*arguments: Any) -> Any:
        if next(count) == fault["step"]:
            happen(fault["do"], fault.get("to", ""))
        return made(*arguments)

    trainer.degrade_on = degrade_on


def child(request: dict[str, Any], environment: dict[str, str], report: int) -> None:
    """Do `python run.py <arguments>` in this process and end it."""
    from rsdiff.app.main import main

    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(request["folder"])
    os.environ.update(environment)
    operations = FileOperations(Path(request["folder"]), request.get("kill_at_operation"), request.get("break"))
    sys.addaudithook(operations)
    if request.get("at_step") and request["at_step"].get("rank", 0) == int(environment.get("RANK", "0")):
        let_happen_at_step(request["at_step"])
    sys.argv = ["run.py", *request["arguments"]]
    code = 70
    try:
        main(REPOSITORY)
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(report, f"{operations.count} ".encode())
        os._exit(code)


def serve() -> None:
    """Answer requests until the input ends."""
    import torch

    import rsdiff.app.main
    import rsdiff.tasks.evaluate
    import rsdiff.tasks.import_weights
    import rsdiff.tasks.prepare
    import rsdiff.tasks.restore
    import rsdiff.tasks.train  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answer(request)), flush=True)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Fork the processes of a request, wait for all of them and say how they ended."""
    count = request.get("processes", 1)
    common = dict(request.get("environment") or {})
    if count > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        common |= {"TORCHELASTIC_RUN_ID": port, "ACCELERATE_USE_CPU": "true"}
    read, write = os.pipe()
    started = time.monotonic()
    pids = []
    for rank in range(count):
        own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else common
        pids.append(os.fork())
        if pids[-1] == 0:
            os.close(read)
            child(request, own, write)
    os.close(write)
    if request.get("kill_after_s") is not None:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(pids[0], signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, request["kill_after_s"]))
    ended = [os.wait4(pids[0], 0)]
    if "SIGSTOP" in str(request.get("at_step")):
        os.kill(pids[-1], signal.SIGKILL)  # it sleeps; nobody else would end it
    ended += [os.wait4(pid, 0) for pid in pids[1:]]
    signal.setitimer(signal.ITIMER_REAL, 0)
    counted = os.read(read, 20 * count)
    os.close(read)
    return {
        "codes": [os.waitstatus_to_exitcode(status) for _, status, _ in ended],
        "seconds": time.monotonic() - started,
        "operations": sum(map(int, counted.split())),
        "peak_mib": max(usage.ru_maxrss for _, _, usage in ended) / 1024,
    }


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve()
