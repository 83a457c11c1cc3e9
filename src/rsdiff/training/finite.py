"""Sees that losses, gradients and weights are finite without making the accelerator wait.

A flag per step stays on the device; its copy to the host is looked at when the work of later steps is queued already. So a step that went
wrong is known a little late on an accelerator (`LAG` steps) and at once on a CPU. Every process sees the same flags at the same step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor

from rsdiff.data.transfer import ReadLater
from rsdiff.training.processes import together

LAG = 2
"""Steps of one group after which its flag is read on an accelerator."""


@dataclass(frozen=True)
class Evidence:
    """What is said of a step that was not finite.

    step     whose loss or gradients these are, counted from 0
    group    the optimiser group
    terms    the parts of the loss by name
    samples  names of the images
    """

    step: int
    group: str
    terms: Mapping[str, Tensor]
    samples: Sequence[str]

    def words(self) -> str:
        """Return 'the loss of group 'restorer' (term l1; images a, b)'; waits for the device."""
        bad = [name for name, value in self.terms.items() if not bool(torch.isfinite(value).all())]
        what = "the loss" if bad else "the gradient"
        term = f"term {', '.join(bad)}; " if bad else ""
        return f"{what} of group '{self.group}' ({term}images {', '.join(self.samples[:4])})"


class FiniteWatch:
    """Remembers the last steps' flags until they are known to be true."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.is_stopped = False
        """Whether a process wanted to stop, by a step whose flag was read: the same on every process."""
        self._accelerator = accelerator
        self._is_late = accelerator.device.type != "cpu"
        self._open: deque[tuple[Evidence, ReadLater]] = deque()

    def note(self, evidence: Evidence, values: Iterable[Tensor], wants_stop: bool = False) -> Evidence | None:
        """Take in the scalars of a step; return the evidence of the oldest step that is known by now not to be finite.

        wants_stop  this process was told to stop; it travels with the flag, which every process sends anyway
        """
        is_bad = ~torch.stack([value.detach().float().reshape(()) for value in values]).isfinite().all()
        flags = torch.stack([is_bad.float(), torch.full((), float(wants_stop), device=is_bad.device)])
        if self._accelerator.num_processes > 1:
            with together():
                torch.distributed.all_reduce(flags)
        self._open.append((evidence, ReadLater(flags)))
        return self._read(LAG if self._is_late else 0)

    def settle(self) -> Evidence | None:
        """Return the evidence of the oldest step that was not finite, or None; waits for the device, as saving does."""
        return self._read(0)

    def _read(self, keep: int) -> Evidence | None:
        while len(self._open) > keep:
            evidence, flags = self._open.popleft()
            bad, stops = flags.value().tolist()
            self.is_stopped |= stops > 0
            if bad:
                return evidence
        return None


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of floating-point tensors that hold a NaN or an infinity; waits once for every device."""
    flags: dict[torch.device, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if value.is_floating_point() or value.is_complex():
            flags.setdefault(value.device, {})[name] = torch.isfinite(value).all()
    bad = set()
    for on_device in flags.values():
        values = torch.stack(list(on_device.values())).tolist()
        bad |= {name for name, is_good in zip(on_device, values, strict=True) if not is_good}
    return [name for name in tensors if name in bad]
