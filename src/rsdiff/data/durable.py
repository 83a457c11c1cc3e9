"""Files that a reader sees whole, old or new, whatever is killed while they are written."""

from __future__ import annotations

import glob
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object], is_only_writer: bool = False) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it.

    is_only_writer  no other process can be writing this file, so that what a killed one left of it is deleted; needed where `path` lies
                    outside a run's folder, which is cleaned when the run begins
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial") if is_only_writer else ():
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        write(temporary)
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes of this host were writing in a folder, where others may be writing now."""
    for path in folder.glob(".*.partial"):
        pid = path.name.removesuffix(".partial").rpartition(".")[2]
        if pid.isdecimal() and path.name.endswith(f".{socket.gethostname()}.{pid}.partial") and not _is_running(int(pid)):
            path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def write_text(path: Path, text: str, is_only_writer: bool = False) -> None:
    """Write a text file whole."""
    write_whole(path, lambda at: at.write_text(text, encoding="utf-8"), is_only_writer)


def write_json(path: Path, content: Mapping[str, Any], is_only_writer: bool = False) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=1), is_only_writer)


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file that others may read as any other file: safetensors lets nobody but its owner."""
    from safetensors.torch import save_file  # here and not above: it imports PyTorch

    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    path.chmod(mode)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as npz, whole, under exactly this name."""
    import numpy as np  # here and not above: it takes a fifth of the start of a command that only looks

    def write(at: Path) -> None:
        with at.open("wb") as file:
            np.savez(file, **arrays)

    write_whole(path, write)


def flush(path: Path) -> None:
    """Return when a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
