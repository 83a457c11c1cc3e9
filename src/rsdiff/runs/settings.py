"""Everything a run depends on, as typed, frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rsdiff.runs.options import RunOptions, TaskOptions
from rsdiff.runs.signature import run_signature

if TYPE_CHECKING:
    from rsdiff.diffusion.sampler import SamplerConfig
    from rsdiff.methods.base import MethodConfig
    from rsdiff.tracking import LoggerConfig
    from rsdiff.training.config import TrainerConfig

CARRIED = ("model", "dataset", "degradation", "sampler", "metrics")
"""Groups whose settings a checkpoint brings along."""


@dataclass(frozen=True)
class RunSettings:
    """Everything a run depends on.

    options  top-level settings
    task     the task with its own options
    groups   typed config by group, of the groups the task uses and the logger
    choices  option chosen by group, e.g. {'model': 'sr3_quick'}; what a checkpoint brought keeps its name
    resolved the composed settings as plain values: stored with the run and in checkpoint cards
    place    the run's folder, where it was chosen (hydra.run.dir); None for the one that the signature names
    """

    options: RunOptions
    task: TaskOptions
    groups: Mapping[str, Any]
    choices: Mapping[str, str]
    resolved: Mapping[str, Any]
    place: Path | None = None

    def _group(self, name: str) -> Any:
        assert name in self.groups, f"task={self.choices['task']} reads the group '{name}', which its options class does not list in `uses`"
        return self.groups[name]

    @property
    def model(self) -> MethodConfig:
        return cast("MethodConfig", self._group("model"))

    @property
    def dataset(self) -> Any:
        return self._group("dataset")

    @property
    def degradation(self) -> Any:
        return self._group("degradation")

    @property
    def sampler(self) -> SamplerConfig:
        return cast("SamplerConfig", self._group("sampler"))

    @property
    def trainer(self) -> TrainerConfig:
        return cast("TrainerConfig", self._group("trainer"))

    @property
    def metrics(self) -> Any:
        return self._group("metrics")

    @property
    def logger(self) -> LoggerConfig:
        return cast("LoggerConfig", self._group("logger"))

    @property
    def scale(self) -> float:
        return self.options.scale

    @property
    def seed(self) -> int:
        return self.options.seed

    @property
    def checkpoint(self) -> Path | None:
        return _path(self.options.checkpoint)

    @property
    def starting_point(self) -> Path | None:
        """The checkpoint folder that the run continues, evaluates or starts from; for training it may be found, see `predecessor`."""
        from rsdiff.runs.predecessor import starting_point  # with PyTorch, which looking at runs does not need
        from rsdiff.training.checkpoints import find_checkpoint

        if self.task.starts and "model" in self.groups:
            return starting_point(self.model, self.resolved, self.checkpoint, self.outputs)
        return find_checkpoint(self.checkpoint) if self.checkpoint else None

    @property
    def inputs(self) -> list[Path]:
        """The rasters that `input` names."""
        from rsdiff.runs.inputs import rasters_of

        return [] if self.options.input is None else rasters_of(self.options.input)

    @property
    def output(self) -> Path | None:
        return _path(self.options.output)

    @property
    def source(self) -> Path | None:
        return _path(self.options.source)

    @property
    def outputs(self) -> Path:
        return Path(self.options.outputs)

    @property
    def name(self) -> str:
        """'<model>-<dataset>' as far as the task uses them: how the run is called in folders and logs."""
        parts = [self.choices[group].replace("/", "_") for group in ("model", "dataset") if group in self.task.uses]
        return "-".join(parts) or self.choices["task"]

    @property
    def signature(self) -> str:
        """Hash of what can change the run's result; see rsdiff.runs.signature."""
        used = sorted(self.task.uses)
        files = self.model.files if "model" in used else ()
        return run_signature(
            {
                "task": [self.resolved["task"]["kind"], self.task],
                "scale": self.scale,
                "seed": self.seed,
                "checkpoint": self.starting_point,
                "input": self.inputs or None,
                "source": self.source,
                "output": str(self.output.resolve()) if self.output else None,
                **({"files": list(files)} if files else {}),
                **{f"group/{group}": [self.resolved[group]["kind"], self.groups[group]] for group in used},
            }
        )

    @property
    def run_path(self) -> Path:
        """The run's folder: `<outputs>/<task>/<model>-<dataset>/<signature>`, or `place`."""
        return self.place or self.outputs / self.choices["task"] / self.name / self.signature


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()
