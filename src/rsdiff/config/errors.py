"""The class of all errors whose message was written for the person who typed the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something that the user can put right. The message is one sentence: what is wrong, where, and what to do.

    Only such messages, and what the operating system says of files, are shown as they are; every other exception is a fault of the
    software and is reported as one, see rsdiff.runs.errors. It is a ValueError so that a config class may raise it while it is built.
    """


class ConfigError(UserError):
    """A setting that cannot work. The message is one sentence: what is wrong, where, and what to do."""


class Interrupted(RuntimeError):  # noqa: N818 - it is no error
    """Training stopped cleanly and can be continued by the same command; signal `signal` asked for it, or (None) the time limit."""

    def __init__(self, message: str, signal: int | None) -> None:
        super().__init__(message)
        self.signal = signal


class PlaceError(UserError, OSError):
    """A file or folder that cannot be used, for a reason that the operating system does not know."""


@contextmanager
def during(part: str) -> Iterator[None]:
    """Note on whatever exception leaves the context the part of a run it comes from ('validation'): advice may depend on it."""
    try:
        yield
    except Exception as error:
        if part_of(error) is None:
            error.__dict__["rsdiff_part"] = part
        raise


def part_of(error: BaseException) -> str | None:
    """Return the part of the run that `during` noted."""
    return error.__dict__.get("rsdiff_part")
