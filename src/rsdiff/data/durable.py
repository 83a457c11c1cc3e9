"""Files that a reader sees whole, old or new, whatever is killed while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(temporary)
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda at: at.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=1))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as npz, whole, under exactly this name."""

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
