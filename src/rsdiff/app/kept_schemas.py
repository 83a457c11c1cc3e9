"""Schemas of config classes, kept from the command that made them, so that the next one need not import the class.

A config class stands beside the network that it describes, in a module that imports PyTorch, which takes twice as long as everything else
in a command that only looks at settings. What is kept counts for exactly these sources of rsdiff: the folder is named by a digest of all of
them, and nothing is kept by a process that began before the last of them changed. Classes of plugins are imported by every command. A
folder that cannot be written is no error.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rsdiff
from rsdiff.config.paths import cache_folder
from rsdiff.data.durable import write_text

OWN = "rsdiff."
VERSIONS = 4
"""Versions of the sources whose schemas are kept: a user may work with several checkouts."""
SETTLED_SECONDS = 2
"""Clocks of file servers may differ by less."""


def kept_or_made(place: str | None, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return make(), or what it gave to an earlier command that ran these sources.

    place  'module:Class' that `make` would import, or None where it imports nothing new
    """
    if place is None or not place.startswith(OWN):
        return make()
    root = Path(rsdiff.__file__).parent
    file = cache_folder() / "schemas" / _digest(root) / f"{place.replace(':', '.')}.json"
    try:
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    except (OSError, ValueError):
        made = make()
    text = json.dumps(made)
    if json.loads(text) == made and _is_settled(root):
        _keep(file, text)
    return made


@functools.cache
def _digest(root: Path) -> str:
    """Return the digest of all modules below `root`, by their names and content; takes 15 ms."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        digest.update(f"\n{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _is_settled(root: Path) -> bool:
    """Return whether every module below `root` is what this process imported: none was changed since it began."""
    import psutil  # here and not above: only a command that keeps something needs it

    states = [path.stat() for path in root.rglob("*.py")]
    changed = max(max(state.st_mtime, state.st_ctime) for state in states)
    return changed + SETTLED_SECONDS < float(psutil.Process().create_time())


def _keep(file: Path, text: str) -> None:
    try:
        if not file.parent.is_dir():
            file.parent.mkdir(parents=True)
            versions = sorted(file.parent.parent.iterdir(), key=os.path.getmtime, reverse=True)
            for former in versions[VERSIONS:]:
                shutil.rmtree(former, ignore_errors=True)
        write_text(file, text)
    except OSError:
        return  # the next command imports the class again
