"""`python -m rsdiff` and the command `rsdiff`: the same as run.py, with the configs of the package."""

from __future__ import annotations

import gc
from pathlib import Path


def command(repository: Path | None = None) -> None:
    """Do what the command line says and exit; see `rsdiff.app.main.main`.

    Python looks for unreachable cycles among all objects again and again while PyTorch is imported and a command composed; that there are
    none costs a good part of a short command. Here nothing is looked for until a run begins (`run_one`). At the end Python does look:
    libraries bound by nanobind report what is left as leaks.
    """
    gc.disable()
    from rsdiff.app.main import main

    main(repository)


if __name__ == "__main__":
    command()
