"""Turns what Hydra composed into typed, frozen settings. Below this module nobody sees OmegaConf."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from rsdiff.app.groups import GROUPS, RECIPES
from rsdiff.config import ConfigError, config_from_mapping
from rsdiff.config.paths import typed_path
from rsdiff.config.reading import require_effect
from rsdiff.config.typed import nearest, required
from rsdiff.methods.former import present_groups
from rsdiff.runs.options import TAKEN_BY_SOME, RunOptions, TaskOptions
from rsdiff.runs.settings import CARRIED, RunSettings

FROM_HERE = frozenset(
    {*("checkpoint", "input", "output", "source", "outputs", "root", "data_root", "file", "weights"), "weight_folders", "sr", "hr"}
)
"""Settings, at the top or of a group, whose paths begin at the folder where the command is typed."""


def settings_from(composed: DictConfig, hydra: HydraConf | DictConfig, trained: RunSettings | None = None) -> RunSettings:
    """Check the composed config and return the typed settings.

    composed  the config, with or without Hydra's own node
    hydra     Hydra's own node (typed HydraConf by Hydra, a DictConfig in fact): the options chosen and the overrides given
    trained   the training whose checkpoint it will be given, where there is none yet
    Raises ConfigError in one sentence; for a checkpoint that cannot be read CheckpointError.
    """
    choices = {group: str(choice) for group, choice in hydra.runtime.choices.items() if group in GROUPS}
    plain = plain_config(composed)
    if hydra.job.chdir:
        _seen_from(Path(hydra.runtime.cwd), plain)
    settings = settings_of(plain, choices, words_typed(hydra.overrides.task), trained)
    with hydra_of(composed):
        return replace(settings, place=_place(hydra))


def words_typed(overrides: Any) -> list[str]:
    """Return one of Hydra's lists of overrides as they were typed: to read its items would resolve what interpolates in them."""
    plain: Any = OmegaConf.to_container(overrides, resolve=False) if OmegaConf.is_config(overrides) else overrides
    return [str(word) for word in plain]


def settings_of(plain: dict[str, Any], choices: dict[str, str], overrides: list[str], trained: RunSettings | None = None) -> RunSettings:
    """Check the composed config as plain values and return the typed settings; see `settings_from`."""
    _refuse_without_value(plain, choices, overrides)
    plain |= present_groups(plain)
    task = cast(TaskOptions, typed_group("task", plain["task"]))
    typed = OverridesParser.create().parse_overrides(overrides)
    _refuse_unread(task, choices["task"], typed)
    options = _options(plain)
    if options.checkpoint is not None:
        from rsdiff.runs.predecessor import locate

        options = replace(options, checkpoint=str(locate(options.checkpoint, Path(options.outputs))))
    if "model" in task.uses and options.checkpoint is not None and _takes_checkpoint(plain["model"]):
        plain["model"]["weights"], options = options.checkpoint, replace(options, checkpoint=None)
    if "trainer" in task.uses and options.checkpoint is not None and getattr(_model_class(plain["model"]), "taught_on_checkpoint", False):
        plain["model"], options = _with_regression(Path(options.checkpoint), plain["model"], options)
    if task.continues and trained is not None:
        plain, choices = _with_settings_of("the training", trained.resolved, trained.choices, plain, choices, overrides)
        options = _options(plain)
    elif task.continues and options.checkpoint is not None:
        from rsdiff.training.checkpoints import find_checkpoint, read_card
        from rsdiff.weights.stores import typed_name

        place = Path(options.checkpoint)
        card = read_card(find_checkpoint(place))
        found = card.get("config", {}), card.get("choices", {})
        plain, choices = _with_settings_of(f"checkpoint={typed_name(place)}", *found, plain, choices, overrides)
        options = replace(_options(plain), checkpoint=options.checkpoint)
    for name in sorted(task.needs):
        if getattr(options, name) is None:
            raise ConfigError(f"task={choices['task']} needs {name}, which was not given; add {name}=PATH.")
    groups = {group: typed_group(group, plain[group]) for group in (*sorted(task.uses), "logger") if group in plain}
    # Of a choice inside an option ('network@model.network=hat'), the option.
    require_effect({**groups, "task": task}, [str(parsed.package or parsed.key_or_group) for parsed in typed])
    return RunSettings(options, task, groups, choices, plain)


def _refuse_unread(task: TaskOptions, name: str, typed: Sequence[Override]) -> None:
    """Raise ConfigError where a group, an option of one or a top-level setting was typed that the task does not read.

    What files bring (an experiment, a checkpoint) may serve other tasks too. A task of a plugin need not say what it reads.
    """
    if not task.module.startswith("rsdiff."):
        return
    read = task.uses | {"task"} | (frozenset() if task.only_looks else {"logger"})
    for word in typed:
        option = str(word.package or word.key_or_group)
        group, _, inside = option.partition(".")
        if group in GROUPS and group not in read and not word.is_delete():
            what = f"reads no option of {group}" if inside else f"reads no {group}"
            given = option if inside else str(word.input_line or option)
            raise ConfigError(f"{given} has no effect with task={name}, which {what}; leave it out.")
        if option in RECIPES and not task.uses and not task.starts_others:
            raise ConfigError(f"{word.input_line} has no effect with task={name}, which reads no group of settings; leave it out.")
        if option in TAKEN_BY_SOME and option not in task.takes | task.needs:
            raise ConfigError(f"{option}= has no effect with task={name}, which does not read it; leave it out{_instead(option)}.")


def _instead(setting: str) -> str:
    """Return which tasks read a top-level setting, as a sentence goes on; nothing where that would be most of them."""
    tasks = [name for name in GROUPS["task"] if setting in GROUPS["task"][name].takes | GROUPS["task"][name].needs]
    return f", or choose {' or '.join(f'task={name}' for name in tasks)}" if len(tasks) <= 4 else ""


def plain_config(composed: DictConfig) -> dict[str, Any]:
    """Return a composed config, without Hydra's own node, as plain values; raises ConfigError that names a setting without a value."""
    names = [str(name) for name in composed if name != "hydra"]
    try:
        with hydra_of(composed):
            values = {name: "???" if OmegaConf.is_missing(composed, name) else composed[name] for name in names}
            return {
                name: OmegaConf.to_container(value, resolve=True, throw_on_missing=False) if OmegaConf.is_config(value) else value
                for name, value in values.items()
            }
    except OmegaConfBaseException as error:
        raise ConfigError(_interpolation_sentence(error)) from error


@contextmanager
def hydra_of(composed: DictConfig) -> Iterator[None]:
    """Context in which ${hydra:..} has the values of a config that is checked before its run has begun."""
    known = HydraConfig.instance()
    before = known.cfg
    if before is None and "hydra" in composed:
        known.cfg = cast(Any, composed)
    try:
        yield
    finally:
        known.cfg = before


def group_config(composed: DictConfig, group: str) -> Any:
    """Return the typed config of one group of a composed config; raises ConfigError."""
    values = plain_config(composed)[group]
    return typed_group(group, present_groups({group: values}).get(group, values))


def _interpolation_sentence(error: OmegaConfBaseException) -> str:
    text = str(error).splitlines()[0]
    place = getattr(error, "full_key", None) or "the config"
    variable = re.search(r"Environment variable '([^']*)' not found", text)
    if variable:
        return f"{place} takes its value from the environment variable {variable[1]}, which is not set; set it, or give {place}=VALUE."
    ours = re.search(r"Interpolation key '(hydra)\.(\S+)' not found", text)
    if ours:
        return f"{place} cannot be resolved: Hydra's own settings are read with a colon, ${{hydra:{ours[2]}}}."
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing and missing[1].startswith("hydra."):
        return f"{place} takes its value from {missing[1]}, which only the runs of a sweep have; add -m, or give {place}=VALUE."
    if missing:
        return f"{place} takes its value from {missing[1]}, which has none here; give {missing[1]}=VALUE, or {place}=VALUE."
    hint = (
        "; correct the name between ${ and }, or write \\${..} for the characters themselves"
        if isinstance(error, InterpolationKeyError)
        else ""
    )
    return f"{place} cannot be resolved: {text[:1].lower()}{text[1:]}{hint}."


def _refuse_without_value(plain: Mapping[str, Any], choices: Mapping[str, str], overrides: Sequence[str]) -> None:
    """Raise ConfigError where `~`, `=null` or `=None` took away what a run needs, which must not become a default that nobody chose."""
    uses = GROUPS["task"][plain["task"]["kind"]].uses if isinstance(plain.get("task"), Mapping) and plain["task"].get("kind") else ()
    for group in GROUPS:
        if plain.get(group) is None and (group in ("task", "logger") or group in uses):
            task = f"task={choices['task']}" if group != "task" and "task" in choices else "a run"
            raise ConfigError(f"{task} needs a {group} and {_removal(group, overrides)} leaves none; choose {group}=NAME.")
    for word in overrides:
        key, _, value = word.removeprefix("~").partition("=")
        if value == "None":
            raise ConfigError(f"{word} gives the text 'None'; for no value write {key}=null, or leave it out for the default.")
        if word.startswith("~") and key.partition(".")[0] in {*GROUPS, *(field.name for field in fields(RunOptions))} and key not in GROUPS:
            raise ConfigError(f"{word} would remove a setting that has to have a value; give {key}=VALUE instead.")


def _removal(group: str, overrides: Sequence[str]) -> str:
    return next((word for word in overrides if word.lstrip("~").partition("=")[0] == group), f"{group}=null")


def _model_class(model: Mapping[str, Any]) -> Any:
    return GROUPS["model"].get(str(model.get("kind")))


def _takes_checkpoint(model: Mapping[str, Any]) -> bool:
    """Whether `checkpoint` is a file that the model chosen reads itself."""
    return bool(getattr(_model_class(model), "takes_checkpoint", False))


def _with_regression(checkpoint: Path, model: Mapping[str, Any], options: RunOptions) -> tuple[dict[str, Any], RunOptions]:
    """Return the settings of a model with those of the regression that a checkpoint holds, and the options of the run.

    A file of weights without a card is read by spandrel, which needs no training. What its own options describe, or what another training
    of itself was taught on, is left to them.
    """
    from rsdiff.training.checkpoints import CARD, find_checkpoint, read_card

    if checkpoint.is_file() and not (checkpoint.parent / CARD).is_file():
        return {**model, "regression": {"kind": "spandrel", "weights": str(checkpoint)}}, replace(options, checkpoint=None)
    trained = read_card(find_checkpoint(checkpoint)).get("config", {}).get("model", {})
    if trained.get("kind") == model["kind"]:
        return {**model, "regression": trained.get("regression", {})}, options
    described = trained.get("kind") == "rrdb" and all(trained.get(name) == model[name] for name in ("network", "base"))
    return {**model, "regression": {} if described else dict(trained)}, options


def _options(plain: Mapping[str, Any]) -> RunOptions:
    return config_from_mapping(RunOptions, {key: value for key, value in plain.items() if key not in GROUPS}, "")


def typed_group(group: str, values: Mapping[str, Any] | None) -> Any:
    """Return the config object of one group from its plain values, whose 'kind' names the class."""
    options = dict(values or {})
    kind = options.pop("kind", None)
    table = GROUPS[group]
    if kind not in table:
        raise ConfigError(
            f"{group}.kind={kind} is not known{nearest(str(kind), list(table))}; the kinds are "
            f"{', '.join(sorted(table))}; what a package of yours brings needs plugins=[PACKAGE]."
        )
    missing = _first_missing(options)
    if missing:
        raise ConfigError(required(table[kind], missing, ".".join((group, *missing))))
    return config_from_mapping(table[kind], options, group)


def _first_missing(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the way to the first option whose value Hydra marks as missing; nothing where all have one."""
    for key, value in values.items():
        if value == "???":
            return (key,)
        if isinstance(value, Mapping) and (found := _first_missing(value)):
            return (key, *found)
    return ()


def _with_settings_of(
    checkpoint: str,
    trained: Mapping[str, Any],
    names: Mapping[str, str],
    plain: dict[str, Any],
    choices: dict[str, str],
    overrides: list[str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace the groups that the user did not choose by those the checkpoint was trained with (`trained`, of the options `names`).

    What the user typed wins: a whole group (`dataset=whu`, or every group but the model where `experiments=` is given), a single option
    (`sampler.steps=10`), `scale`; also what a typed data set decides by its nature, see `_decided_by`.
    """
    # Of a choice inside an option ('network@model.network=hat'), the setting that it stands for.
    typed = [parsed.package or parsed.key_or_group for parsed in OverridesParser.create().parse_overrides(overrides)]
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
    gives = typed_group("dataset", dataset).gives
    return frozenset({"degradation"} if "lr" in gives else ()) | frozenset({"metrics"} if "hr" not in gives else ())


def _copy_option(path: list[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """Copy the value at `path` from one nested mapping to another, leaving the target's original branches untouched."""
    for key in path[:-1]:
        source = source[key]
        target[key] = dict(target.get(key) or {})
        target = target[key]
    target[path[-1]] = source[path[-1]]


def _place(hydra: HydraConf | DictConfig) -> Path | None:
    """Return the folder that hydra.run.dir, or of a sweep hydra.sweep.subdir, was set to, in which the run then works; else None."""
    given = [word.partition("=")[0] for word in words_typed(hydra.overrides.hydra)]
    sweeps = str(hydra.mode) in ("RunMode.MULTIRUN", "MULTIRUN")
    name = "hydra.sweep.subdir" if sweeps else "hydra.run.dir"
    if name not in given or (sweeps and OmegaConf.is_missing(hydra.job, "num")):  # checked before any run of the sweep has its number
        return None
    folder = str(hydra.sweep.subdir if sweeps else hydra.run.dir)
    if not folder:
        raise ConfigError(f"{name}= is empty; give a folder, . for the current one, or leave it out.")
    return Path(hydra.runtime.cwd, str(hydra.sweep.dir), folder) if sweeps else Path(hydra.runtime.cwd, folder)


def _seen_from(folder: Path, plain: dict[str, Any]) -> None:
    """Make paths absolute that were typed in `folder`, because hydra.job.chdir=true makes the run work elsewhere."""
    for values in (plain, *(value for value in plain.values() if isinstance(value, dict))):
        for name in FROM_HERE.intersection(values):
            given = values[name]
            if isinstance(given, str) and given and not given.startswith(("zoo:", "hf:")):
                values[name] = str(folder / typed_path(given))
            elif isinstance(given, list):
                values[name] = [str(folder / typed_path(path)) for path in given]
