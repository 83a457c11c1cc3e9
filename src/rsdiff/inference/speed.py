"""speed=fast: what restores faster on this device, found by a short measurement, with its distance from the exact result.

A candidate is taken where it needs less than WORTHWHILE of the time of what was taken before. On a CPU processor seconds are compared,
alternately, so that a busy machine does not decide; on an accelerator seconds between two synchronisations. What is compiled is no
candidate: it takes longer than most measurements and pays for many images of one size (`compile`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from rsdiff.config import PlaceError, UserError
from rsdiff.config.computing import Precision
from rsdiff.data.durable import write_json
from rsdiff.data.precision import set_float32
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.transfer import wait_for
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import restore, shortened
from rsdiff.methods.base import Method, Problem

WORTHWHILE = 0.95
PROBE_SIDE = 48
"""Input pixels of the image that is restored to measure."""
ROUNDS = 3
LONG = 2.0
"""Seconds of one trial from which a single pair of trials decides."""
NOTE = "speed.json"
"""File of a run's folder that keeps what was chosen."""
SHOWN = frozenset({"hr", "lr", "ref", "change_mask", "kernel", "noise_level", "lr_clean"})
"""Fields of a batch that a method restores without, or that the probe has."""


@dataclass(frozen=True)
class Arithmetic:
    """How a device may compute to be faster; the options of these names."""

    precision: Precision = "no"
    channels_last: bool = False
    tf32: bool = False

    def prepare(self, method: Method) -> None:
        """Store the weights as they are wanted, and set what holds for the process."""
        method.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        set_float32(self.tf32, cudnn_benchmark=False)


EXACT = Arithmetic()
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "tf32": {"tf32": True},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16"},
}
"""What is tried, in this order, as changes of an Arithmetic."""


@dataclass(frozen=True)
class Measured:
    """What was chosen.

    arithmetic  the choice
    ratios      time with each candidate, added to those taken before it, over the time without
    ratio       time with the choice over the exact time
    distance    largest difference of the probe from the exact one, of images in [0, 1]
    """

    arithmetic: Arithmetic
    ratios: Mapping[str, float]
    ratio: float
    distance: float

    def told(self) -> str:
        """Return the choice in a sentence."""
        return (
            f"speed=fast: restoring takes {self.ratio:.2f} of the exact time by {words(self.arithmetic)}, at most {self.distance:.1g} of "
            f"the range from exact ({tried(self.ratios)})"
        )


Options = TypeVar("Options")
"""A dataclass of options that say how a device computes, whose defaults are exact."""


def words(chosen: Any) -> str:
    """Return the options of a choice that differ from the exact ones, as they are typed."""
    exact = type(chosen)()
    values = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    used = [f"{name}={str(value).lower()}" for name, value in values.items() if value != getattr(exact, name)]
    return " ".join(used) or "nothing that speed=exact does not do"


def tried(ratios: Mapping[str, float]) -> str:
    """Return what was measured, in words."""
    return "times measured: " + (", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()) or "none, for nothing else suits here")


def fastest(
    exact: Options, changes: Mapping[str, Mapping[str, Any]], trial: Callable[[Options], object], device: torch.device
) -> tuple[Options, dict[str, float], float]:
    """Return the fastest options that single `changes` of `exact`, one after the other, lead to, their ratios, and that of all taken."""
    best, ratios, total = exact, {}, 1.0
    for name, change in changes.items():
        candidate = replace(best, **change)  # type: ignore[type-var]
        ratios[name] = ratio(lambda candidate=candidate: trial(candidate), lambda best=best: trial(best), device)  # type: ignore[misc]
        if ratios[name] < WORTHWHILE:
            best, total = candidate, total * ratios[name]
    return best, ratios, total


def candidates(device: torch.device) -> list[str]:
    """Return what may be faster on `device`."""
    return [*(["tf32"] if device.type == "cuda" else []), "channels_last", *(["bf16"] if has_bf16(device) else [])]


def has_bf16(device: torch.device) -> bool:
    """Say whether `device` has units that compute in bf16; others emulate it at length."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def measure(method: Method, problem: Problem, needs: Collection[str], sampler: SamplerConfig, device: torch.device) -> Measured:
    """Return in what `method` restores fastest on `device`; it is left as it restores exactly.

    needs  fields of a batch that the method needs; raises UserError where a probe cannot have them
    """
    if strange := sorted(set(needs) - SHOWN):
        raise UserError(
            f"speed=fast cannot be measured for a model that needs {', '.join(strange)}; set precision=bf16 or channels_last=true instead."
        )
    batch, short = probe(problem, needs, device), shortened(sampler)

    @torch.no_grad()
    def trial(arithmetic: Arithmetic) -> Tensor:
        arithmetic.prepare(method)
        given = batch.with_memory_format(torch.channels_last) if arithmetic.channels_last else batch
        return restore(method, given, short, SeededNoise([("probe",)]), arithmetic.precision)

    best, ratios, total = fastest(EXACT, {name: CANDIDATES[name] for name in candidates(device)}, trial, device)
    found = trial(best)
    return Measured(best, ratios, total, float((found - trial(EXACT)).abs().max()))


def ratio(first: Callable[[], object], second: Callable[[], object], device: torch.device) -> float:
    """Return the time of `first` over that of `second`: the median of alternating trials, after one of each that is not counted."""
    seconds_of(first, device)
    rounds = 1 if seconds_of(second, device) > LONG else ROUNDS
    found = []
    for number in range(rounds):
        times = [seconds_of(work, device) for work in ((first, second) if number % 2 else (second, first))]
        found.append(times[0] / times[1] if number % 2 else times[1] / times[0])
    return sorted(found)[len(found) // 2]


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that `work` takes: of the processor on a CPU, of the clock on an accelerator."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    wait_for(device)
    began = clock()
    work()
    wait_for(device)
    return max(clock() - began, 1e-9)


def probe(problem: Problem, needs: Collection[str], device: torch.device) -> Batch:
    """Return a batch of one image of smooth noise, with what else the method looks at."""
    side, size = PROBE_SIDE, round(PROBE_SIDE * problem.scale)
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, problem.lr_bands, side // 4, side // 4, generator=random)
    images: dict[str, Tensor] = {"lr": torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")}
    if "ref" in needs:
        images["ref"] = torch.rand(1, problem.bands, size, size, generator=random)
    if "change_mask" in needs:
        images["change_mask"] = torch.zeros(1, 1, size, size)
    placed = {name: image.to(device) for name, image in images.items()}
    return Batch([SampleMeta("probe")], (size, size), (side, side), **placed)  # type: ignore[arg-type]


def recall(folder: Path, kind: type[Options]) -> Options | None:
    """Return what the run in `folder` chose when it began, or None: a run goes on as it began."""
    try:
        return kind(**json.loads((folder / NOTE).read_text())["arithmetic"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise PlaceError(f"{folder / NOTE} cannot be read; delete it to let the choice be made anew.") from None


def remember(folder: Path, found: object) -> None:
    """Note a choice, whose options are its `arithmetic`, for when the run goes on."""
    write_json(folder / NOTE, {**asdict(found), "torch": torch.__version__})  # type: ignore[call-overload]
