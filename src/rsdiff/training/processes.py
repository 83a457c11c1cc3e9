"""What several processes of one run must agree on: gradients, buffers, rows of results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

Row = TypeVar("Row")


def average_gradients(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one reduction.

    The methods step several optimiser groups per batch and freeze parts by stage, which DistributedDataParallel's reducer only follows with
    a graph search per step; one flat reduction after the last micro-batch costs the same traffic and has no such cases.
    A parameter without gradient on this process takes part with zeros, because another process may have one.
    """
    if accelerator.num_processes == 1:
        return
    owners = [parameter for parameter in parameters if parameter.requires_grad]
    if not owners:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in owners]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= accelerator.num_processes
    offset = 0
    for parameter, gradient in zip(owners, gradients, strict=True):
        parameter.grad = flat[offset : offset + gradient.numel()].view_as(gradient).clone()
        offset += gradient.numel()


def broadcast_buffers(accelerator: Accelerator, module: nn.Module) -> None:
    """Give every process the buffers of the main one (batch-norm statistics, contrastive queues), as DistributedDataParallel does."""
    if accelerator.num_processes == 1:
        return
    for buffer in module.buffers():
        torch.distributed.broadcast(buffer, src=0)


def mean_over_processes(accelerator: Accelerator, values: dict[str, Tensor]) -> dict[str, float]:
    """Return the mean of each scalar over the processes as numbers; one transfer for all of them."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().float().to(accelerator.device).reshape(()) for value in values.values()])
    if accelerator.num_processes > 1:
        torch.distributed.all_reduce(stacked)
        stacked /= accelerator.num_processes
    return dict(zip(values, stacked.tolist(), strict=True))


def any_process(accelerator: Accelerator, condition: bool) -> bool:
    """True on every process if `condition` is true on at least one."""
    if accelerator.num_processes == 1:
        return condition
    flag = torch.tensor([float(condition)], device=accelerator.device)
    torch.distributed.all_reduce(flag)
    return bool(flag.item() > 0)


def gather_rows(accelerator: Accelerator, rows: list[Row]) -> list[Row]:
    """Return the rows of all processes on every process."""
    if accelerator.num_processes == 1:
        return rows
    gathered: list[Any] = gather_object(rows)
    return gathered


def smallest_of_processes(accelerator: Accelerator, value: int) -> int:
    """The smallest of the values that the processes give, on every one of them."""
    if accelerator.num_processes == 1:
        return value
    smallest = torch.tensor(value, device=accelerator.device)
    torch.distributed.all_reduce(smallest, op=torch.distributed.ReduceOp.MIN)
    return int(smallest)
