"""Checks what a command asks for before anything runs: every mistake becomes one sentence that says what to type instead.

The checks run on the configuration loader that Hydra built, so they find whatever Hydra finds (--config-dir, hydra.searchpath,
--config-name, glob).
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsdiff.app.composition import plain_config, settings_from, settings_of
from rsdiff.app.diagnosis import diagnosis, loader_at_hand, parse, text_of, with_file
from rsdiff.app.groups import GROUPS
from rsdiff.app.offers import offers_of_hydra
from rsdiff.app.schemas import CONFIG_PATH, register_schemas
from rsdiff.config import ConfigError
from rsdiff.runs.compatibility import check_compatible
from rsdiff.runs.settings import RunSettings

CONFIG_NAME = "config"
MAX_COMBINATIONS_CHECKED = 64
_ONE_AT_A_TIME = threading.RLock()
"""Hydra has one state for all threads."""
COMPOSING = (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError, KeyError)
"""What Hydra raises of a command line that it cannot compose."""
OF_LISTS = (".ListSweeper", ".BasicSweeper")
"""Sweepers whose runs are known before the first of them."""


@dataclass(frozen=True)
class Command:
    """A checked command line.

    runs   its settings (of a large sweep: of enough runs to have tried every value)
    cells  the overrides of every run of a sweep, in Hydra's order; empty for a single run
    """

    runs: Sequence[RunSettings]
    cells: Sequence[Sequence[str]]

    @property
    def is_sweep(self) -> bool:
        return bool(self.cells)


@contextmanager
def composing(conf: Path, also: Sequence[str] = ()) -> Iterator[ConfigLoader]:
    """Context in which Hydra composes from the folder `conf`, for those whom Hydra did not start. What was at hand before comes back.

    also  further folders of configs that Hydra is to find, those of --config-dir
    """
    with _ONE_AT_A_TIME, _hydra_at_hand(conf, also):
        yield loader_at_hand()


@contextmanager
def _hydra_at_hand(conf: Path, also: Sequence[str]) -> Iterator[None]:
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    register_schemas()
    folders = os.environ.get(CONFIG_PATH)
    os.environ[CONFIG_PATH] = os.pathsep.join(filter(None, [*also, folders]))
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf), job_name="rsdiff"):
            yield
    finally:
        GlobalHydra.instance().hydra = before
        os.environ.pop(CONFIG_PATH) if folders is None else os.environ.update({CONFIG_PATH: folders})


def check_command(conf: Path, overrides: Sequence[str], multirun: bool) -> Command:
    """Compose and check everything a command line asks for; raises ConfigError in one sentence."""
    with composing(conf):
        parsed = parse(overrides)
        first = compose_command([text_of(override) for override in parsed if not override.is_sweep_override()])
        is_sweep = multirun or OmegaConf.select(first, "hydra.mode") == RunMode.MULTIRUN
        if not is_sweep:
            refuse_lists(overrides)
            return Command([checked(first)], [])
        if not str(first.hydra.sweeper._target_).endswith(OF_LISTS):
            return Command([checked(first)], [])
        params = OmegaConf.select(first, "hydra.sweeper.params") or {}
        return check_sweep([*(f"{key}={value}" for key, value in params.items()), *overrides])


def refuse_lists(overrides: Sequence[str]) -> None:
    """Raise ConfigError where a setting of a single run has several values."""
    lists = [override for override in parse(overrides) if override.is_sweep_override()]
    if lists:
        given = str(lists[0].input_line).rpartition("@")[2]
        raise ConfigError(f"{given} gives several values; add -m to run each of them, or quote a value that holds commas.")


def check_sweep(overrides: Sequence[str], config_name: str = CONFIG_NAME) -> Command:
    """Check the runs of a sweep by lists of values (not by a sweeper that chooses values as it goes)."""
    choices = choices_of(parse([*overrides, "hydra.job.num=0"]))  # which settings may interpolate
    cells = [list(cell) for cell in itertools.product(*choices)]
    runs = _checked_cells(choices, config_name)
    return Command(runs, [[text for text in map(text_of, cell) if not is_of_hydra(text)] for cell in cells])


def choices_of(overrides: Sequence[Override]) -> list[list[Override]]:
    """Return the settings that every override of a sweep stands for; its runs are their product. Of a repeated key the last counts."""
    choices: dict[str, list[Override]] = {}
    for override in overrides:
        if override.is_discrete_sweep():
            values = parse([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
            if not values:
                raise ConfigError(f"{override.input_line} stands for no value; give one, or a pattern that fits an option.")
        elif override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line} gives a range without steps, from which a sweeper such as hydra/sweeper=optuna chooses; give a "
                "list (KEY=A,B) or range(...), or choose such a sweeper."
            )
        else:
            values = [override]
        choices[override.get_key_element()] = values
    return list(choices.values())


def is_of_hydra(text: str) -> bool:
    """Whether a setting is Hydra's own, such as its launcher."""
    return text.lstrip("+~").startswith(("hydra/", "hydra."))


def _checked_cells(choices: Sequence[Sequence[Override]], config_name: str) -> list[RunSettings]:
    """Return the settings of a sweep's runs after checking them; of a large sweep only of as many as try every value once.

    Every value is composed once, beside the first values of the other settings; a run that combines several values is put together from
    what each of them changed. Where that is refused, Hydra composes the run itself, whose sentence then counts.
    """
    base = [values[0] for values in choices]
    if math.prod(len(values) for values in choices) <= MAX_COMBINATIONS_CHECKED:
        cells = list(itertools.product(*(range(len(values)) for values in choices)))
    else:
        longest = max(len(values) for values in choices)
        cells = [tuple(min(k, len(values) - 1) for values in choices) for k in range(longest)]
    composed = compose_command([text_of(override) for override in base], config_name)
    plain, chosen = _plain(composed)
    parts: dict[tuple[int, int], tuple[dict[str, Any], dict[str, str]]] = {}
    for k, values in enumerate(choices):
        for n, value in enumerate(values[1:], 1):
            parts[k, n] = _varied(composed, [*base[:k], value, *base[k + 1 :]], value, config_name)
    runs = []
    for cell in cells:
        changed = [parts[k, n] for k, n in enumerate(cell) if n]
        words = [text_of(values[n]) for values, n in zip(choices, cell, strict=True)]
        names = chosen | {group: name for _, names in changed for group, name in names.items() if name != chosen.get(group)}
        try:
            settings = settings_of(_merged(plain, [part for part, _ in changed]), names, [word for word in words if not is_of_hydra(word)])
            check_compatible(settings, offers_of_hydra)
        except ConfigError:
            settings = check_run(words, config_name)
        runs.append(settings)
    return runs


def _plain(composed: DictConfig) -> tuple[dict[str, Any], dict[str, str]]:
    choices = {group: str(choice) for group, choice in composed.hydra.runtime.choices.items() if group in GROUPS}
    return plain_config(composed), choices


def _varied(
    composed: DictConfig, overrides: Sequence[Override], changed: Override, config_name: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the config with one override changed: a value is set in the composed one for a moment, other overrides are composed."""
    key, node, name = changed.key_or_group, *_parent(composed, changed.key_or_group)
    is_value = changed.type == OverrideType.CHANGE and changed.package is None and not isinstance(changed.value(), dict)
    if is_value and node is not None and not is_of_hydra(key) and not isinstance(node._get_node(name), DictConfig):
        before = OmegaConf.to_container(node, resolve=False)
        assert isinstance(before, dict)
        try:
            OmegaConf.update(composed, key, changed.value())
            return _plain(composed)
        except OmegaConfBaseException:
            pass  # composing it names what is wrong
        finally:
            OmegaConf.update(composed, key, before[name])
    return _plain(compose_command([text_of(override) for override in overrides], config_name))


def _parent(composed: DictConfig, key: str) -> tuple[DictConfig | None, str]:
    """Return the node that holds a setting, and the setting's name in it; None where there is no such setting."""
    path, _, name = key.rpartition(".")
    node = OmegaConf.select(composed, path) if path else composed
    return (node if isinstance(node, DictConfig) and name in node else None), name


def _merged(base: Any, parts: Sequence[Any]) -> Any:
    """Return `base` with what each of `parts` has different from it."""
    different = [part for part in parts if part != base]
    if len(different) > 1 and all(isinstance(part, Mapping) for part in (base, *different)):
        names = dict.fromkeys(name for mapping in (base, *different) for name in mapping)
        kept = [name for name in names if all(name in mapping for mapping in different)]
        return {name: _merged(base.get(name), [mapping[name] for mapping in different]) for name in kept}
    return copy.deepcopy(different[-1] if different else base)


def check_run(overrides: Sequence[str], config_name: str = CONFIG_NAME) -> RunSettings:
    """Return the settings of one run, composed and checked; raises ConfigError in one sentence. Hydra must be composing."""
    return checked(compose_command(overrides, config_name))


def checked(composed: DictConfig) -> RunSettings:
    """Return the settings of a composed run, with Hydra's own node; raises ConfigError in one sentence."""
    try:
        settings = settings_from(composed, composed.hydra)
        check_compatible(settings, offers_of_hydra)
    except ConfigError as error:
        raise with_file(error, composed.hydra.runtime.choices, composed.hydra.overrides.task) from error
    return settings


def compose_command(overrides: Sequence[str], config_name: str = CONFIG_NAME) -> DictConfig:
    """Compose with Hydra's own node; raises ConfigError in one sentence. Hydra must be composing."""
    try:
        return compose(config_name, list(overrides), return_hydra_config=True)
    except COMPOSING as error:
        raise ConfigError(diagnosis(config_name, overrides, error)) from error
