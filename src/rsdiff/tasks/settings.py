"""Turns what Hydra composed into typed, frozen settings. Below this module nobody sees OmegaConf."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from rsdiff.config import ConfigError, config_from_mapping
from rsdiff.config.typed import nearest
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import MethodConfig
from rsdiff.runs.predecessor import locate, starting_point
from rsdiff.runs.signature import run_signature
from rsdiff.tasks.groups import GROUPS
from rsdiff.tasks.inputs import rasters_of
from rsdiff.tasks.options import RunOptions, TaskOptions
from rsdiff.tracking import LoggerConfig
from rsdiff.training.checkpoints import find_checkpoint
from rsdiff.training.config import TrainerConfig

CARRIED = ("model", "dataset", "degradation", "sampler", "metrics")
"""Groups whose settings a checkpoint brings along."""


@dataclass(frozen=True)
class RunSettings:
    """Everything a run depends on.

    options  top-level settings
    task     the task with its own options
    groups   typed config by group, of the groups the task uses and the logger
    choices  option chosen by group, e.g. {'model': 'sr3_tiny'}; what a checkpoint brought keeps its name
    resolved the composed settings as plain values: stored with the run and in checkpoint cards
    """

    options: RunOptions
    task: TaskOptions
    groups: Mapping[str, Any]
    choices: Mapping[str, str]
    resolved: Mapping[str, Any]

    def _group(self, name: str) -> Any:
        assert name in self.groups, f"task={self.choices['task']} reads the group '{name}', which its options class does not list in `uses`"
        return self.groups[name]

    @property
    def model(self) -> MethodConfig:
        return cast(MethodConfig, self._group("model"))

    @property
    def dataset(self) -> Any:
        return self._group("dataset")

    @property
    def degradation(self) -> Any:
        return self._group("degradation")

    @property
    def sampler(self) -> SamplerConfig:
        return cast(SamplerConfig, self._group("sampler"))

    @property
    def trainer(self) -> TrainerConfig:
        return cast(TrainerConfig, self._group("trainer"))

    @property
    def metrics(self) -> Any:
        return self._group("metrics")

    @property
    def logger(self) -> LoggerConfig:
        return cast(LoggerConfig, self._group("logger"))

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
        if self.task.starts and "model" in self.groups:
            return starting_point(self.model, self.resolved, self.checkpoint, self.outputs)
        return find_checkpoint(self.checkpoint) if self.checkpoint else None

    @property
    def inputs(self) -> list[Path]:
        """The rasters that `input` names."""
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
        """The run's folder: `<outputs>/<task>/<model>-<dataset>/<signature>`."""
        return self.outputs / self.choices["task"] / self.name / self.signature


def settings_from(composed: DictConfig, hydra: HydraConf | DictConfig) -> RunSettings:
    """Check the composed config and return the typed settings.

    composed  the config, with or without Hydra's own node
    hydra     Hydra's own node (typed HydraConf by Hydra, a DictConfig in fact): the options chosen and the overrides given
    Raises ConfigError in one sentence; for a checkpoint that cannot be read CheckpointError.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True, throw_on_missing=False))
    plain.pop("hydra", None)
    choices = {group: str(choice) for group, choice in hydra.runtime.choices.items() if group in GROUPS}
    overrides = [str(override) for override in hydra.overrides.task]
    task = cast(TaskOptions, _typed("task", plain["task"]))
    options = _options(plain)
    if options.checkpoint is not None:
        options = replace(options, checkpoint=str(locate(options.checkpoint, Path(options.outputs))))
    if "model" in task.uses and options.checkpoint is not None and _takes_checkpoint(plain["model"]):
        plain["model"]["weights"], options = options.checkpoint, replace(options, checkpoint=None)
    if task.continues and options.checkpoint is not None:
        plain, choices = _with_settings_of(Path(options.checkpoint), plain, choices, overrides)
        options = replace(_options(plain), checkpoint=options.checkpoint)
    for name in sorted(task.needs):
        if getattr(options, name) is None:
            raise ConfigError(f"task={choices['task']} needs {name}, which was not given; add {name}=PATH.")
    groups = {group: _typed(group, plain[group]) for group in (*sorted(task.uses), "logger")}
    return RunSettings(options, task, groups, choices, plain)


def group_config(composed: DictConfig, group: str) -> Any:
    """Return the typed config of one group of a composed config; raises ConfigError."""
    return _typed(group, cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True, throw_on_missing=False))[group])


def _takes_checkpoint(model: Mapping[str, Any]) -> bool:
    """Whether `checkpoint` is a file that the model chosen reads itself."""
    cls: Any = GROUPS["model"].get(str(model.get("kind")), MethodConfig)
    return bool(cls.takes_checkpoint)


def _options(plain: Mapping[str, Any]) -> RunOptions:
    return config_from_mapping(RunOptions, {key: value for key, value in plain.items() if key not in GROUPS}, "")


def _typed(group: str, values: Mapping[str, Any] | None) -> Any:
    """Return the config object of one group from its plain values, whose 'kind' names the class."""
    options = dict(values or {})
    kind = options.pop("kind", None)
    table = GROUPS[group]
    if kind not in table:
        raise ConfigError(f"{group}.kind={kind} is not known{nearest(str(kind), list(table))}; the kinds are {', '.join(sorted(table))}.")
    missing = _first_missing(options, group)
    if missing is not None:
        raise ConfigError(f"{missing} is required and was not given; set it with {missing}=VALUE.")
    return config_from_mapping(table[kind], options, group)


def _first_missing(values: Mapping[str, Any], path: str) -> str | None:
    for key, value in values.items():
        if value == "???":
            return f"{path}.{key}"
        if isinstance(value, Mapping) and (found := _first_missing(value, f"{path}.{key}")) is not None:
            return found
    return None


def _with_settings_of(
    checkpoint: Path, plain: dict[str, Any], choices: dict[str, str], overrides: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace the groups that the user did not choose by those the checkpoint was trained with.

    What the user typed wins: a whole group (`dataset=whu`, or every group but the model where `experiments=` is given), a single option
    (`sampler.steps=10`), `scale`; also what a typed data set decides by its nature, see `_decided_by`.
    """
    card = json.loads((find_checkpoint(checkpoint) / "card.json").read_text())
    trained, names = card.get("config", {}), card.get("choices", {})
    typed = [parsed.key_or_group for parsed in OverridesParser.create().parse_overrides(overrides)]
    decided = _decided_by(plain["dataset"]) if "dataset" in typed else frozenset()
    merged, chosen = dict(plain), dict(choices)
    for group in (group for group in CARRIED if group in trained):
        if group == "model":
            if "model" in typed and plain["model"].get("kind") != trained["model"].get("kind"):
                holds = names.get("model", trained["model"].get("kind"))
                raise ConfigError(f"{checkpoint} holds a model={holds} and model={choices['model']} was given; leave model= out.")
        elif group in typed or group in decided or "experiments" in typed:
            continue
        merged[group] = dict(trained[group])
        chosen[group] = names.get(group, choices[group])
        for key in (key for key in typed if key.startswith(f"{group}.")):
            _copy_option(key.split("."), plain, merged)
    if "scale" in trained and "scale" not in typed and "experiments" not in typed:
        merged["scale"] = trained["scale"]
    return merged, chosen


def _decided_by(dataset: Mapping[str, Any]) -> frozenset[str]:
    """Return the groups for which a data set leaves a checkpoint no say: who brings LR is not degraded, who lacks targets not compared."""
    gives = _typed("dataset", dataset).gives
    return frozenset({"degradation"} if "lr" in gives else ()) | frozenset({"metrics"} if "hr" not in gives else ())


def _copy_option(path: list[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """Copy the value at `path` from one nested mapping to another, leaving the target's original branches untouched."""
    for key in path[:-1]:
        source = source[key]
        target[key] = dict(target.get(key) or {})
        target = target[key]
    target[path[-1]] = source[path[-1]]


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()
