"""Which code, packages and machine worked on a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rsdiff

PACKAGES = ("torch", "numpy", "accelerate", "hydra-core", "opencv-python-headless", "rasterio", "scipy", "h5py", "safetensors", "pillow")
"""Packages whose version can change a result."""


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
