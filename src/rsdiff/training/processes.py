"""What several processes of one run must agree on: gradients, buffers, rows of results. None waits for ever for one that died."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from rsdiff.config import UserError

Row = TypeVar("Row")
TIMEOUT_VARIABLE, TIMEOUT_MINUTES = "RSDIFF_PROCESS_TIMEOUT_MINUTES", 30.0


class ProcessLostError(UserError):
    """Another process of this run is gone or does not answer; one sentence."""


def process_timeout() -> timedelta:
    """Return how long a process waits for another one; the environment variable RSDIFF_PROCESS_TIMEOUT_MINUTES sets it."""
    given = os.environ.get(TIMEOUT_VARIABLE, str(TIMEOUT_MINUTES))
    try:
        minutes = float(given)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise UserError(f"{TIMEOUT_VARIABLE}={given} was given; give a number of minutes above 0.")
    return timedelta(minutes=minutes)


@contextmanager
def together() -> Iterator[None]:
    """Name the cause when a collective operation fails: on one process of several, another is gone or late."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise ProcessLostError(
            f"another process of this run ended or did not answer for {process_timeout().total_seconds() / 60:g} minutes "
            f"({TIMEOUT_VARIABLE}): read what that one said and give the same command again, which continues from the last checkpoint "
            f"({words[:120]})."
        ) from error


def wait_for_all(accelerator: Accelerator) -> None:
    """Return when every process has come here."""
    with together():
        accelerator.wait_for_everyone()


def mean_over_processes(accelerator: Accelerator, values: dict[str, Tensor]) -> dict[str, float]:
    """Return the mean of each scalar over the processes as numbers; one transfer for all of them."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().float().to(accelerator.device).reshape(()) for value in values.values()])
    if accelerator.num_processes > 1:
        with together():
            torch.distributed.all_reduce(stacked)
        stacked /= accelerator.num_processes
    return dict(zip(values, stacked.tolist(), strict=True))


def any_process(accelerator: Accelerator, condition: bool) -> bool:
    """True on every process if `condition` is true on at least one."""
    if accelerator.num_processes == 1:
        return condition
    flag = torch.tensor([float(condition)], device=accelerator.device)
    with together():
        torch.distributed.all_reduce(flag)
    return bool(flag.item() > 0)


def gather_rows(accelerator: Accelerator, rows: list[Row]) -> list[Row]:
    """Return the rows of all processes on every process."""
    if accelerator.num_processes == 1:
        return rows
    with together():
        gathered: list[Any] = gather_object(rows)
    return gathered


def smallest_of_processes(accelerator: Accelerator, value: int) -> int:
    """The smallest of the values that the processes give, on every one of them."""
    if accelerator.num_processes == 1:
        return value
    smallest = torch.tensor(value, device=accelerator.device)
    with together():
        torch.distributed.all_reduce(smallest, op=torch.distributed.ReduceOp.MIN)
    return int(smallest)


class Processes:
    """The team of an Accelerate launch, which shares the tiles of a scene or the images of a test set."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank: int = accelerator.process_index
        self.count: int = accelerator.num_processes

    def any(self, mine: bool) -> bool:
        return any_process(self.accelerator, mine)

    def smallest(self, mine: int) -> int:
        return smallest_of_processes(self.accelerator, mine)
