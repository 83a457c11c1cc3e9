"""A repository of toy components, so that the way from the command line to a task is tested without training anything."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from rsdiff.config import ConfigError, config
from rsdiff.degradations import BicubicConfig
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.runs.options import TaskOptions
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tracking import Tracker


@config
class ToyBlock:
    """A nested config."""

    depth: int = 2
    """Layers."""


@config
class ToyModel(MethodConfig):
    """A model that is never built."""

    width: int = 8
    """Channels."""
    dropout: float = 0.0
    """Share of dropped activations."""
    mode: Literal["plain", "residual"] = "plain"
    """How blocks are joined."""
    needs_ref: bool = False
    """Whether a reference image is required."""
    block: ToyBlock = ToyBlock()
    """The blocks."""
    branches: Mapping[str, ToyBlock] = field(default_factory=dict)
    """Blocks by a name of the user's choice."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"hr", "lr"} | ({"ref"} if self.needs_ref else set()))

    def refuse(self, problem: Problem) -> str | None:
        return f"scale {problem.scale:g} is below 1; choose scale=1 or more." if problem.scale < 1 else None


@config
class ToyData:
    """Nothing but a promise of what samples hold."""

    result_neutral: ClassVar[frozenset[str]] = frozenset({"workers"})

    bands: int = 3
    """Bands."""
    size: int = 16
    """Side in pixels."""
    references: bool = False
    """Whether samples hold ref."""
    inputs: bool = False
    """Whether samples hold lr beside hr."""
    workers: int = 0
    """Loader processes."""

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"hr"} | ({"ref"} if self.references else set()) | ({"lr"} if self.inputs else set()))


@config
class ToyRequired:
    """Data that must be pointed at."""

    root: str
    """Folder."""

    @property
    def gives(self) -> frozenset[str]:
        return frozenset({"hr"})


@config
class ToyDegradation(BicubicConfig):
    """Bicubic under another name."""


@config
class ToySampler:
    """A plugin's sampler, which has none of the options of ours but the number of steps."""

    steps: int = 5
    """Steps."""


@config
class ToyMetrics:
    """Names."""

    names: tuple[str, ...] = ("psnr",)
    """Metrics."""


@config
class ToyTask(TaskOptions):
    """Logs a few steps and ends as it is told to."""

    module: ClassVar[str] = "tests.toy"
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation", "sampler", "trainer"})
    pairs_data: ClassVar[bool] = True
    continues: ClassVar[bool] = True

    end: Literal["well", "value_error", "disk_full", "bug", "interrupt", "sleep"] = "well"
    """How the task ends."""


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """The toy task."""
    assert isinstance(settings.task, ToyTask)
    if settings.task.end == "value_error":
        raise ConfigError("the toy task was told to fail; do not tell it so.")
    for step in range(3):
        tracker.log(step, {"loss": 1.0 / (step + 1)})
    match settings.task.end:
        case "disk_full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights.safetensors")
        case "bug":
            raise KeyError("nowhere")
        case "interrupt":
            raise KeyboardInterrupt
        case "sleep":
            time.sleep(60)
    report = folder.path / "report.txt"
    report.write_text("done")
    return TaskResult([f"Report: {report}"], {"psnr": 20.0 + settings.scale, "model": settings.choices["model"]}, report)


FILES = {
    "conf/task/toy.yaml": "defaults: [/schema/task/toy@_here_, _self_]\nkind: toy\n",
    "conf/model/toy.yaml": (
        "defaults:\n  - /schema/model/toy@_here_\n  - override /sampler@_global_.sampler: slow\n  - _self_\nkind: toy\nwidth: 16\n"
    ),
    "conf/model/toy_tiny.yaml": "defaults: [toy, _self_]\nwidth: 4\n",
    "conf/model/referenced.yaml": "defaults: [toy, _self_]\nneeds_ref: true\n",
    "conf/model/broken.yaml": "defaults: [toy, _self_]\nwidth: [4\n",
    "conf/model/misspelt.yaml": "defaults: [toy, _self_]\nblock: {dpth: 4}\n",
    "conf/dataset/toy.yaml": "defaults: [/schema/dataset/toy@_here_, _self_]\nkind: toy\n",
    "conf/dataset/pairs.yaml": "defaults: [toy, _self_]\nreferences: true\n",
    "conf/dataset/inputs.yaml": "defaults: [toy, {override /degradation@_global_.degradation: given}, _self_]\ninputs: true\n",
    "conf/dataset/dangling.yaml": "defaults: [toy, _self_]\nsize: ${no_such_key}\n",
    "conf/dataset/required.yaml": "defaults: [/schema/dataset/required@_here_, _self_]\nkind: required\n",
    "conf/degradation/toy.yaml": "defaults: [/schema/degradation/toy@_here_, _self_]\nkind: toy\n",
    "conf/degradation/given.yaml": "defaults: [/schema/degradation/paired@_here_, _self_]\nkind: paired\n",
    "conf/sampler/fast.yaml": "defaults: [/schema/sampler/toy@_here_, _self_]\nkind: toy\n",
    "conf/sampler/slow.yaml": "defaults: [/schema/sampler/toy@_here_, _self_]\nkind: toy\nsteps: 50\n",
    "conf/trainer/quick.yaml": "defaults: [/schema/trainer/trainer@_here_, _self_]\nkind: trainer\n",
    "conf/metrics/standard.yaml": "defaults: [/schema/metrics/toy@_here_, _self_]\nkind: toy\n",
    "conf/logger/jsonl.yaml": "defaults: [/schema/logger/jsonl@_here_, _self_]\nkind: jsonl\nprogress: 'off'\n",
    "conf/experiments/paper/wide.yaml": (
        "# @package _global_\ndefaults:\n  - override /model: toy_tiny\n  - override /dataset: pairs\nmodel: {width: 64}\n"
    ),
    "conf/sweeps/two.yaml": "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {seed: '0,1'}\n",
}
CHOICES = {
    "task": "toy",
    "model": "toy",
    "dataset": "toy",
    "degradation": "toy",
    "sampler": "fast",
    "trainer": "quick",
    "metrics": "standard",
    "logger": "jsonl",
}


def write_repository(root: Path, shipped_config: Path) -> Path:
    """Write a repository of toy components with the shipped conf/config.yaml, whose choices are replaced; return its root."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    lines = shipped_config.read_text().splitlines(keepends=True)
    chosen = {f"  - {group}:": f"  - {group}: {option}\n" for group, option in CHOICES.items()}
    replaced = [next((new for start, new in chosen.items() if line.startswith(start)), line) for line in lines]
    (root / "conf" / "config.yaml").write_text("".join(replaced))
    return root


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the toy kinds to the groups for the duration of a test."""
    from rsdiff.app.groups import GROUPS

    kinds = {
        "task": ToyTask,
        "model": ToyModel,
        "dataset": ToyData,
        "degradation": ToyDegradation,
        "sampler": ToySampler,
        "metrics": ToyMetrics,
    }
    for group, cls in kinds.items():
        monkeypatch.setitem(GROUPS[group], "toy", cls)  # type: ignore[arg-type]
    monkeypatch.setitem(GROUPS["dataset"], "required", ToyRequired)  # type: ignore[arg-type]
