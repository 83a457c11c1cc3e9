"""GPUs for the cells of a sweep on one machine: every process takes its own and keeps them until it ends.

A GPU, or the half of one, is taken by locking a file of this machine, so that two sweeps at once share the GPUs out as well.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rsdiff.config import ConfigError
from rsdiff.config.sharing import CELLS_PER_GPU

SHARED_GPUS = "RSDIFF_GPUS"
"""Environment: the GPUs that the cells of a sweep on this machine share out, as in CUDA_VISIBLE_DEVICES."""
ASKED_EVERY_S = 1.0


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; without that variable all of the machine."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(k) for k in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def shares_of(gpus: Sequence[str], per_cell: float) -> list[list[str]]:
    """Return the GPUs of every cell that can run at once: several of them each, or (0.5) two cells for each.

    Raises ConfigError where a cell asks for more than there are, or for a share that is no whole part of a GPU.
    """
    if per_cell == 0:
        return []
    if per_cell > len(gpus):
        raise ConfigError(f"gpus_per_cell={per_cell:g} was given and this machine has {len(gpus)}; give at most that.")
    cells_per_gpu = 1 / per_cell
    if per_cell < 0 or (per_cell >= 1 and per_cell % 1) or (per_cell < 1 and abs(cells_per_gpu - round(cells_per_gpu)) > 1e-6):
        raise ConfigError(f"gpus_per_cell={per_cell:g} was given; give a whole number, or 0.5, 0.25, .. for runs that share a GPU.")
    if per_cell < 1:
        return [[gpu] for _ in range(round(cells_per_gpu)) for gpu in gpus]
    size = round(per_cell)
    return [list(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]


def take_gpus(gpus: Sequence[str], per_cell: float) -> None:
    """Give this process its GPUs by CUDA_VISIBLE_DEVICES, before PyTorch asks for it; waits while others have them all."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_taken(tuple(gpus), per_cell)[0]) if per_cell else ""
    os.environ[CELLS_PER_GPU] = str(max(1, round(1 / per_cell))) if per_cell else "1"


@functools.cache
def _taken(gpus: tuple[str, ...], per_cell: float) -> tuple[list[str], list[TextIO]]:
    """Return the GPUs this process has taken and the locked files, which stay open until it ends."""
    shares = shares_of(gpus, per_cell)
    for attempt in itertools.count():
        for n, share in enumerate(shares):
            locks = _locked([f"gpu{gpu}_{n // len(gpus)}" for gpu in share])
            if locks is not None:
                return share, locks
        if attempt == 0:
            print(f"waiting for a GPU: {len(shares)} runs of sweeps on this machine use the {len(gpus)} GPUs.", file=sys.stderr)
        time.sleep(ASKED_EVERY_S)
    raise AssertionError("unreachable")


def _locked(names: Sequence[str]) -> list[TextIO] | None:
    """Return files of these names, all locked by this process, or None where another process has one of them."""
    folder = Path(tempfile.gettempdir()) / f"rsdiff-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    files: list[TextIO] = []
    for name in names:
        files.append((folder / name).open("w"))
        try:
            fcntl.flock(files[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            for file in files:
                file.close()
            return None
    return files
