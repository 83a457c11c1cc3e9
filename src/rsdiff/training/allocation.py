"""What becomes of the memory that tensors on a CPU leave."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of malloc.h."""
KEPT = 2**30
"""Bytes below which a buffer comes from, and goes back to, what the process already has."""


def keep_freed_memory() -> None:
    """Let glibc keep freed buffers for the next ones; nothing happens elsewhere, or where MALLOC_* variables say what to do.

    Every layer takes and frees buffers that glibc would hand back to the system and have mapped and zeroed anew: a fifth of the time of
    restoring a scene.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            library.mallopt(option, KEPT)
