"""What a published model costs for a target of 256 x 256 pixels: operations, time and memory, measured on one core of a CPU.

Operations and memory are counted without computing the large products, time is that of a real restoration by the fewest steps the sampler
takes. The records of docs/model_costs.json are kept, so that a measurement goes on where it was stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from rsdiff.config import UserError
from rsdiff.data.modality import Modality
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.sampler import SamplerConfig, walked_levels
from rsdiff.inference.images import restore_seeded
from rsdiff.inference.memory import PeakMemory, count_operations
from rsdiff.methods.base import Method, Problem

SIDE = 256
"""Target pixels a side."""
LOOKS = 8
"""Images of one place, for methods that take several."""
MOST_MEMORY = 6 * 2**30
"""Bytes beyond which a model is left out, so that a table can be made on a laptop."""
MOST_OPERATIONS = 1.5e12
"""Floating-point operations of a restoration that is still timed: about a minute of a core."""


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    steps           of the published sampler; 0 where nothing is sampled
    operations      floating-point operations of the image, multiplication and addition as two
    per_step        of them, those of one step of the sampler
    seconds         processor seconds of one core for the image; None where its shortest restoration was too long to be timed
    step_seconds    of one step
    memory          bytes of weights and of the tensors that are alive at once
    """

    steps: int
    operations: int
    per_step: int
    seconds: float | None
    step_seconds: float | None
    memory: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class WithoutProducts(TorchDispatchMode):
    """Replaces convolutions, matrix products and attention by zeros of the right shape; everything else is computed."""

    NAMES = ("convolution", "mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.name().removeprefix("aten::").startswith(self.NAMES):
            return func(*args, **(kwargs or {}))
        shapes = tree_map_only(Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), (args, kwargs or {}))
        answer = func(*shapes[0], **shapes[1])
        return tree_map_only(Tensor, lambda tensor: torch.zeros_like(tensor, device="cpu"), answer)


class _LimitedMemory(PeakMemory):
    """Ends a restoration that is only counted before it fills the machine."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if self.peak > MOST_MEMORY:
            raise UserError(f"it takes more than {MOST_MEMORY / 2**30:g} GiB.")
        return result


class _PlannedError(Exception):
    """Raised as soon as the levels of a sampling are known, so that nothing is sampled."""


class _FirstWalk(list[list[float]]):
    def append(self, levels: list[float]) -> None:
        super().append(levels)
        raise _PlannedError


def cost_of(method: Method, problem: Problem, sampler: SamplerConfig, known: Sequence[Cost] = ()) -> Cost:
    """Return what `method` costs with its published sampler; one of `known` with the same operations and memory is not timed again.

    Raises UserError where it cannot restore an image by itself, or would take more than MOST_MEMORY.
    """
    method.eval()
    batch = batch_for(problem)

    def restore(chosen: SamplerConfig) -> None:
        with torch.no_grad():
            restore_seeded(method, batch, chosen, 0)

    steps = planned_steps(restore, sampler)
    few = fewest(restore, sampler)
    short = counted(restore, few)
    per_step = short.operations
    if 0 < short.steps < steps:
        longer = replace(few, sigmas=sampler.sigmas[:2]) if few.grid == "list" else replace(few, steps=few.steps + 1)
        more = counted(restore, longer)
        per_step = (more.operations - short.operations) // (more.steps - short.steps)
    operations = short.operations + per_step * (steps - short.steps)
    weights = sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers()))
    cost = Cost(steps, operations, per_step if steps else 0, None, None, short.memory + weights)
    same = next((other for other in known if replace(other, seconds=None, step_seconds=None) == cost), None)
    if same is not None or short.operations > MOST_OPERATIONS:
        return same or cost
    seconds = timed(restore, few)
    whole, each = (seconds * count / short.operations if short.operations else seconds for count in (operations, per_step))
    return replace(cost, seconds=whole, step_seconds=each if steps else None)


def batch_for(problem: Problem) -> Batch:
    """Return an image of noise to restore, with all that any method takes beside it."""
    side = round(SIDE / problem.scale)
    drawn = torch.Generator().manual_seed(0)
    lr = torch.rand(1, problem.lr_bands, side, side, generator=drawn)
    ref = torch.rand(1, problem.bands, SIDE, SIDE, generator=drawn)
    looks = {"looks": Modality(torch.rand(1, LOOKS, problem.lr_bands, side, side, generator=drawn))}
    return Batch(
        [SampleMeta("noise")], (SIDE, SIDE), (side, side), lr=lr, ref=ref, change_mask=torch.zeros(1, 1, SIDE, SIDE), modalities=looks
    )


def planned_steps(restore: Callable[[SamplerConfig], None], sampler: SamplerConfig) -> int:
    """Return the steps that the published sampler takes; 0 for a method that samples nothing."""
    with walked_levels(_FirstWalk()) as walks, WithoutProducts(), _LimitedMemory():
        try:
            restore(sampler)
        except _PlannedError:
            return len(walks[0]) - 1
    return 0


def fewest(restore: Callable[[SamplerConfig], None], sampler: SamplerConfig) -> SamplerConfig:
    """Return the sampler with as few steps as it can take."""
    if sampler.grid == "list":
        return replace(sampler, sigmas=sampler.sigmas[:1])
    one = replace(sampler, steps=1, stride=0)
    try:
        with WithoutProducts(), _LimitedMemory():
            restore(one)
    except UserError:
        return replace(one, steps=2)
    return one


@dataclass(frozen=True)
class _Count:
    operations: int
    memory: int
    steps: int


def counted(restore: Callable[[SamplerConfig], None], sampler: SamplerConfig) -> _Count:
    """Return operations, bytes and steps of a restoration."""
    with walked_levels() as walks, WithoutProducts(), _LimitedMemory() as memory, count_operations() as operations:
        restore(sampler)
    return _Count(int(operations.get_total_flops()), memory.peak, len(walks[0]) - 1 if walks else 0)


def timed(restore: Callable[[SamplerConfig], None], sampler: SamplerConfig) -> float:
    """Return the processor seconds of a restoration on one core; the better of two where one is short."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found: list[float] = []
        while not found or (len(found) < 3 and sum(found) < 2):
            begun = time.process_time()
            restore(sampler)
            found.append(time.process_time() - begun)
    finally:
        torch.set_num_threads(before)
    return min(found)


def processor() -> str:
    """Return the name of the CPU and its widest vector instructions, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    name = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "a CPU")
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
