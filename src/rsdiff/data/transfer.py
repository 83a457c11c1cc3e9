"""Copies between host and accelerator that do not make the host wait."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

QUEUES = frozenset({"cuda", "xpu"})
"""Types of devices that work through a queue and tell by an event how far they are."""

WAITING = 2
"""Pieces of work that may wait for a thread behind: with more, what is faster would fill the memory."""
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def to_device(values: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """Return `values`, of any shape, on `device` in `dtype` (its own by default).

    A copy of ordinary memory to a CUDA device waits until the device has done all that was asked of it before; a copy of pinned memory is
    queued. Values that are on the device already are cast at most.
    """
    device = torch.device(device)
    if values.device.type == "cpu" and device.type != "cpu":
        values = values.to(dtype) if dtype is not None else values  # on the host, so that what is copied is what was pinned
        if device.type == "cuda":
            values = values.pin_memory()
    return values.to(device=device, dtype=dtype or values.dtype, non_blocking=True)


def like(values: Tensor, image: Tensor) -> Tensor:
    """Return `values` in the dtype and on the device of `image`, without waiting; see `to_device`."""
    return to_device(values, image.device, image.dtype)


@functools.lru_cache(maxsize=512)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a few numbers (N,) on `device`, copied there once; not to be written to."""
    with torch.inference_mode(False):
        return to_device(torch.tensor(values, dtype=dtype), device)


def has_queue(device: torch.device) -> bool:
    """Whether `device` works through a queue while the host goes on."""
    return device.type in QUEUES


def wait_for(device: torch.device) -> None:
    """Return when `device` has done all that was asked of it before; at once on a CPU."""
    if has_queue(device):
        event = torch.Event(device)
        event.record()
        event.synchronize()


def done_behind(work: Callable[[_Given], _Made], given: Iterable[_Given], overlaps: bool, device: torch.device) -> Iterator[_Made]:
    """Yield `work` of everything given, in order; where it `overlaps`, a thread does it while the next is being made.

    On a GPU the thread has a queue of its own, so that neither waits for what the other asked of the device.
    """
    if not overlaps:
        yield from map(work, given)
        return

    def beside(one: _Given) -> _Made:
        queue: AbstractContextManager[object] = nullcontext()
        if device.type == "cuda":
            queue = torch.cuda.stream(torch.cuda.Stream(device))
        with queue:
            return work(one)

    with ThreadPoolExecutor(1, "behind") as thread:
        waiting: deque[Future[_Made]] = deque()
        for one in given:
            if len(waiting) == WAITING:
                yield waiting.popleft().result()
            waiting.append(thread.submit(beside, one))
        while waiting:
            yield waiting.popleft().result()


class ReadLater:
    """A value that the device is still computing: its copy to the host is queued now, and `value` waits for no work queued after it."""

    def __init__(self, on_device: Tensor) -> None:
        self._host = on_device.detach()
        self._event: torch.Event | None = None
        if has_queue(on_device.device):
            self._host = self._host.to("cpu", non_blocking=True)  # into pinned memory
            self._event = torch.Event(on_device.device)
            self._event.record()

    def value(self) -> Tensor:
        """Return the value, on the CPU where the device has a queue."""
        if self._event is not None:
            self._event.synchronize()
        return self._host
