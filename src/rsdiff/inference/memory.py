"""Which tiles are cheapest and fit into the memory: told by two small ones."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

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


def attention_operations(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    """Return the floating-point operations of one attention: query times key for every pair, then the weights times value.

    query  shape (..., L, E); key (..., S, E); value (..., S, V); multiplication and addition count as two
    """
    *outer, length, width = query
    return 2 * math.prod(outer) * length * key[-2] * (width + value[-1])


def _count_attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return attention_operations(query, key, value)


def _attention_counters() -> dict[Any, Callable[..., int]]:
    """Return a counter for every kernel that torch may choose for `scaled_dot_product_attention`.

    PyTorch's own table leaves some of them out, others in every release (the CPU's in 2.14): attention then looks free, and tiles become
    too large. The kernels share the arguments (query, key, value, ...), so one formula serves all that this release has.
    """
    kernels = [name for name in dir(torch.ops.aten) if name.startswith("_scaled_dot_product") and not name.endswith("_backward")]
    return {getattr(torch.ops.aten, name): _count_attention for name in kernels}


def count_operations() -> FlopCounterMode:
    """Return a context whose `get_total_flops()` tells the floating-point operations done inside, attention on every device included."""
    return FlopCounterMode(display=False, custom_mapping=_attention_counters())


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be taken on `device`, whatever other processes have of it.

    The driver counts as taken what PyTorch's allocator keeps of freed tensors, which is there for the next ones.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return int(psutil.virtual_memory().available)


@dataclass(frozen=True)
class Growth:
    """What a tile of side t costs: per_pixel t^2 + per_pair t^4, the second for attention over the whole tile."""

    per_pixel: float
    per_pair: float

    @staticmethod
    def through(first: tuple[int, float], second: tuple[int, float]) -> Growth:
        """Return the growth through the costs of two sides (side, cost)."""
        (small, low), (large, high) = first, second
        per_pair = max(0.0, (high / large**2 - low / small**2) / (large**2 - small**2))
        return Growth(high / large**2 - per_pair * large**2, per_pair)

    def of(self, side: int) -> float:
        """Return the cost of a tile."""
        return self.per_pixel * side**2 + self.per_pair * side**4


def measured_growth(restore: Callable[[int], object], sides: tuple[int, int]) -> tuple[Growth, Growth]:
    """Return how the bytes and the operations of `restore(side)` grow, from two sides."""
    costs = []
    for side in sides:
        with PeakMemory() as memory, count_operations() as operations:
            restore(side)
        costs.append((memory.peak, operations.get_total_flops()))
    (first_bytes, first_operations), (second_bytes, second_operations) = costs
    return (
        Growth.through((sides[0], first_bytes), (sides[1], second_bytes)),
        Growth.through((sides[0], first_operations), (sides[1], second_operations)),
    )


def best_tile(sides: Sequence[int], allowed: float, needs: Growth, works: Growth, overlap: Callable[[int], int]) -> int:
    """Return the side that costs least per pixel of the scene among those whose bytes are `allowed`; the smallest if none are.

    sides    in rising order
    overlap  pixels that neighbouring tiles of a side share
    """
    fitting = [side for side in sides if needs.of(side) <= allowed] or [sides[0]]
    # A tile that is mostly overlap sees little around its own pixels.
    roomy = [side for side in fitting if side >= 4 * overlap(side)] or [fitting[-1]]
    return min(reversed(roomy), key=lambda side: works.of(side) / (side - overlap(side)) ** 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether `error` means that a smaller tile may work: of an accelerator's allocator or of the CPU's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # cuBLAS and cuDNN take workspaces of their own: CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED.
    said = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
