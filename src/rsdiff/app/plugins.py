"""Methods, data sets and whatever else a user's own package brings, without a change to rsdiff.

A plugin is a module or package with any of the tables METHODS, NETWORKS, DISCRIMINATORS, DATASETS, DEGRADATIONS, SAMPLERS, LOGGERS (kind ->
config class, or 'module:Class', which is imported when it is used) and METRICS (as `rsdiff.metrics.table` has them, or the place of such a
table), and a folder `conf` beside it with options of groups. It is found as an entry point of the group `rsdiff.plugins`, or named by
`plugins=[my_package]`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rsdiff.app.groups import FAMILIES, GROUPS
from rsdiff.config import ConfigError

ENTRY_POINTS, NAMED = "rsdiff.plugins", "RSDIFF_PLUGINS"
"""Group of entry points; environment: modules named on the command line, which processes of launchers inherit."""
TABLES: Mapping[str, str] = {
    "METHODS": "model",
    "DATASETS": "dataset",
    "DEGRADATIONS": "degradation",
    "SAMPLERS": "sampler",
    "LOGGERS": "logger",
}
"""Tables of a plugin, and the group that each extends."""
FAMILY_TABLES: Mapping[str, str] = {"NETWORKS": "network", "DISCRIMINATORS": "discriminator"}
"""Tables of a plugin that extend a family of choices inside an option: `model.network=mine`."""
IMPORTED: Mapping[str, str] = {"METRICS": "rsdiff.metrics.table:METRICS"}
"""Tables of a plugin that extend a table which only work itself needs."""


def name_plugins(names: Sequence[str]) -> None:
    """Let this process and those it starts use the modules `names` as plugins, besides those installed."""
    for name in names:
        _loaded(name, f"plugins=[{name}]")  # one that cannot be imported is not named to anyone else
    before = os.environ.get(NAMED, "").split(",")
    os.environ[NAMED] = ",".join(dict.fromkeys(name for name in (*before, *names) if name))


def load_plugins() -> tuple[Path, ...]:
    """Import the plugins and fill their tables in, once; return their folders of configs. Raises ConfigError in one sentence."""
    given = {name: f"plugins=[{name}]" for name in os.environ.get(NAMED, "").split(",") if name}
    folders = [_loaded(name, origin) for name, origin in {**given, **_installed()}.items()]
    return tuple(folder for folder in folders if folder.is_dir())


@functools.cache
def _installed() -> Mapping[str, str]:
    """Return the modules that installed packages name, and what names them; to look through all packages takes a while."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.value.partition(":")[0]: f"the entry point {point.name}" for point in points}


def _loaded(name: str, origin: str) -> Path:
    """Import a plugin, fill its tables in and return the folder of its configs, which it may lack."""
    try:
        return _folder_of(name)
    except ImportError as error:
        raise ConfigError(
            f"{origin} names the module {name}, which cannot be imported ({error}); install it, or put its folder on PYTHONPATH."
        ) from error


@functools.cache
def _folder_of(name: str) -> Path:
    """Do what `_loaded` says, once for a plugin that is installed and named too."""
    module = importlib.import_module(name)
    _register(module)
    return Path(str(module.__file__)).parent / "conf"


def _register(module: ModuleType) -> None:
    for table, group in TABLES.items():
        _extend(GROUPS[group], getattr(module, table, {}), f"{module.__name__}.{table}")
    for table, family in FAMILY_TABLES.items():
        if hasattr(module, table):
            _extend(FAMILIES[family], getattr(module, table), f"{module.__name__}.{table}")
    for table, place in IMPORTED.items():
        if new := getattr(module, table, None):
            _extend(_found(place), _found(new) if isinstance(new, str) else new, f"{module.__name__}.{table}")


def _found(place: str) -> Any:
    """Return what 'module:name' names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _extend(table: MutableMapping[str, Any], new: Mapping[str, Any], where: str) -> None:
    for name, value in new.items():
        if name in table and table[name] is not value:
            raise ConfigError(f"{where} names {name!r}, which exists already; give it another name.")
        table[name] = value
