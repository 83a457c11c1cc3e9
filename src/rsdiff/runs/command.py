"""Command lines as a shell reads them: the one that began this process, and those that messages tell the user to type next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

TYPED = "RSDIFF_TYPED"
"""Environment: the command line as the user typed it, for the processes that a launcher starts too."""


def remember_typed() -> None:
    """Keep the command line before Hydra gets its own form of it (quoted paths, '++' before options that a checkpoint brings)."""
    os.environ[TYPED] = shlex.join(sys.argv)


def typed_command() -> list[str]:
    """Return the program and the arguments that the user typed."""
    return shlex.split(os.environ[TYPED]) if TYPED in os.environ else list(sys.argv)


def shell_text(command: Sequence[str]) -> str:
    """Return a program with its arguments as one types them: python FILE ..., python -m rsdiff ..., or rsdiff ... where that was typed."""
    return shlex.join([*_program(command[0]), *command[1:]])


def next_command(*words: str) -> str:
    """Return a command to type next, quoted for a shell, that begins as the present one does: python run.py, or rsdiff.

    Its plugins are those of the present one, without which what it names may not exist.
    """
    program, *typed = typed_command()
    plugins = [word for word in typed if word.startswith("plugins=")][-1:]
    return shlex.join([*_program(program, or_else="rsdiff"), *plugins, *words])


def restore_with(checkpoint: str) -> str:
    """Return the command that restores an image with a checkpoint: what to type next once there are weights."""
    return next_command("task=restore", f"checkpoint={checkpoint}", "input=IMAGE", "output=RESTORED.tif")


def _program(started: str, or_else: str = "") -> list[str]:
    path = Path(started)
    if path.name == "__main__.py" and path.parent.name == "rsdiff":
        return ["python", "-m", "rsdiff"]
    if path.name == "rsdiff":
        return ["rsdiff"]
    return ["python", started] if path.name == "run.py" or not or_else else [or_else]
