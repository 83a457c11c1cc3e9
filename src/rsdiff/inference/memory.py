"""How large a tile the memory allows: measured on a small tile, scaled to what is free."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHARE = 0.4
"""Share of the free memory that tiles may take: workspaces of convolutions and fragmentation are not counted, other processes live too."""
LARGEST_TARGET = 1024
"""Largest side of a tile that is chosen on its own, in target pixels: beyond it overlaps cost little and progress is coarse."""


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive at once; `peak` after the block is their maximum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be taken on `device`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def bytes_per_tile(restore: Callable[[int], object], side: int) -> float:
    """Return the bytes that `restore(side)` needs per pixel of its tile."""
    with PeakMemory() as memory:
        restore(side)
    return memory.peak / side**2


def largest_tile(bytes_per_pixel: float, tiles: int, free: int, multiple: int, smallest: int, largest: int) -> int:
    """Return the largest side, a multiple of `multiple`, of which `tiles` at once fit into the allowed share of `free` bytes."""
    allowed = int((SHARE * free / max(1.0, bytes_per_pixel) / tiles) ** 0.5)
    side = max(smallest, min(largest, allowed))
    return max(multiple, side // multiple * multiple)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether `error` means that a smaller tile may work: of an accelerator's allocator or of the CPU's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ("out of memory", "can't allocate memory"))
