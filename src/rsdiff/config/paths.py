"""Paths as they are typed."""

from __future__ import annotations

import os
from pathlib import Path


def typed_path(text: str | Path) -> Path:
    """Return the path that a setting names: '~' is the user's home; '~name' is a file of that name where there is no such user."""
    return Path(os.path.expanduser(text))
