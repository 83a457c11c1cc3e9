"""Whether what a run says is shown: a command shows it, a call in Python only where that is asked for, whichever thread makes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

_IS_QUIET: ContextVar[bool] = ContextVar("rsdiff_is_quiet", default=False)


def is_quiet() -> bool:
    """Whether this thread or task shows nothing."""
    return _IS_QUIET.get()


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Context in which `show` shows nothing; with `quiet` False nothing changes."""
    token = _IS_QUIET.set(quiet or is_quiet())
    try:
        yield
    finally:
        _IS_QUIET.reset(token)


def show(text: str, file: TextIO | None = None) -> None:
    """Print, unless nothing is to be shown."""
    if not is_quiet():
        print(text, file=file, flush=True)
