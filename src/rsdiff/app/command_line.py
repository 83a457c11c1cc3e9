"""Checks a command line before anything runs: every mistake becomes one sentence that says what to type instead.

Composing succeeds for most commands, so the diagnosis, which composes more than once, is made only after a failure.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from rsdiff.app.composition import group_config, settings_from
from rsdiff.app.groups import GROUPS
from rsdiff.config import ConfigError
from rsdiff.config.typed import nearest
from rsdiff.data.source import DataError
from rsdiff.runs.compatibility import Offers, check_compatible, fields_given
from rsdiff.runs.settings import CARRIED, RunSettings

CONFIG_NAME = "config"
MAX_COMBINATIONS_CHECKED = 64
MAX_NAMED = 4


ALSO_CALLED = {"trainer.batch=auto": "trainer.accumulate=auto"}
"""The batch stays the recipe's; what follows the memory is into how many micro-batches it is shared."""


@dataclass(frozen=True)
class Command:
    """A checked command line.

    runs      its settings (of a large sweep: of enough runs to have tried every value)
    cells     the overrides of every run of a sweep, in Hydra's order; empty for a single run
    launcher  class of Hydra's launcher
    """

    runs: Sequence[RunSettings]
    cells: Sequence[Sequence[str]]
    launcher: str

    @property
    def is_sweep(self) -> bool:
        return bool(self.cells)


@contextmanager
def composing(conf: Path) -> Iterator[ConfigLoader]:
    """Context in which Hydra composes from the folder `conf`."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf), job_name="rsdiff"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra.config_loader


def check_command(conf: Path, overrides: Sequence[str], multirun: bool) -> Command:
    """Compose and check everything the command line asks for; raises ConfigError in one sentence."""
    with composing(conf) as loader:
        parsed = _parse(overrides)
        plain = [override for override in parsed if not override.is_sweep_override()]
        first = compose_command(conf, loader, [_text(override) for override in plain])
        is_sweep = multirun or OmegaConf.select(first, "hydra.mode") == RunMode.MULTIRUN
        params = OmegaConf.select(first, "hydra.sweeper.params") or {}
        swept = _parse([f"{key}={value}" for key, value in params.items()]) if is_sweep else []
        given = {override.key_or_group for override in parsed}
        everything = [override for override in swept if override.key_or_group not in given] + parsed
        lists = [override for override in everything if override.is_sweep_override()]
        if lists and not is_sweep:
            raise ConfigError(
                f"{lists[0].input_line} gives several values; add -m to run each of them, or quote a value that holds commas."
            )
        choices = choices_of(everything)
        runs = [check_run(conf, loader, combination) for combination in combinations(choices)]
    launcher = str(OmegaConf.select(first, "hydra.launcher._target_"))
    return Command(runs, [_own(cell) for cell in itertools.product(*choices)] if is_sweep else [], launcher)


def with_options_of_checkpoint(conf: Path, overrides: Sequence[str]) -> list[str]:
    """Return the command line with `++` before options of groups that a checkpoint brings, such as its data set.

    Hydra composes before the checkpoint is read and knows only the options of the group's default; `settings_from` finds out whether what
    the checkpoint brings has them. A command line that does not compose is returned as it is, for `check_command` to diagnose.
    """
    parsed = _parse(overrides)
    given = {override.key_or_group for override in parsed}
    brought = tuple(f"{group}." for group in CARRIED if group not in given)
    late = [override for override in parsed if override.type == OverrideType.CHANGE and override.key_or_group.startswith(brought)]
    if "checkpoint" not in given or not late:
        return list(overrides)
    with composing(conf):
        try:
            others = [_text(override) for override in parsed if override not in late and not override.is_sweep_override()]
            task = group_config(compose(CONFIG_NAME, others), "task")
        except (ConfigError, HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError):
            return list(overrides)
    admitted = {_text(override) for override in late if task.continues and override.key_or_group.partition(".")[0] in task.uses}
    return [f"++{override}" if override in admitted else override for override in overrides]


def choices_of(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the settings that every override of a sweep stands for; a sweep's runs are their product."""
    return [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_discrete_sweep()
        else [_text(override)]
        for override in overrides
        if override.is_discrete_sweep() or not override.is_sweep_override()
    ]


def combinations(choices: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the command lines of a sweep's runs; of a large sweep only as many as try every value once."""
    if math.prod(len(values) for values in choices) <= MAX_COMBINATIONS_CHECKED:
        return [list(combination) for combination in itertools.product(*choices)]
    longest = max(len(values) for values in choices)
    return [[values[min(k, len(values) - 1)] for values in choices] for k in range(longest)]


def offers_of_hydra() -> Offers:
    """Return what each option of the data and degradation groups gives; nothing where Hydra is not at hand (a launcher's worker)."""
    hydra = GlobalHydra.instance().hydra
    if hydra is None:
        return {}
    offers: dict[str, dict[str, frozenset[str]]] = {"dataset": {}, "degradation": {}}
    for group, given in offers.items():
        for option in hydra.config_loader.get_group_options(group):
            try:
                composed = compose(CONFIG_NAME, [f"{group}={option}"])
                given[option] = fields_given({name: group_config(composed, name) for name in offers}, group)
            except (ConfigError, DataError, HydraException, OmegaConfBaseException):  # needs a setting of its own
                continue
    return offers


def check_run(conf: Path, loader: ConfigLoader, overrides: Sequence[str]) -> RunSettings:
    """Return the settings of one run, composed by `loader` (see `composing`) and checked; raises ConfigError in one sentence."""
    composed = compose_command(conf, loader, overrides)
    try:
        settings = settings_from(composed, composed.hydra)
    except OmegaConfBaseException as error:
        raise ConfigError(_interpolation_sentence(error)) from error
    check_compatible(settings, offers_of_hydra)
    return settings


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigError(
            f"'{error.override}' cannot be read as a setting; settings are written key=value, with quotes around values that hold "
            "spaces or special characters: 'key=\"a (b)\"'."
        ) from error


def compose_command(conf: Path, loader: ConfigLoader, overrides: Sequence[str]) -> DictConfig:
    """Compose in the context of `composing`, with Hydra's own node; raises ConfigError in one sentence."""
    try:
        return compose(CONFIG_NAME, list(overrides), return_hydra_config=True)
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_sentence(error)) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_diagnosis(conf, loader, overrides, error)) from error


def _diagnosis(conf: Path, loader: ConfigLoader, overrides: Sequence[str], error: Exception) -> str:
    """Return the sentence for a composition that failed: an unknown option, an unknown key, or what Hydra said."""
    parsed = _parse(overrides)
    groups = _groups()
    for override in parsed:
        key, value = override.key_or_group, override.value()
        options = _options(conf, loader, key) if key in groups else []
        for option in value if isinstance(value, list) else [value]:
            if options and option is not None and str(option) not in options:
                return f"{key}={option} does not exist{nearest(str(option), options)}; the options of {key} are {', '.join(options)}."
    if isinstance(error, MissingConfigException):
        return _first_paragraph(error)
    chosen = [_text(override) for override in parsed if override.key_or_group in groups and override.value() is not None]
    try:
        composed = compose(CONFIG_NAME, chosen, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError):
        return _first_paragraph(error)
    for override in parsed:
        if not override.is_add() and not override.is_force_add() and override.key_or_group not in groups:
            sentence = _unknown_key(conf, composed, override.key_or_group, groups)
            if sentence is not None:
                return sentence
    return _first_paragraph(error)


def _unknown_key(conf: Path, composed: DictConfig, key: str, groups: Sequence[str]) -> str | None:
    """Return the sentence for a dotted key that the composed config lacks, or None if it has it."""
    node: object = composed
    place: list[str] = []
    for part in key.split("."):
        known = [str(name) for name in node] if isinstance(node, DictConfig) else []
        if part not in known:
            break
        node = OmegaConf.select(composed, ".".join([*place, part]))
        place.append(part)
    else:
        return None
    known = [name for name in known if name not in ("kind", "hydra")]
    where = ".".join(place)
    if where:
        if not known:
            return f"{key} is not a setting; {where} has no options of its own (write +{key}=VALUE if it takes names of your choice)."
        hint = nearest(part, known).replace("did you mean ", f"did you mean {where}.") or _having(conf, where, part)
        return f"{key} is not a setting{hint}; the options of {where} are {', '.join(sorted(known))}."
    everywhere = [f"{name}.{option}" for name in GROUPS if isinstance(composed.get(name), DictConfig) for option in composed[name]]
    same_name = [path for path in everywhere if path.rpartition(".")[2] == part]
    names = sorted({*known, *(group for group in groups if "/" not in group)})
    hint = f" (did you mean {' or '.join(same_name)}?)" if same_name else nearest(part, names)
    return f"{key} is not a setting{hint}; the groups and top-level settings are {', '.join(names)}."


def _having(conf: Path, group: str, setting: str) -> str:
    """Return ' (it is one of ...)' for options of a group that have a setting which the chosen one lacks, or an empty string."""
    kinds = [kind for kind, cls in GROUPS.get(group, {}).items() if setting in {field.name for field in dataclasses.fields(cls)}]
    named = [kind for kind in kinds if (conf / group / f"{kind}.yaml").is_file()][:MAX_NAMED]
    return f" (it is one of {', '.join(f'{group}={kind}' for kind in named)})" if named else ""


def _groups() -> list[str]:
    """Return every group a user may choose an option of, e.g. 'model' and 'hydra/launcher'."""
    choices = compose(CONFIG_NAME, [], return_hydra_config=True).hydra.runtime.choices
    return [str(group) for group in choices]


def _options(conf: Path, loader: ConfigLoader, group: str) -> list[str]:
    """Return the options of a group, those in sub-folders as 'folder/name'."""
    return sorted({*loader.get_group_options(group), *options_of(conf / group)})


def options_of(folder: Path) -> list[str]:
    """Return the options that the files of a group's folder are, those in sub-folders as 'folder/name'."""
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def _own(cell: Sequence[str]) -> list[str]:
    """Return the settings of a run without those of Hydra itself, such as its launcher."""
    return [setting for setting in cell if not setting.lstrip("+").startswith(("hydra/", "hydra."))]


def _text(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _first_paragraph(error: Exception) -> str:
    lines = [line.strip() for line in str(error).split("\n\n")[0].splitlines() if line.strip() and "full_key" not in line]
    cause = f" ({error.__cause__})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return f"{'; '.join(lines)}{cause}".removesuffix(".") + "."


def _yaml_sentence(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a config file"
    return f"{where} is not valid YAML: {getattr(error, 'problem', None) or error}."


def _interpolation_sentence(error: OmegaConfBaseException) -> str:
    text = str(error).splitlines()[0]
    key = getattr(error, "full_key", None)
    hint = "; correct the name between ${ and }" if isinstance(error, InterpolationKeyError) else ""
    return f"{key or 'the config'} cannot be resolved: {text[:1].lower()}{text[1:]}{hint}."
