"""Composable experiments in remote-sensing super-resolution.

    import rsdiff
    model = rsdiff.load("outputs/train/sr3_tiny-synthetic/RUN")
    sr = model.restore(array, scale=4, seed=0)
    lr, hr, decisions = rsdiff.degrade(image, "bsrgan", scale=4, seed=0)
    rows = rsdiff.score(sr, hr, protocol="basicsr_y")

What is named here is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsdiff.api import Ended, Model, calibrate, compose, degrade, evaluate, load, restore, run, score

    __version__: str

_OF_API = frozenset({"Ended", "Model", "calibrate", "compose", "degrade", "evaluate", "load", "restore", "run", "score"})
_PACKAGES = frozenset({"data", "degradations", "diffusion", "inference", "losses", "methods", "metrics", "networks", "training", "weights"})


def __getattr__(name: str) -> Any:
    if name in _OF_API:
        return getattr(importlib.import_module("rsdiff.api"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"rsdiff.{name}")
    if name == "__version__":
        return _installed_version()
    raise AttributeError(f"module 'rsdiff' has no attribute '{name}'")


def _installed_version() -> str:
    """Return the version that was installed, which git tags gave when it was built; 'unknown' of a copy that was not installed."""
    metadata = importlib.import_module("importlib.metadata")
    try:
        return str(metadata.version("rsdiff"))
    except metadata.PackageNotFoundError:
        return "unknown"


def __dir__() -> list[str]:
    return sorted({*__all__, *_PACKAGES})


__all__ = ["Ended", "Model", "__version__", "calibrate", "compose", "degrade", "evaluate", "load", "restore", "run", "score"]
