"""Averages gradients and copies buffers between the processes of a run, in few large messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

from rsdiff.training.processes import together

BUCKET_BYTES = 25 * 2**20
"""Gradients that travel together: large enough for the bandwidth, small enough that the first go while the last are still computed."""


class GradientBuckets:
    """Replaces the gradients of `parameters` by their means over the processes, bucket after bucket while the backward pass still runs.

    The methods step several optimiser groups per batch and freeze parts by stage, which DistributedDataParallel's reducer follows only with
    a graph search per step. Here every group has its own buckets, in the reverse order of its parameters, as their gradients come. `arm`
    them before the group's last backward pass of a step, `send` the rest after it and `finish` before the gradients are read. A bucket
    leaves when it and all before it are complete, and all of a group before those of the next one: the same order on every process. A
    parameter without gradient on this process takes part with zeros, because another process may have one.

    The gradients become views of the buckets, so that one bucket is all that there is twice.
    """

    def __init__(self, accelerator: Accelerator, parameters: Sequence[nn.Parameter], bucket_bytes: int = BUCKET_BYTES) -> None:
        self._world = accelerator.num_processes
        self._parameters = parameters
        self._bucket_bytes = bucket_bytes
        self._buckets: list[list[nn.Parameter]] = []
        self._bucket_of: dict[nn.Parameter, int] = {}
        self._missing: list[int] = []
        self._sent: list[tuple[Tensor, Any]] = []
        if self._world > 1:
            for parameter in parameters:
                self._watch(parameter)

    def _watch(self, parameter: nn.Parameter) -> None:
        frozen = not parameter.requires_grad
        parameter.requires_grad_(True)  # the hook of a parameter that is frozen now counts when it no longer is
        parameter.register_post_accumulate_grad_hook(self._accumulated)
        parameter.requires_grad_(not frozen)

    def arm(self) -> None:
        """Send the gradients of the coming backward pass as soon as they are there."""
        if self._world == 1:
            return
        owners = [parameter for parameter in reversed(self._parameters) if parameter.requires_grad]
        if [id(parameter) for bucket in self._buckets for parameter in bucket] != [id(parameter) for parameter in owners]:
            self._buckets = buckets(owners, self._bucket_bytes)
            self._bucket_of = {parameter: n for n, bucket in enumerate(self._buckets) for parameter in bucket}
        self._missing = [len(bucket) for bucket in self._buckets]
        self._sent = []

    def _accumulated(self, parameter: nn.Parameter) -> None:
        if not self._missing or parameter not in self._bucket_of:
            return
        self._missing[self._bucket_of[parameter]] -= 1
        while len(self._sent) < len(self._buckets) and self._missing[len(self._sent)] == 0:
            self._send()

    def _send(self) -> None:
        """Queue the reduction of the next bucket."""
        bucket = self._buckets[len(self._sent)]
        gradients = [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in bucket]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with together():
            self._sent.append((flat, torch.distributed.all_reduce(flat, async_op=True)))
        for parameter, part in zip(bucket, flat.split([parameter.numel() for parameter in bucket]), strict=True):
            parameter.grad = part.view_as(parameter)

    def send(self) -> None:
        """Send what the backward pass, which is over, has left: buckets with parameters that have no gradient here."""
        while self._missing and len(self._sent) < len(self._buckets):
            self._send()

    def finish(self) -> None:
        """Return when the gradients are means, or when the work that makes them so is queued on the accelerator."""
        if self._world == 1:
            return
        self.send()
        with together():
            for flat, work in self._sent:
                work.wait()
                flat /= self._world
        self._missing = []


def buckets(parameters: Sequence[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """Return the parameters in order in lists of one dtype and at most `bucket_bytes`, or of one parameter."""
    found: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not found or found[-1][0].dtype != parameter.dtype or size + parameter.nbytes > bucket_bytes:
            found.append([])
            size = 0
        found[-1].append(parameter)
        size += parameter.nbytes
    return found


def broadcast_buffers(accelerator: Accelerator, module: nn.Module) -> None:
    """Give every process the buffers of the main one (batch-norm statistics, contrastive queues), as DistributedDataParallel does.

    One message per dtype.
    """
    if accelerator.num_processes == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for buffer in module.buffers():
        by_dtype.setdefault(buffer.dtype, []).append(buffer)
    with torch.no_grad(), together():
        for same in by_dtype.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in same])
            torch.distributed.broadcast(flat, src=0)
            for buffer, part in zip(same, flat.split([buffer.numel() for buffer in same]), strict=True):
                buffer.copy_(part.view_as(buffer))
