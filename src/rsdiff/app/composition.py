"""Turns what Hydra composed into typed, frozen settings. Below this module nobody sees OmegaConf."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from rsdiff.app.groups import GROUPS
from rsdiff.config import ConfigError, config_from_mapping
from rsdiff.config.typed import nearest
from rsdiff.methods.base import MethodConfig
from rsdiff.runs.options import RunOptions, TaskOptions
from rsdiff.runs.predecessor import locate
from rsdiff.runs.settings import CARRIED, RunSettings
from rsdiff.training.checkpoints import find_checkpoint


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
