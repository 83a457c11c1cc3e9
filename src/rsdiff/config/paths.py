"""Paths as they are typed, and the folder of what commands keep for the next ones."""

from __future__ import annotations

import os
from pathlib import Path


def typed_path(text: str | Path) -> Path:
    """Return the path that a setting names: '~' is the user's home; '~name' is a file of that name where there is no such user."""
    return Path(os.path.expanduser(text))


def cache_folder() -> Path:
    """Return `$RSDIFF_CACHE`, else `$XDG_CACHE_HOME/rsdiff`, else `~/.cache/rsdiff`; deleting it loses nothing but time."""
    own = os.environ.get("RSDIFF_CACHE")
    if own:
        return typed_path(own)
    return typed_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rsdiff"
