"""What the user reads: lines on the terminal, in whatever encoding it has, and the same lines in the log of the run's folder."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rsdiff.config.quiet import show

LOG = "run.log"
SAID = "RSDIFF_SAID"
"""Environment: digests of what this command has printed and does not repeat."""
_LOGGERS = ("rsdiff.run", "")
"""Loggers whose records are kept: ours, and what reaches the root, Python's warnings and those of libraries."""


def say(lines: Sequence[str]) -> None:
    """Print lines, once for all processes of a run, and keep them in the run's log."""
    if lines and os.environ.get("RANK", "0") == "0":
        text = "\n".join(lines)
        own_log().info(text)
        show(text)


def say_once(lines: Sequence[str]) -> None:
    """Say what every run of a sweep would repeat: printed for the first in this process, and kept in the log of each run."""
    text = "\n".join(lines)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    said = os.environ.get(SAID, "").split()
    if key in said:
        own_log().info(text)
    elif lines:
        os.environ[SAID] = " ".join([*said, key])
        say(lines)


def own_log() -> logging.Logger:
    """Return the logger that a run's log is written through; what is said was printed already, so nobody else's handlers get it."""
    logger = logging.getLogger("rsdiff.run")
    logger.propagate = False
    return logger


def accept_any_encoding() -> None:
    """Let the terminal show what it can: a character that its encoding lacks becomes '?', and never ends a run."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not (stream.encoding or "").lower().replace("-", "").startswith("utf"):
            reconfigure(errors="replace")


@contextmanager
def logging_to(folder: Path, command: str) -> Iterator[Path]:
    """Context in which what is said and warned of is kept in the log of `folder`, behind that of earlier attempts; yields the log."""
    path = folder / LOG
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO)
    ours = own_log()
    ours.setLevel(logging.INFO)
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(handler)
    logging.captureWarnings(True)
    try:
        ours.info("--- %s, process %s: %s", time.strftime("%Y-%m-%d %H:%M:%S"), os.getpid(), command)
        yield path
    finally:
        logging.captureWarnings(False)
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()
