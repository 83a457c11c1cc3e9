"""What each option of the data and degradation groups gives to a batch, for messages that say what to choose instead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.config_source import ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsdiff.app.composition import group_config, typed_group
from rsdiff.app.diagnosis import loader_at_hand, options_of_group
from rsdiff.app.groups import GROUPS
from rsdiff.config import UserError, default_values
from rsdiff.runs.compatibility import Offers, fields_given


class _Images:
    """A data set of images, which every degradation can be applied to."""

    gives = frozenset({"hr"})


def offers_of_hydra() -> Offers:
    """Return what each option of the data and degradation groups gives; nothing where Hydra is not at hand (a launcher's worker)."""
    if not GlobalHydra.instance().is_initialized():
        return {}
    read = options_as_written(loader_at_hand())
    offers: dict[str, dict[str, frozenset[str]]] = {"dataset": {}, "degradation": {}}
    for group, given in offers.items():
        for option in options_of_group(group):
            try:
                given[option] = fields_given({"dataset": _Images(), group: _usual(group, read(group, option))}, group)
            except (UserError, OmegaConfBaseException):  # needs a setting of its own
                continue
    return offers


def _usual(group: str, node: dict[str, Any]) -> Any:
    """Return the typed config of an option's values in a run of scale 4."""
    if "${" not in str(node):
        return typed_group(group, node)
    return group_config(OmegaConf.create({"scale": 4, "seed": 0, group: node}), group)


def options_as_written(loader: ConfigLoader) -> Callable[[str, str], dict[str, Any]]:
    """Return a function of (group, option) that gives the values of an option with the options that it extends, as its files have them.

    Nothing is composed, which takes a tenth of the time, and every file is read once.
    """

    @functools.cache
    def node(group: str, option: str) -> dict[str, Any]:
        if group.startswith("schema/"):
            return {"kind": option, **default_values(GROUPS[group.removeprefix("schema/")][option])}
        path = f"{group}/{option}"
        source = next((source for source in loader.get_sources() if source.is_config(path)), None)
        own: Any = _read(source, path) if source is not None else {}
        values: dict[str, Any] = {}
        for entry in own.pop("defaults", []):
            if isinstance(entry, str) and entry != "_self_":
                folder, _, name = entry.removeprefix("/").partition("@")[0].rpartition("/")
                values = _merged(values, node(folder or group, name))
        return _merged(values, own)

    return node


def _read(source: ConfigSource, path: str) -> Any:
    """Return the values of a config; those of a file by libyaml where it is there, which takes a tenth of the time of Hydra's reader."""
    if source.scheme() == "file":
        text = Path(source.path, f"{path}.yaml").read_text(encoding="utf-8")
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    return OmegaConf.to_container(source.load_config(path).config)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    nested = [name for name, value in over.items() if isinstance(value, dict) and isinstance(under.get(name), dict)]
    return {**under, **over, **{name: _merged(under[name], over[name]) for name in nested}}
